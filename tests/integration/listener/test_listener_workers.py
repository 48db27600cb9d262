"""The pure parts of stopping and restarting, and how sockets are shared out to workers."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge_server.listener.bind import bind
from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.workers import (
    WORKER_VARIABLE,
    RestartPolicy,
    Supervisor,
    bind_for_workers,
    inheritance,
)


def test_delays_double_and_then_it_gives_up() -> None:
    """Five crashes within the window end it; each before waited twice as long."""
    policy = RestartPolicy(limit=5, window=60, base=0.5, cap=3)

    assert [0.5, 1.0, 2.0, 3.0, None] == [policy.crashed(float(now)) for now in range(5)]


def test_old_crashes_are_forgotten() -> None:
    """Rare crashes never end it, and each restarts with the first delay."""
    policy = RestartPolicy(limit=2, window=60, base=0.5)

    assert [0.5] * 10 == [policy.crashed(60.0 * index) for index in range(10)]


@given(st.lists(st.floats(0, 1000), max_size=30).map(sorted), st.integers(1, 6))
@settings(deadline=None)
def test_giving_up_needs_the_limit_within_the_window(times: list[float], limit: int) -> None:
    """None is the answer exactly when `limit` crashes lie within the last window."""
    policy = RestartPolicy(limit=limit, window=60)
    for index, now in enumerate(times):
        recent = [t for t in times[: index + 1] if now - t < 60]
        assert (len(recent) >= limit) is (policy.crashed(now) is None)


def test_workers_get_a_socket_each_on_one_port() -> None:
    """Port 0 is resolved once; every worker listens there with a socket of its own."""
    shares = bind_for_workers(ListenerConfig(binds=("127.0.0.1:0", "127.0.0.1:0")), 3)
    ports = [[sock.getsockname()[1] for sock in share] for share in shares]
    distinct = {sock.fileno() for share in shares for sock in share}
    for share in shares:
        for sock in share:
            sock.close()

    assert [ports[0]] * 3 == ports
    assert 6 == len(distinct)


def test_workers_share_both_sockets_of_a_port() -> None:
    """Those of IPv6 take no IPv4 in any worker."""
    config = ListenerConfig(binds=("0.0.0.0:0", "[::]:0"))
    groups = bind_for_workers(config, 2)
    names = [(sock.family, sock.getsockname()[1]) for group in groups for sock in group]
    only = [
        sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        for group in groups
        for sock in group
        if sock.family == socket.AF_INET6
    ]
    for sock in [sock for group in groups for sock in group]:
        sock.close()

    assert (4, 1) == (len(names), len({port for _, port in names}))
    assert [1, 1] == only


def test_a_unix_socket_is_shared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """There is no group of unix sockets, so all workers accept from one."""
    path = tmp_path_factory.mktemp("u") / "s"
    (first,), (second,) = bind_for_workers(ListenerConfig(binds=(f"unix:{path}",)), 2)
    first.close()

    assert first is second


def test_a_process_without_the_variable_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was handed down counts, and nonsense is an error."""
    monkeypatch.delenv(WORKER_VARIABLE, raising=False)
    assert inheritance() is None

    monkeypatch.setenv(WORKER_VARIABLE, "nonsense")
    with pytest.raises(ValueError, match="unpack"):
        inheritance()


def spawn(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def test_a_worker_that_ends_by_itself_is_started_again() -> None:
    """Each start has the worker's own number and sockets; giving up is status 1."""
    pair = socket.socketpair()
    calls: list[tuple[int, Sequence[socket.socket]]] = []

    def start(index: int, sockets: Sequence[socket.socket]) -> "subprocess.Popen[bytes]":
        calls.append((index, sockets))
        return spawn("pass")

    policy = RestartPolicy(limit=3, base=0.001)
    status = Supervisor(start, [pair], policy=policy).run()

    assert (1, [(0, pair)] * 3) == (status, calls)
    assert [-1, -1] == [sock.fileno() for sock in pair]


def test_signal_handlers_are_put_back() -> None:
    """After a run the process handles signals as before."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    policy = RestartPolicy(limit=1)
    Supervisor(lambda *_: spawn("pass"), [[]], policy=policy).run()

    assert before == [signal.getsignal(number) for number in numbers]


@pytest.mark.parametrize("address", ["8080", "localhost:http", "a:65536", "", "a:-1"])
def test_what_is_no_address_is_said_to_be_none(address: str) -> None:
    """The error names the address and the form that is wanted."""
    with pytest.raises(ValueError, match="want host:port"):
        bind([address])


def test_addresses_of_every_kind(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All interfaces, IPv6, a unix socket whose file is there, an inherited descriptor."""
    path = tmp_path_factory.mktemp("u") / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    inherited = socket.create_server(("127.0.0.1", 0))
    port = inherited.getsockname()[1]
    binds = [":0", "[::1]:0", f"unix:{path}", f"fd://{inherited.detach()}"]
    sockets = bind(binds)
    names = [sock.getsockname() for sock in sockets]
    for sock in sockets:
        sock.close()

    assert ["0.0.0.0", "::1"] == [name[0] for name in names[:2]]
    assert [str(path), ("127.0.0.1", port)] == names[2:]


@pytest.mark.parametrize("backlog", [0, 16])
def test_the_socket_of_a_living_server_is_not_taken_over(
    tmp_path_factory: pytest.TempPathFactory, backlog: int
) -> None:
    """Also when its queue is full; what it leaves behind is replaced."""
    path = tmp_path_factory.mktemp("u") / "s"
    living = socket.socket(socket.AF_UNIX)
    living.bind(str(path))
    living.listen(backlog)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(2 if not backlog else 0)]
    for client in waiting:
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect(str(path))
    with pytest.raises(OSError, match=f"unix:{path}: another server listens there"):
        bind([f"unix:{path}"])
    for sock in (*waiting, living):
        sock.close()
    (new,) = bind([f"unix:{path}"])
    name = new.getsockname()
    new.close()

    assert str(path) == name


def test_the_file_of_a_unix_socket_has_the_mode_that_is_set(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """For one process and for workers; without a mode, the umask decides."""
    folder = tmp_path_factory.mktemp("u")
    modes = []
    for name, mode in (("a", 0o660), ("b", 0o606), ("c", None)):
        config = ListenerConfig(binds=(f"unix:{folder / name}",), unix_mode=mode)
        bound = bind(config.binds, mode=mode) if name == "a" else bind_for_workers(config, 2)[0]
        modes.append(stat.S_IMODE((folder / name).stat().st_mode))
        for sock in bound:
            sock.close()
    umask = os.umask(0o077)
    os.umask(umask)

    assert [0o660, 0o606, 0o777 & ~umask] == modes


def test_one_bad_address_leaves_none_open() -> None:
    """When one of several cannot be bound, the others are closed, and the error names it."""
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(OSError, match=address):
        bind(["127.0.0.1:0", address])
    taken.close()
