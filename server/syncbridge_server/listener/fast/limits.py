"""The refusals of this HTTP stack, one for each reason, and the bounds that have no setting.

A refusal is answered with a problem document and ends the connection: after a message that was not
understood, the start of the next one is unknown (RFC 9112 section 2.2).
"""

from syncbridge_server.listener.contract import Refusal

READ_BYTES = 65_536
"""Bytes read from a socket at once; also the most that waits for the application."""
TOGETHER_BYTES = 16_384
"""Bytes of one connection that may wait for the end of a turn; more is sent at once."""
DRAIN_BYTES = 65_536
"""Longest rest of a body that is read and dropped to keep the connection open."""
CHUNKS = 16_384
"""Chunks of one body: tiny ones cost a hundred times their bytes."""
CHUNK_LINE_BYTES = 256
"""A chunk's size with its extensions."""
CHUNK_EXTENSION_BYTES = 4_096
"""All chunk extensions of one body."""
TRAILER_BYTES = 8_192
"""The trailer section of one body."""
TURN_REQUESTS = 16
"""Requests of one connection that are answered before other connections get their turn."""
TURN_CONNECTIONS = 64
"""Connections that are served before WebSockets and other tasks get their turn."""
GONE_SECONDS = 10.0
"""How long an application may go on after it could have noticed that its client is gone."""
LAST_REQUEST_SECONDS = 0.5
"""In a stop: how long an idle connection is kept for a request that may be under way."""

MALFORMED = Refusal(400, "bad_request", "the request is not well-formed HTTP/1.1")
BAD_TARGET = Refusal(400, "bad_request", "the request target is not acceptable")
BAD_HOST = Refusal(400, "bad_request", "exactly one Host header with a valid host is required")
BAD_LENGTH = Refusal(400, "bad_request", "either Content-Length or Transfer-Encoding is required")
BAD_BODY = Refusal(400, "bad_request", "the body is not well-formed chunked coding")
TIMED_OUT = Refusal(408, "request_timeout", "the request did not arrive in time")
BODY_TOO_LARGE = Refusal(413, "too_large", "the body is too large")
TARGET_TOO_LONG = Refusal(414, "uri_too_long", "the request target is too long")
BAD_EXPECTATION = Refusal(417, "expectation_failed", "Expect supports only 100-continue")
HEAD_TOO_LARGE = Refusal(431, "headers_too_large", "the request head is too large")
TOO_MANY_FIELDS = Refusal(431, "headers_too_large", "too many header fields")
FAILED = Refusal(500, "internal_error", "the server failed; its log has the request id")
UNKNOWN_METHOD = Refusal(501, "not_implemented", "unknown method")
NO_TUNNEL = Refusal(501, "not_implemented", "this is not a proxy")
OVERLOADED = Refusal(503, "overloaded", "too many requests; try again", 1)
DRAINING = Refusal(503, "draining", "the server is shutting down", 1)
FLOOD = Refusal(429, "rate_limited", "too many HTTP/2 frames without a request")
BAD_VERSION = Refusal(505, "http_version", "use HTTP/1.1 or HTTP/1.0")


class Refused(Exception):
    """The peer's message is not served. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
