"""A server that answers like Redis 6.2."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def old_server(path: Path) -> Iterator[str]:
    """Answers like Redis 6.2 on one connection after the other; yields its URL."""
    info = b"# Server\r\nredis_version:6.2.14\r\n"

    class Old(socketserver.StreamRequestHandler):
        def word(self) -> bytes:
            self.rfile.readline()  # its length
            return self.rfile.readline().strip()

        def handle(self) -> None:
            while line := self.rfile.readline():
                words = [self.word() for _ in range(int(line[1:]))]
                bulk = b"$%d\r\n%s\r\n" % (len(info), info)
                self.wfile.write(bulk if words[0] == b"INFO" else b"+OK\r\n")

    with socketserver.ThreadingUnixStreamServer(str(path), Old) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
