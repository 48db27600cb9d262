"""Requests that two parsers could read differently, each with the only verdict that is safe.

A row gives the bytes of one request and the answer: 200, or the status of the refusal.
"""

SERVED = 200
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

TABLE: dict[str, tuple[int, bytes]] = {
    # One request that is as it should be, for each kind.
    "plain": (200, GET + b"\r\n"),
    "body by length": (200, POST + b"Content-Length: 3\r\n\r\nabc"),
    "body in chunks": (200, CHUNKED + b"3\r\nabc\r\n" + LAST),
    "chunks, upper case": (200, CHUNKED + b"A\r\n0123456789\r\n" + LAST),
    "spaces around a value": (200, GET + b"X:\t  y \t\r\n\r\n"),
    "empty value": (200, GET + b"X:\r\n\r\n"),
    "bytes above ASCII in a value": (200, GET + b"X: \xc3\xa9\r\n\r\n"),
    "HTTP/1.0 without Host": (200, b"GET / HTTP/1.0\r\n\r\n"),
    # Two lengths.
    "length and chunks": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunks and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    "same length twice": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    "list of lengths": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    # Lengths that are read differently.
    "signed length": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "negative length": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "hexadecimal length": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "length with underscore": (400, POST + b"Content-Length: 1_0\r\n\r\n"),
    "empty length": (400, POST + b"Content-Length:\r\n\r\n"),
    "length with a space": (400, POST + b"Content-Length: 3 3\r\n\r\n"),
    "fraction as length": (400, POST + b"Content-Length: 3.0\r\n\r\n"),
    "length above 64 bit": (400, POST + b"Content-Length: 99999999999999999999999\r\n\r\n"),
    "length above the bound": (413, POST + b"Content-Length: 100001\r\n\r\n"),
    # Codings.
    "coding that is not chunked": (400, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "chunked before another": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n"),
    "another before chunked": (400, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "almost chunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "quoted chunked": (400, POST + b'Transfer-Encoding: "chunked"\r\n\r\n'),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + LAST),
    "vertical tab before chunked": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + LAST),
    "chunks in HTTP/1.0": (
        400,
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    ),
    # Lines.
    "bare LF after the request line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LF between fields": (400, GET + b"X: y\nContent-Length: 3\r\n\r\n"),
    "bare LF at the end": (400, GET[:-2] + b"\n\r\n\r\n"),
    "bare CR in a value": (400, GET + b"X: y\rZ: z\r\n\r\n"),
    "folded line, space": (400, GET + b"X: y\r\n z\r\n\r\n"),
    "folded line, tab": (400, GET + b"X: y\r\n\tz\r\n\r\n"),
    "folded length": (400, POST + b"Content-Length:\r\n 3\r\n\r\nabc"),
    "space before the first field": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "NUL in a value": (400, GET + b"X: y\0z\r\n\r\n"),
    "control character in a value": (400, GET + b"X: y\x01\r\n\r\n"),
    "DEL in a value": (400, GET + b"X: y\x7f\r\n\r\n"),
    # Names.
    "space before the colon": (400, POST + b"Content-Length : 3\r\n\r\nabc"),
    "tab before the colon": (400, POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + LAST),
    "no name": (400, GET + b": y\r\n\r\n"),
    "no colon": (400, GET + b"X\r\n\r\n"),
    "byte above ASCII in a name": (400, GET + b"\xc3\xa9: y\r\n\r\n"),
    "parenthesis in a name": (400, GET + b"X(: y\r\n\r\n"),
    # Request line.
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "tab as separator": (400, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "space at the end": (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    "no version": (400, b"GET /\r\nHost: a\r\n\r\n"),
    "space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "byte above ASCII in the target": (400, b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fragment in the target": (400, b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "lower case version": (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    "version 2": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "version 0.9": (505, b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    "version 1.2": (400, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "target above the bound": (414, b"GET /" + b"a" * 1_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    # Whom the request is for.
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, GET + b"Host: b\r\n\r\n"),
    "list as Host": (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    "path in Host": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "user in Host": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "absolute-form": (200, b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n"),
    "absolute-form with a user": (400, b"GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "absolute-form without a host": (400, b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "absolute-form of another scheme": (400, b"GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "asterisk-form": (200, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "asterisk-form of another method": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "authority-form": (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "relative target": (400, b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    # Chunks.
    "chunk extension": (200, CHUNKED + b"3;a=b\r\nabc\r\n" + LAST),
    "long chunk extension": (400, CHUNKED + b"3;" + b"a" * 300 + b"\r\nabc\r\n" + LAST),
    "many chunk extensions": (400, CHUNKED + (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 30 + LAST),
    "space before a chunk extension": (400, CHUNKED + b"3 ;a\r\nabc\r\n" + LAST),
    "space after a chunk size": (400, CHUNKED + b"3 \r\nabc\r\n" + LAST),
    "control character in an extension": (400, CHUNKED + b"3;\x01\r\nabc\r\n" + LAST),
    "bare LF after a chunk size": (400, CHUNKED + b"3\nabc\r\n" + LAST),
    "bare CR in a chunk extension": (400, CHUNKED + b"3;a\rb\r\nabc\r\n" + LAST),
    "bare LF after a chunk": (400, CHUNKED + b"3\r\nabc\n" + LAST),
    "chunk longer than its size": (400, CHUNKED + b"3\r\nabcd\r\n" + LAST),
    "signed chunk size": (400, CHUNKED + b"+3\r\nabc\r\n" + LAST),
    "prefixed chunk size": (400, CHUNKED + b"0x3\r\nabc\r\n" + LAST),
    "empty chunk size": (400, CHUNKED + b"\r\nabc\r\n" + LAST),
    "chunk size above 64 bit": (400, CHUNKED + b"1" + b"0" * 20 + b"\r\n"),
    "chunk above the bound": (413, CHUNKED + b"fffffff\r\n"),
    "trailer": (200, CHUNKED + b"0\r\nX: y\r\n\r\n"),
    "folded trailer": (400, CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n"),
    "bare LF in a trailer": (400, CHUNKED + b"0\r\nX: y\n\r\n"),
    "trailer that is none": (400, CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    "trailers above the bound": (400, CHUNKED + b"0\r\n" + b"X: y\r\n" * 2_000 + b"\r\n"),
    # Methods and other protocols.
    "unknown method": (501, b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "unknown method with two lengths": (
        501,
        b"FOO / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        + LAST,
    ),
    "method in lower case": (501, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "an upgrade to anything": (200, GET + b"Connection: Upgrade\r\nUpgrade: foo\r\n\r\n"),
    "an upgrade to h2c": (200, GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "an upgrade with a body": (
        200,
        POST + b"Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 3\r\n\r\nabc",
    ),
    "an upgrade with two lengths": (
        400,
        POST + b"Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + LAST,
    ),
    "preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # Expectations.
    "unknown expectation": (417, POST + b"Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc"),
}
