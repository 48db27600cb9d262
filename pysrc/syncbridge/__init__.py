"""SyncBridge's rules: sessions, messages, errors. Synchronous and pure; time is an argument.

General layout, in reading order: `types`, `errors`, `close_codes` and `limits` are vocabulary;
`messages` and `encode` are the wire; `protocol` is the connection's state machine; `session` is
what a node knows of a session; `records` is what a store is asked and answers; `kernels` chooses
between the compiled document kernel and its pure twin.
"""

try:
    from syncbridge._version import __version__
except ModuleNotFoundError:  # the build writes it
    __version__ = "0+unknown"
