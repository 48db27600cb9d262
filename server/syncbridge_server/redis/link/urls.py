"""The URL with which redis-py connects, out of an address, a password and a database number."""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit


def connection_url(url: str, password: str, db: int) -> str:
    """Add a password and a database to a URL; what the URL says itself stays.

    The result holds a secret: it is for redis-py only, never for a log.
    """
    parts = urlsplit(url)
    netloc, query, path = parts.netloc, dict(parse_qsl(parts.query)), parts.path
    if password and parts.password is None and "password" not in query:
        if parts.scheme == "unix":
            query["password"] = password
        else:
            user, _, host = netloc.rpartition("@")
            netloc = f"{user}:{quote(password, safe='')}@{host}"
    if db and "db" not in query and (parts.scheme == "unix" or path in ("", "/")):
        query["db"] = str(db)
    tail = f"?{urlencode(query)}" if query else ""
    return f"{parts.scheme}://{netloc}{path}{tail}"
