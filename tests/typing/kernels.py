"""The types that users of the kernels and ports rely on. Checked by mypy, never run."""

from collections.abc import Sequence
from typing import assert_type

from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.kernels import (
    Doc,
    Split,
    compact,
    compose,
    imprint,
    merge3,
    merge_patch,
    render_pairs,
    spelling,
    spellings,
    split,
)
from syncbridge.records.sessions import Answer, Apply, Commit, Outcome
from syncbridge_core.hub import Hub, HubLimits, HubStatistics
from syncbridge_server.ports.store import Bus, RedisCommands, Store


def documents(data: bytes) -> None:
    parts = split(data)
    assert_type(parts, Split)
    assert_type(parts.get(b"key"), bytes | None)
    assert_type(parts.flat(), list[bytes])
    assert_type(compact(memoryview(data)), bytes)
    assert_type(render_pairs([b"key", b"1"]), bytes)


def replicas(doc: Doc, target: Split) -> None:
    assert_type(doc.apply([b"key", b"1"], [], 1, 2), bool)
    assert_type(doc.since(1), tuple[bytes, bytes] | None)
    assert_type(doc.diff(target), tuple[list[bytes], list[bytes]])


def values(stored: bytes | None) -> None:
    assert_type(imprint(stored), bytes)
    assert_type(spelling(b"1.0"), bytes)
    assert_type(spellings([b"key", b"1.0"]), list[bytes])


def merging(doc: Doc, target: Split) -> None:
    assert_type(merge_patch(b"{}", memoryview(b"{}")), bytes)
    assert_type(compose(([b"key", b"1"], []), ([], [b"key"])), tuple[list[bytes], list[bytes]])
    assert_type(
        merge3(doc, target, {b"key": b"?"}, complete=True),
        tuple[list[bytes], list[bytes], list[bytes], list[bytes]],
    )


def sockets(hub: Hub, fd: int, now: int) -> None:
    cid = hub.adopt(fd, now)
    assert_type(cid, int)
    assert_type(hub.poll(now), list[tuple[int, int, bytes, int]])
    assert_type(hub.send(cid, b"{}"), bool)
    assert_type(hub.publish(hub.open_topic(), b"{}", exclude=cid), int)
    assert_type(hub.statistics(), HubStatistics)
    assert_type(HubLimits().max_message, int)
    hub.close(cid, CloseCode.REPLACED, CloseCode.REPLACED.reason)


def catalogues(error: SyncBridgeError) -> None:
    assert_type(error.code, ErrorCode)
    assert_type(error.retry_after, float | None)
    assert_type(CloseCode.NORMAL.should_reconnect, bool)


async def ports(store: Store, bus: Bus, redis: RedisCommands, write: Apply) -> None:
    def deliver(answers: Sequence[Answer | StoreError]) -> None:
        for answer in answers:
            if isinstance(answer, Outcome):
                assert_type(answer.version, int)

    def committed(commits: Sequence[Commit]) -> None:
        assert_type(commits[0].sets, list[bytes])

    store.submit([write], deliver)
    bus.on_commits(committed)
    assert_type(redis.connected, bool)
