"""What lineage costs an update: CPU of Redis and of the server, microseconds.

    python benchmarks/bench_lineage.py [rounds] [calls a round]

Redis: `apply.lua` as it is, beside a copy that makes, stores, publishes and answers no token; both
take turns, round by round, so that other load on the machine meets them alike. The server: all that
it does to put a commit in its place in the history (`Session.offer`), which it would have to do by
number alone without lineage, and what the two members more in a message cost. So the server's sum
is an upper bound. Targets: 3 and 3 microseconds.
"""

import statistics
import sys
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from timeit import Timer

import redis

from bench_scripts import SESSIONS, Variant, calls
from support.redis_servers import RedisServer
from syncbridge import encode, kernels
from syncbridge.records.sessions import Place
from syncbridge.session import Change, Session
from syncbridge_server.redis.scripts import Scripts

PARTS = (
    (b"lineage = sub(redis.sha1hex((exists and lineage or epoch) .. ARGV[8]), 1, TOKEN)", b""),
    (b"'l', lineage, ", b""),
    (b"local entry, length = lineage, nil", b"local entry, length = '', nil"),
    (b".. lineage .. ' ' .. lineage_before .. ' '", b".. ' '"),
)
"""What is taken away: where a token is made, stored, kept in the journal, and published."""

STEPS = 2_000
DEVICE = b'"device-1"'


def without_lineage(text: bytes) -> bytes:
    """The script without its tokens; SystemExit when it has changed."""
    for part, other in PARTS:
        if part not in text:
            raise SystemExit(f"apply.lua has no {part.decode()!r} any more")
        text = text.replace(part, other)
    return text


def in_redis(rounds: int, count: int) -> None:
    """Both scripts, as `bench_scripts.py` measures them."""
    with RedisServer() as server, server.client() as client:
        client.config_set("appendonly", "yes")
        client.config_set("auto-aof-rewrite-percentage", 0)
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.05)
        compared = [variant(client, name) for name in ("with", "without")]
        for _ in range(rounds):
            for each in compared:
                each.run(client, count)
    for name in ("script", "cpu"):
        times = [getattr(each, name) for each in compared]
        medians = [statistics.median(each) for each in times]
        price = statistics.median(one - other for one, other in zip(*times, strict=True))
        shown = f"{medians[0]:6.2f} with, {medians[1]:6.2f} without"
        print(f"Redis, {name:6} {shown}: {price:5.2f} us an update")


def variant(client: redis.Redis, name: str) -> Variant:
    """`apply.lua` with or without lineage, on sessions of its own."""
    text = Scripts().sources["apply"]
    digest = client.script_load(text if name == "with" else without_lineage(text))
    sids = [str(uuid.uuid4()) for _ in range(SESSIONS)]
    return Variant(name, calls(digest, sids, how="stream"), sids)


def changes() -> list[Change]:
    """A history of one key."""
    tokens = [f"{number:012x}" for number in range(STEPS + 1)]
    value = b'"' + b"x" * 116 + b'"'
    return [
        Change(at + 1, at, "e" * 12, "d", "", [b"cursor", value], [], token, before, seq=at + 1)
        for at, (before, token) in enumerate(pairwise(tokens))
    ]


def payload(change: Change) -> bytes:
    """STATE_UPDATE's payload without the two members."""
    common = (
        b'{"version":%d,"prev_version":%d,"epoch":"%b",'
        b'"changes":%b,"deleted_keys":%b,"device_id":%b%b'
        % (
            change.version,
            change.prev_version,
            change.epoch.encode(),
            kernels.render_pairs(change.sets),
            encode.key_list(change.deletes),
            DEVICE,
            b"",
        )
    )
    quoted = kernels.quote(change.sets[0])
    return b'%b,"key":%b,"value":%b,"operation":"SET"}' % (common, quoted, change.sets[1])


def in_server(rounds: int) -> None:
    """The least of the rounds: what else the machine does is not the price."""
    steps = changes()

    def offer() -> None:
        session: Session[None] = Session("s")
        session.begin(Place("e" * 12, 0, steps[0].prev_lineage), None, [])
        for step in steps:
            session.offer(step, [])

    def told() -> None:
        for step in steps:
            encode.update_payload(step, DEVICE)

    def told_without() -> None:
        for step in steps:
            payload(step)

    placed, long, short = (least(work, rounds) for work in (offer, told, told_without))
    print(f"server: its place {placed:5.2f}, two members {long - short:5.2f} us an update, at most")


def least(work: Callable[[], None], rounds: int) -> float:
    """Microseconds a step."""
    return min(Timer(work).repeat(rounds, 1)) / STEPS * 1e6


if __name__ == "__main__":
    rounds, count = (int(text) for text in (*sys.argv[1:], *("12", "3000")[len(sys.argv) - 1 :]))
    in_redis(rounds, count)
    in_server(rounds)
