"""Questions from one node to all others, and their answers, over the bus.

A question goes to the common channel with an id; each node answers on the asker's own channel. The
asker knows from the directory how many answers to expect, and waits at most `DEADLINE` seconds:
missing nodes are then named, and the answer is incomplete. The bus may lose messages, so nothing
that must happen relies on a question.

Bounds: `MAX_WAITING` questions of our own, `MAX_ANSWERING` answers under way for others. Above
them, own questions are refused, and those of others dropped, which the asker sees as missing
answers.
"""

import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import msgspec
import structlog
import trio

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.integrity import UNREADABLE
from syncbridge.records.sessions import Notice
from syncbridge_server.ports.store import Bus

log = structlog.get_logger("admin")

T = TypeVar("T")

DEADLINE = 1.0
MAX_WAITING = 64
MAX_ANSWERING = 64
KIND_ASK = "ask"
KIND_ANSWER = "answer"

Handler = Callable[[bytes], Awaitable[bytes]]
"""Body of a question -> body of this node's answer, both JSON text."""


class NodeQuery(msgspec.Struct):
    """A question on the bus. `asker`: the node to answer."""

    asker: str
    subject: str
    body: msgspec.Raw


class NodeReply(msgspec.Struct):
    """An answer on the bus."""

    node: str
    body: msgspec.Raw


class Answers(NamedTuple):
    """Answers by node, and the live nodes that did not answer in time."""

    bodies: dict[str, bytes]
    missing: list[str]

    def read(self, kind: type[T]) -> dict[str, T]:
        """The bodies as a `kind`. Nodes with an invalid answer are missing, too."""
        found: dict[str, T] = {}
        for node, body in self.bodies.items():
            try:
                found[node] = msgspec.json.decode(body, type=kind)
            except UNREADABLE:
                log.warning("node_answer_unreadable", node=node)
                self.missing.append(node)
        return found


class Asking:
    """Asks other nodes, and answers them. `run` must be running.

    Args:
        bus: between the nodes. node: name of this node. deadline: seconds for an answer.
    """

    def __init__(self, bus: Bus, node: str, deadline: float = DEADLINE) -> None:
        self._bus = bus
        self._node = node
        self._deadline = deadline
        self._handlers: dict[str, Handler] = {}
        self._waiting: dict[str, _Round] = {}
        self._answering = 0
        self._nursery: trio.Nursery | None = None
        bus.on_notice(KIND_ASK, self._on_ask)
        bus.on_notice(KIND_ANSWER, self._on_answer)

    def answer_with(self, subject: str, handler: Handler) -> None:
        """Answer questions about a subject with `handler`, including our own."""
        self._handlers[subject] = handler

    async def run(self) -> None:
        """Answer other nodes until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    async def ask(self, subject: str, body: bytes, nodes: set[str]) -> Answers:
        """Ask this node and all others, and wait for those of `nodes`.

        Raises OVERLOADED when too many questions wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise SyncBridgeError(
                ErrorCode.OVERLOADED, "too many requests to the other nodes", retry_after=1.0
            )
        others = nodes - {self._node}
        name = os.urandom(8).hex()
        question = self._waiting[name] = _Round(others)
        try:
            if others:
                data = NodeQuery(self._node, subject, msgspec.Raw(body))
                self._bus.tell("*", Notice(KIND_ASK, name, msgspec.json.encode(data)))
            own = await self._handlers[subject](body)
            with trio.move_on_after(self._deadline):
                await question.done.wait()
        finally:
            del self._waiting[name]
        return Answers({self._node: own} | question.bodies, sorted(question.missing))

    def _on_ask(self, notice: Notice) -> None:
        question = msgspec.json.decode(notice.data, type=NodeQuery)
        handler = self._handlers.get(question.subject)
        if question.asker == self._node or handler is None or self._nursery is None:
            return
        if self._answering < MAX_ANSWERING:
            self._answering += 1
            self._nursery.start_soon(self._answer, notice.sid, question, handler)

    async def _answer(self, name: str, question: NodeQuery, handler: Handler) -> None:
        try:
            body = await handler(bytes(question.body))
        except Exception:
            log.exception("node_answer_failed", subject=question.subject)
            return
        finally:
            self._answering -= 1
        reply = msgspec.json.encode(NodeReply(self._node, msgspec.Raw(body)))
        self._bus.tell(question.asker, Notice(KIND_ANSWER, name, reply))

    def _on_answer(self, notice: Notice) -> None:
        question = self._waiting.get(notice.sid)
        if question is not None:
            reply = msgspec.json.decode(notice.data, type=NodeReply)
            question.take(reply.node, bytes(reply.body))


class _Round:
    """One question that waits for its answers."""

    def __init__(self, nodes: set[str]) -> None:
        self.missing = set(nodes)
        self.bodies: dict[str, bytes] = {}
        self.done = trio.Event()
        if not nodes:
            self.done.set()

    def take(self, node: str, body: bytes) -> None:
        if node in self.missing:
            self.missing.discard(node)
            self.bodies[node] = body
            if not self.missing:
                self.done.set()
