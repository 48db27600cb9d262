"""Hypercorn's configuration, and what its connections share.

Hypercorn serves HTTP/2, runs the lifespan, and reads certificates. HTTP/1.1, plain and over TLS,
has our own engine (`fast/`): there is one parser, and no other one serves what it refuses.
"""

import logging
import ssl
import sys
from dataclasses import dataclass

from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState

from syncbridge_server.listener.capacity import Bounds
from syncbridge_server.listener.contract import ListenerConfig, SocketSink


@dataclass(frozen=True, slots=True)
class Site:
    """What every Hypercorn connection of a process shares."""

    app: AppWrapper
    config: ListenerConfig
    hypercorn: Config
    context: WorkerContext
    state: ConnectionState
    sink: SocketSink
    certificates: "Certificates"
    bounds: Bounds


def hypercorn_config(config: ListenerConfig) -> Config:
    """The listener's settings as a Hypercorn configuration."""
    target = Config()
    target.certfile = config.certfile
    target.keyfile = config.keyfile
    target.keyfile_password = ""  # else OpenSSL asks the terminal for that of an encrypted key
    target.keep_alive_timeout = config.keep_alive_timeout
    target.keep_alive_max_requests = sys.maxsize  # above it, the request under way is lost
    target.graceful_timeout = config.drain_timeout
    target.h2_max_header_list_size = config.max_header_bytes
    target.include_server_header = False
    target.root_path = config.root_path
    target.errorlog = logging.getLogger("syncbridge.http")
    return target


class Certificates:
    """The server's side of TLS, without renegotiation. Raises OSError for an unusable file.

    Attributes:
        context: for the next handshake; None without a certificate.
    """

    def __init__(self, config: ListenerConfig) -> None:
        self._hypercorn = hypercorn_config(config)
        self.context = self._read()

    def reload(self) -> None:
        """Read the files again, for new connections. Raises OSError and keeps the old ones."""
        self.context = self._read()

    def _read(self) -> ssl.SSLContext | None:
        context = self._hypercorn.create_ssl_context()
        if context is not None:
            context.options |= ssl.OP_NO_RENEGOTIATION
        return context
