"""Where bytes arrive: accept, look at the first bytes, hand over to the hub or to Hypercorn.

In reading order: `contract` is what the listener needs from others; `sniff`, `upgrade` and
`response` are the handshake, pure; `accept` is the entrance; `http`, `tls`, `hypercorn` and
`tunnel` are everything that is not a plain upgrade; `serve` is the life of one process; `bridge`
is the ASGI route for other servers; `bind`, `workers` and `shutdown` are the processes around it.
"""
