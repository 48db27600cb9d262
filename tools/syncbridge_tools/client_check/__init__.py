"""`syncbridge client-check`: scenarios with faults for a client of any make."""
