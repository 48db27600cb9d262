"""The machine-readable description of the HTTP interface, and a page that shows it."""
