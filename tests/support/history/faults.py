"""A deployment to be broken: a Redis, two server processes, and proxies before them.

Every path can be cut where it hurts: a proxy that is armed lets a request through, waits for what
comes back, and closes the connection instead of handing it on. Then it was done, and whoever asked
does not know.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import trio

from support.history.places import Place, Single
from support.redis_servers import RedisServer
from support.server_kit import Process, server_process

Dial = Callable[[], Awaitable[trio.SocketStream]]
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Proxy:
    """Forwards TCP connections to wherever `dial` goes.

    Attributes:
        cuts: connections that were closed in place of an answer.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._armed = 0
        self._open: list[tuple[trio.SocketStream, trio.SocketStream]] = []
        self.port = 0
        self.cuts = 0

    def cut_answers(self, count: int) -> None:
        """Close the next `count` connections that something comes back on."""
        self._armed = count

    def cut_all(self) -> None:
        """Close every connection, now."""
        for pair in self._open:
            for stream in pair:
                stream.socket.close()
        self._open.clear()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve; `port` is set then."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._forward, listeners)

    async def _forward(self, client: trio.SocketStream) -> None:
        with suppress(*BROKEN):
            server = await self._dial()
            pair = (client, server)
            self._open.append(pair)
            try:
                async with client, server, trio.open_nursery() as nursery:
                    scope = nursery.cancel_scope
                    nursery.start_soon(self._copy, client, server, scope)
                    nursery.start_soon(self._answer, server, client, scope)
            finally:
                with suppress(ValueError):
                    self._open.remove(pair)

    async def _copy(
        self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(*BROKEN):
            async for data in source:
                await target.send_all(data)
        scope.cancel()

    async def _answer(
        self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(*BROKEN):
            async for data in source:
                if self._armed:
                    self._armed -= 1
                    self.cuts += 1
                    break
                await target.send_all(data)
        scope.cancel()


class Deployment:
    """Two nodes on one Redis, or in one place. `Deployment.open` starts and ends everything.

    Attributes:
        front: proxies to the nodes, by node. back: the proxy between the nodes and a single Redis;
            of Sentinel and of a cluster the nodes are told the addresses of servers.
        done: the faults that were caused, in order.
    """

    def __init__(self, redis: RedisServer | Place, tmp_path: Path, **variables: str) -> None:
        self.place: Place = Single(redis) if isinstance(redis, RedisServer) else redis
        self._tmp_path = tmp_path
        self._variables = variables
        self._own: list[dict[str, str]] = [{}, {}]
        self._stacks = [ExitStack(), ExitStack()]
        self.nodes: list[Process | None] = [None, None]
        self.front = [Proxy(self._dial_node(0)), Proxy(self._dial_node(1))]
        self.back = Proxy(self._dial_redis)
        self.done: list[str] = []
        self.logs: list[Path] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        redis: RedisServer | Place,
        tmp_path: Path,
        *,
        own: Sequence[dict[str, str]] = ({}, {}),
        **variables: str,
    ) -> AsyncIterator["Deployment"]:
        """A running deployment; `own`: more settings of each node."""
        self = cls(redis, tmp_path, **variables)
        self._own = [*own]
        async with trio.open_nursery() as nursery:
            for proxy in (self.back, *self.front):
                await nursery.start(proxy.run)
            try:
                for index in (0, 1):
                    await self._start(index)
                yield self
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._end)
                nursery.cancel_scope.cancel()

    def port(self, number: int) -> int:
        """Where to connect: the nodes that live in turns, now direct, now through the proxy."""
        living = [index for index in (0, 1) if self.nodes[index] is not None]
        index = living[number % len(living)]
        node = self.nodes[index]
        assert node is not None
        return self.front[index].port if number % 3 == 0 else node.port

    # Faults

    async def replace_node(self, index: int, variables: dict[str, str]) -> None:
        """One step of a rolling restart: SIGTERM, its end, and another process in its place."""
        node, self.nodes[index] = self.nodes[index], None
        assert node is not None
        ended = await trio.to_thread.run_sync(node.terminate)
        assert ended == 0, node.log.read_text()[-2000:]
        self._own[index] = variables
        await self._start(index)
        self.done.append("node replaced")

    async def kill_node(self, index: int) -> None:
        """SIGKILL a node, and start one in its place on another port."""
        node, self.nodes[index] = self.nodes[index], None
        assert node is not None
        node.kill()
        await self._start(index)
        self.done.append("node killed")

    async def pause_node(self, index: int, seconds: float) -> None:
        """SIGSTOP and SIGCONT."""
        node = self.nodes[index]
        assert node is not None
        os.kill(node.popen.pid, signal.SIGSTOP)
        await trio.sleep(seconds)
        os.kill(node.popen.pid, signal.SIGCONT)
        self.done.append("node paused")

    async def pause_redis(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT."""
        redis = await trio.to_thread.run_sync(self.place.primary)
        redis.pause()
        await trio.sleep(seconds)
        redis.resume()
        await trio.to_thread.run_sync(self.place.mend)
        self.done.append("Redis paused")

    async def kill_redis(self) -> None:
        """SIGKILL, and another start: from the append-only file, or as a replica."""
        await trio.to_thread.run_sync(self.place.kill)
        self.done.append("Redis killed")

    async def move_redis(self) -> None:
        """SIGTERM and another start, or what moves the session in order."""
        await trio.to_thread.run_sync(self.place.move)
        self.done.append("Redis moved")

    async def flush_scripts(self) -> None:
        """SCRIPT FLUSH."""
        await trio.to_thread.run_sync(self.place.flush_scripts)
        self.done.append("scripts flushed")

    async def cut_clients(self, count: int) -> None:
        """Close connections of devices between their writes and the answers."""
        for proxy in self.front:
            proxy.cut_answers(count)
        self.done.append("devices cut")

    async def cut_redis(self, count: int) -> None:
        """Close connections of nodes: between what they asked and the answers, by the proxy."""
        if self.place.proxied:
            self.back.cut_answers(count)
        else:
            await trio.to_thread.run_sync(self.place.cut)
        self.done.append("nodes cut")

    # Processes

    async def _dial_redis(self) -> trio.SocketStream:
        return await trio.open_unix_socket(str(self.place.primary().socket))

    def _dial_node(self, index: int) -> Dial:
        async def dial() -> trio.SocketStream:
            node = self.nodes[index]
            if node is None:
                raise OSError("the node is gone")
            return await trio.open_tcp_stream("127.0.0.1", node.port)

        return dial

    async def _start(self, index: int) -> None:
        url = f"redis://127.0.0.1:{self.back.port}" if self.place.proxied else self.place.url
        variables = self.place.variables | self._variables | self._own[index]
        manager = server_process(self._tmp_path, url, **variables)
        enter = self._stacks[index].enter_context
        node = await trio.to_thread.run_sync(enter, manager)
        self.logs.append(node.log)
        self.nodes[index] = node

    def _end(self) -> None:
        for stack in self._stacks:
            stack.close()
