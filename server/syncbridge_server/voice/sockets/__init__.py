"""Voice on the sockets: what devices say of calls, and what they are told."""
