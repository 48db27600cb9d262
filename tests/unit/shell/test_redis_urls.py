"""Passwords and database become part of the URL; a URL with sentinels is read."""

import pytest
from redis.connection import parse_url

from syncbridge_server.redis.link.urls import Address, connection_url, read_sentinel_url


@pytest.mark.parametrize(
    ("url", "password", "db", "expected"),
    [
        ("redis://h:1", "", 0, {"host": "h", "port": 1}),
        ("redis://h:1", "p@/:?#", 3, {"host": "h", "port": 1, "password": "p@/:?#", "db": 3}),
        ("redis://u@h", "p", 0, {"host": "h", "username": "u", "password": "p"}),
        ("redis://u:own@h/7", "p", 3, {"host": "h", "username": "u", "password": "own", "db": 7}),
        ("unix:///a/b.sock", "", 0, {"path": "/a/b.sock"}),
        ("unix:///a/b.sock", "p&q", 2, {"path": "/a/b.sock", "password": "p&q", "db": 2}),
        ("unix:///a/b.sock?db=5", "", 2, {"path": "/a/b.sock", "db": 5}),
    ],
)
def test_connection_url(url: str, password: str, db: int, expected: dict[str, object]) -> None:
    """redis-py reads what was meant; what the URL says itself stays."""
    options = parse_url(connection_url(url, password, db))

    assert expected == {k: v for k, v in options.items() if k != "connection_class"}


@pytest.mark.parametrize(
    ("url", "db", "server"),
    [
        ("redis+sentinel://a/s", 0, {"password": "p", "db": 0}),
        ("redis+sentinel://a:1,b:2/s", 3, {"password": "p", "db": 3}),
        ("redis+sentinel://a/s/7", 3, {"password": "p", "db": 7}),
        ("redis+sentinel://u:own@a/s/", 2, {"username": "u", "password": "own", "db": 2}),
        ("rediss+sentinel://a/s?ssl_ca_certs=f", 0, {"password": "p", "ssl_ca_certs": "f"}),
    ],
)
def test_sentinel_url(url: str, db: int, server: dict[str, object]) -> None:
    """The server's options are redis-py's; the sentinels have credentials of their own."""
    named = read_sentinel_url(connection_url(url, "p", db, "of-sentinels"))

    assert named is not None
    assert named.service == "s"
    assert named.credentials == {"username": None, "password": "of-sentinels"}
    assert server.items() <= parse_url(named.server).items()
    assert ("ssl_ca_certs" in server) == named.server.startswith("rediss://")


def test_sentinel_addresses() -> None:
    """26379 is what is meant without a port; what the URL says of the sentinels itself stays."""
    url = "redis+sentinel://[::1]:5,b/s%20x?sentinel_username=u&sentinel_password=w"
    named = read_sentinel_url(connection_url(url, "", 0, "other"))

    assert named is not None
    assert named.sentinels == [Address("::1", 5), Address("b", 26_379)]
    assert named.service == "s x"
    assert named.credentials == {"username": "u", "password": "w"}
    assert read_sentinel_url("redis://h") is None


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis+sentinel:///s",
        "redis+sentinel://a,/s",
        "redis+sentinel://a/s/x",
        "redis+sentinel://a/s/1/2",
        "redis+sentinel://a:x/s",
        "redis+sentinel://" + ",".join(["a"] * 17) + "/s",
    ],
)
def test_sentinel_url_refused(url: str) -> None:
    """A service is needed, and at most 16 sentinels with a host."""
    with pytest.raises(ValueError, match=r"sentinel|host:port|[Pp]ort"):
        read_sentinel_url(url)
