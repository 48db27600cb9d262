"""TLS connections: handshake with a deadline, then Hypercorn by what ALPN chose (RFC 7301)."""

import socket
import ssl

import trio

from syncbridge_server.listener.http import ReplayStream
from syncbridge_server.listener.hypercorn import Connection, Site


async def serve_tls(site: Site, sock: socket.socket, initial: bytes) -> None:
    """Serve one TLS connection until it ends. Owns the socket.

    A failed or slow handshake ends it without a word: there is nobody to talk to yet.
    """
    assert site.ssl_context is not None
    transport = ReplayStream(sock, initial)
    stream = trio.SSLStream(transport, site.ssl_context, server_side=True, https_compatible=True)
    try:
        with trio.fail_after(site.config.header_timeout):
            await stream.do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError, ssl.SSLError, OSError):
        await trio.aclose_forcefully(transport)
        return
    alpn = stream.selected_alpn_protocol() or "http/1.1"
    await Connection(site, stream, transport.socket, alpn, secure=True).run()
