"""Voice on the sockets: reports of devices and messages to devices."""
