"""Password and database become part of the URL that redis-py reads."""

import pytest
from redis.connection import parse_url

from syncbridge_server.redis.link.urls import connection_url


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
