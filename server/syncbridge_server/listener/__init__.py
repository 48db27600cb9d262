"""Where bytes arrive: accept, look at the first bytes, hand over to the hub or to an HTTP engine.

In reading order: `contract` is what the listener needs from others; `sniff`, `upgrade` and
`response` are the handshake, pure; `capacity` bounds what is open at once; `accept` is the
entrance; `fast` is HTTP/1.1 and TLS; `hypercorn`, `http2`, what is named after it, and `tunnel` are
HTTP/2; `serve` is the life of one process; `bridge` is the ASGI route for other servers; `bind`,
`workers` and `shutdown` are the processes around it.
"""
