"""What `syncbridge check` looks at before a server is started."""
