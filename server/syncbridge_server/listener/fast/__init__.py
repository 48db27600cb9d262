"""HTTP/1.1, plain or over TLS: parsed by llhttp, the application run in the connection's own task.

In reading order: `limits` has the refusals; `guard` checks the grammar before anything is parsed;
`request` parses a request head; `body` parses a request body; `response` encodes ASGI messages.
Those are pure. `readiness` waits for all connections at once, `outbox` sends their short answers
together, `transport` reads and writes with deadlines, `secure` does so in TLS, `patience` is the
time account of a body, `exchange` is one request and its answer, `connection` their sequence, and
`engine` is what all connections of a process share.
"""
