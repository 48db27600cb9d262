"""Checks the grammar of a request head before the parser sees it. Pure.

Theory of operation. llhttp is strict, but how strict depends on its version. So a whole head must
first match the grammar of `kernels.split_head`. A head that fails is examined again only to name
the broken rule.

Incomplete heads are judged too: one that can no longer become well-formed, or is above a bound, is
refused without waiting for the rest.
"""

import re

from syncbridge import kernels
from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.fast.limits import (
    BAD_VERSION,
    HEAD_TOO_LARGE,
    MALFORMED,
    TARGET_TOO_LONG,
)

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_OTHER_VERSION = re.compile(_TOKEN + rb"++ [\x21-\x7e]++ HTTP/[0-9]\.[0-9]\r\n")
_START = re.compile(_TOKEN)
HEAD_END = b"\r\n\r\n"


def split_head(head: bytes, config: ListenerConfig) -> tuple[bytes, bytes, bytes] | Refusal:
    """Method, target and minor version of a complete head, or why it is refused.

    A complete head ends with an empty line, and has no other one.
    """
    if len(head) > config.max_header_bytes:
        return _too_large(head, config)
    parts = kernels.split_head(head)
    if parts is None:
        return _reason(head)
    if len(parts[1]) > config.max_target_bytes:
        return TARGET_TOO_LONG
    return parts


def judge_part(data: bytes, config: ListenerConfig) -> Refusal | None:
    """Whether the beginning of a head may go on. `data` has no HEAD_END in it."""
    if _START.match(data) is None:
        return MALFORMED
    if data.count(b"\n") != data.count(b"\r\n"):
        return MALFORMED
    if len(data) >= config.max_header_bytes:
        return _too_large(data, config)
    if b"\r\n" not in data and _target_bytes(data) > config.max_target_bytes:
        return TARGET_TOO_LONG
    return None


def _target_bytes(data: bytes) -> int:
    line = data.partition(b"\r\n")[0]
    return len(line.partition(b" ")[2].partition(b" ")[0])


def _too_large(data: bytes, config: ListenerConfig) -> Refusal:
    too_long = _target_bytes(data) > config.max_target_bytes
    return TARGET_TOO_LONG if too_long else HEAD_TOO_LARGE


def _reason(head: bytes) -> Refusal:
    other = _OTHER_VERSION.match(head)
    if other is not None and b" HTTP/1." not in other[0]:
        return BAD_VERSION
    return MALFORMED
