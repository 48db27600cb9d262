"""SyncBridge's rules: sessions, messages, errors. Synchronous and pure; time is an argument.

General layout, in reading order: `types`, `errors`, `close_codes` and `limits` are vocabulary;
`messages` and `encode` are the wire; `protocol` is the connection's state machine; `session` is
what a node knows of a session; `records` is what a store is asked and answers; `kernels` chooses
between the compiled document kernel and its pure twin.
"""

try:
    from syncbridge._version import __version__ as __version__
except ModuleNotFoundError as missing:
    if missing.name != "syncbridge._version":
        raise
    __version__ = "0+unbuilt"  # the build writes that module
