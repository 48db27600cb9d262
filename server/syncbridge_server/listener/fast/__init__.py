"""HTTP/1.1, plain or over TLS: parsed by llhttp, the application run in the connection's own task.

In reading order: `limits` are the refusals; `guard` is the grammar that is held before anything is
parsed; `request` makes a request head of bytes; `body` takes a request body apart; `response`
makes bytes of ASGI messages. Those are pure. `readiness` is the one wait for all connections,
`outbox` sends their short answers together, `transport` reads and writes with deadlines, `secure`
does so in TLS, `patience` is the time that a body has, `exchange` is one request and its answer,
`connection` their sequence, and `engine` what all connections of a process share.
"""
