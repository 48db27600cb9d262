"""permessage-deflate in the opening handshake (RFC 7692 section 7.1), as a pure function.

The client lists its offers, best first; the answer takes the first one that the hub supports, and
names its parameters. The hub never refers to an earlier message and cannot decompress one that
does, so the answer always has both `no_context_takeover` parameters, which section 7.1.1 allows
even when the client did not offer them. Its window is fixed: an offer with a smaller
`server_max_window_bits` is declined. The client's own window does not matter: the decompressor
accepts any.

An offer with a parameter that is unknown, repeated or out of range is declined, as section 7.1
demands; a header that breaks the grammar of RFC 6455 section 9.1 fails the handshake.
"""

import re
from collections.abc import Sequence

from syncbridge_core.deflate import WINDOW_BITS

_CHARACTER = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_ITEM = re.compile(
    rb"[ \t]*(%b+)[ \t]*(?:=[ \t]*(?:(%b+)|\"((?:\\?%b)+)\")[ \t]*)?\Z"
    % (_CHARACTER, _CHARACTER, _CHARACTER)
)
_WINDOW = re.compile(rb"(?:[89]|1[0-5])\Z")

_NAME = b"permessage-deflate"
_ALWAYS = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
_SERVER_WINDOW = b"server_max_window_bits"
_CLIENT_WINDOW = b"client_max_window_bits"
_WITH_WINDOW = b"%b; %b=%d" % (_ALWAYS, _SERVER_WINDOW, WINDOW_BITS)
_FLAGS = frozenset({b"server_no_context_takeover", b"client_no_context_takeover"})

Item = tuple[bytes, bytes | None]


def choose_compression(header: bytes) -> bytes | None:
    """The value of Sec-WebSocket-Extensions for the answer, or None without compression.

    Args:
        header: the client's header, several joined with commas.

    Raises:
        ValueError: the header breaks the grammar. O(len(header)).
    """
    offers = [_parse(offer) for offer in header.split(b",") if offer.strip(b" \t")]
    answers = (_judge(offer[1:]) for offer in offers if offer[0] == (_NAME, None))
    return next((answer for answer in answers if answer is not None), None)


def _parse(offer: bytes) -> list[Item]:
    """Name and parameters of one offer. A quoted comma or semicolon is no token anyway."""
    items: list[Item] = []
    for part in offer.split(b";"):
        match = _ITEM.match(part)
        if match is None or (not items and match[2] is not match[3]):
            raise ValueError("Sec-WebSocket-Extensions is malformed")
        value = match[2] if match[3] is None else match[3].replace(b"\\", b"")
        items.append((match[1], value))
    return items


def _judge(parameters: Sequence[Item]) -> bytes | None:
    """The answer to one offer, or None when it is declined."""
    given = dict(parameters)
    if len(given) < len(parameters):
        return None
    for name, value in parameters:
        if name in _FLAGS:
            acceptable = value is None
        elif name == _CLIENT_WINDOW:
            acceptable = value is None or _WINDOW.match(value) is not None
        elif name == _SERVER_WINDOW:
            acceptable = value is not None and _honours(value)
        else:
            acceptable = False
        if not acceptable:
            return None
    return _WITH_WINDOW if _SERVER_WINDOW in given else _ALWAYS


def _honours(value: bytes) -> bool:
    return _WINDOW.match(value) is not None and int(value) >= WINDOW_BITS
