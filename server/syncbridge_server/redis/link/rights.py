"""Checks that the user of a connection may run the commands of the stores and their scripts.

A script that is refused a command in its middle has done what came before it. So no connection is
used if its user lacks one. All commands are tried in a transaction that is discarded: Redis checks
the rights when a command is queued, and executes none.
"""

import hiredis

from syncbridge_server.redis.link.wire import Wire, WireBroken, pack

DENIED = "the user may not"
TRIALS: tuple[tuple[str, ...], ...] = (
    ("SET", "s", "1"),
    ("GET", "s"),
    ("GETEX", "s"),
    ("GETDEL", "s"),
    ("PEXPIRE", "s", "60000"),
    ("PEXPIREAT", "s", "9999999999999"),
    ("EXISTS", "s"),
    ("HSET", "h", "a", "1"),
    ("HSETNX", "h", "a", "1"),
    ("HINCRBY", "h", "n", "1"),
    ("HGET", "h", "a"),
    ("HMGET", "h", "a"),
    ("HGETALL", "h"),
    ("HKEYS", "h"),
    ("HVALS", "h"),
    ("HLEN", "h"),
    ("HDEL", "h", "b"),
    ("HEXISTS", "h", "a"),
    ("HSTRLEN", "h", "a"),
    ("ZADD", "z", "1", "a"),
    ("ZSCORE", "z", "a"),
    ("ZMSCORE", "z", "a"),
    ("ZCARD", "z"),
    ("ZCOUNT", "z", "0", "1"),
    ("ZRANGE", "z", "0", "1"),
    ("ZREVRANGE", "z", "0", "1"),
    ("ZRANGEBYSCORE", "z", "0", "1"),
    ("ZREVRANGEBYSCORE", "z", "1", "0"),
    ("ZREVRANGEBYLEX", "z", "+", "-"),
    ("ZREMRANGEBYSCORE", "z", "5", "6"),
    ("ZREMRANGEBYRANK", "z", "5", "6"),
    ("ZREM", "z", "b"),
    ("ZSCAN", "z", "0"),
    ("SADD", "m", "a"),
    ("SCARD", "m"),
    ("SREM", "m", "b"),
    ("SPOP", "m", "0"),
    ("SSCAN", "m", "0"),
    ("RPUSH", "l", "a"),
    ("LPUSH", "l", "a"),
    ("LLEN", "l"),
    ("LINDEX", "l", "0"),
    ("LRANGE", "l", "0", "1"),
    ("LSET", "l", "0", "b"),
    ("LTRIM", "l", "0", "1"),
    ("XADD", "x", "1-1", "a", "1"),
    ("XLEN", "x"),
    ("XRANGE", "x", "-", "+"),
    ("XREVRANGE", "x", "+", "-"),
    ("XDEL", "x", "1-1"),
    ("XTRIM", "x", "MINID", "1-0"),
    ("XGROUP", "CREATE", "x", "g", "0"),
    ("XREADGROUP", "GROUP", "g", "a", "COUNT", "1", "STREAMS", "x", ">"),
    ("XCLAIM", "x", "g", "a", "0", "1-1"),
    ("XPENDING", "x", "g"),
    ("XACK", "x", "g", "1-1"),
    ("XINFO", "STREAM", "x"),
    ("SCAN", "0"),
    ("TYPE", "s"),
    ("PTTL", "s"),
    ("PERSIST", "s"),
    ("PEXPIRETIME", "s"),
    ("COPY", "s", "c"),
    ("RENAME", "c", "d"),
    ("UNLINK", "s"),
    ("DEL", "h", "z", "m", "l", "x", "d"),
)
"""Commands of the stores and their scripts. The keys are never touched."""


def require_rights(wire: Wire, deadline: float) -> None:
    """Raise WireBroken with the commands that the user may not run. Skipped if MULTI is
    forbidden."""
    if not _taken(wire, [pack("MULTI")], deadline)[0]:
        return
    packed = [pack(*trial) for trial in TRIALS]
    *taken, _ = _taken(wire, [*packed, pack("DISCARD")], deadline)
    denied = [trial[0] for trial, good in zip(TRIALS, taken, strict=True) if not good]
    if denied:
        raise WireBroken(f"not ready: NOPERM, {DENIED}: {', '.join(denied)}", sent=False)


def _taken(wire: Wire, packed: list[bytes], deadline: float) -> list[bool]:
    """For each command whether its rights were not the reason to refuse it."""
    replies: list[object] = []
    wire.exchange(packed, replies, deadline)
    return [
        not (isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOPERM"))
        for reply in replies
    ]
