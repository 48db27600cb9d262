"""Addresses behind proxies, and sockets for a port alone."""

import socket
from contextlib import ExitStack

import pytest

from syncbridge_server.addresses import client_address
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.listener import bind as binding
from syncbridge_server.listener.bind import bind
from syncbridge_server.proxies import TrustedProxies


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7:4711 ", "203.0.113.7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ('"[2001:db8::7]:443"', "2001:db8::7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:80", "203.0.113.7"),
        ("unknown", ""),
        ("_hidden:80", ""),
        ("", ""),
        ("203.0.113.7:80:90", ""),
    ],
)
def test_entries_of_forwarded_for(entry: str, address: str) -> None:
    """With a port, in brackets or quotes, and IPv4 that is written as IPv6."""
    assert address == client_address(entry)


@pytest.mark.parametrize(
    ("peer", "trusted", "client"),
    [
        ("10.0.0.1", ("10.0.0.0/8",), "203.0.113.7"),
        ("::ffff:10.0.0.1", ("10.0.0.0/8",), "203.0.113.7"),
        ("unix", ("unix",), "203.0.113.7"),
        ("", ("unix", "10.0.0.0/8"), "203.0.113.7"),
        ("unix", ("10.0.0.0/8",), "unix"),
        ("192.0.2.1", ("unix", "10.0.0.0/8"), "192.0.2.1"),
    ],
)
def test_who_may_name_another_address(peer: str, trusted: tuple[str, ...], client: str) -> None:
    """IPv4 proxies at an IPv6 socket, and proxies at a unix socket when `unix` is trusted."""
    header = "198.51.100.1, 203.0.113.7:4711, [::ffff:10.0.0.2]:80"
    proxies = TrustedProxies((*trusted, "10.0.0.2/32"))

    assert client == proxies.resolve(peer, [header])


def test_a_port_alone_is_of_both_families() -> None:
    """`:8080` and `8080` are two addresses; one with a host is one."""
    found = {text: load_settings(server_addr=text).listen_addresses() for text in (":80", "80")}

    assert {"0.0.0.0:80 [::]:80"} == {" ".join(map(str, both)) for both in found.values()}
    assert 1 == len(load_settings(server_addr="[::]:80").listen_addresses())


def test_two_sockets_share_a_port() -> None:
    """That of IPv6 takes no IPv4, so that neither is in the way of the other."""
    with ExitStack() as opened:
        pair = [opened.enter_context(sock) for sock in bind(["0.0.0.0:0", "[::]:0"])]

        assert [socket.AF_INET, socket.AF_INET6] == [sock.family for sock in pair]
        assert 1 == len({sock.getsockname()[1] for sock in pair})
        assert 1 == pair[1].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_without_ipv6_there_is_one_socket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so; an address of IPv6 that stands alone is still an error."""
    real = binding._open

    def without(address: str) -> socket.socket:
        if address.startswith("["):
            raise OSError(97, "Address family not supported by protocol")
        return real(address)

    monkeypatch.setattr(binding, "_open", without)
    caplog.set_level("INFO")
    sockets = bind(["0.0.0.0:0", "[::]:0"])
    for sock in sockets:
        sock.close()

    assert 1 == len(sockets)
    assert 1 == sum("left out" in record.message for record in caplog.records)
    with pytest.raises(OSError, match="not supported"):
        bind(["[::]:0"])
