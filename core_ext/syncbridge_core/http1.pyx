# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, autotestdict=False
"""What every HTTP/1.1 request costs besides its application: heads taken apart, answers made.

The compiled form; the rules and why they hold stand in the twin, `syncbridge.kernels._http1_py`.

A head is scanned once, byte by byte, with a table of what may stand where. Names of fields are
seldom new, so their lower case is remembered, and so are whole lines of answers, both within a
bound. Lines with a value that nobody sends twice (an entity tag, a request id) would only push the
others out: a name whose values were different `CHANGING` times in a row is not remembered any more.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

__all__ = ["Fields", "Response", "split_head"]

cdef enum:
    TOKEN = 1
    VALUE = 2
    TARGET = 4
    NAMES = 1024
    LINES = 1024
    LONGEST = 256
    CHANGING = 16

cdef unsigned char KIND[256]
cdef frozenset DECIDING = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"x-forwarded-for",
    )
)
cdef dict names = {}
cdef dict lines = {}
cdef dict changing = {}


cdef void fill_table():
    cdef int c
    for c in range(256):
        KIND[c] = 0
        if c == 9 or 0x20 <= c <= 0x7E or c >= 0x80:
            KIND[c] |= VALUE
        if 0x21 <= c <= 0x7E and c != 0x23:
            KIND[c] |= TARGET
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        KIND[c] |= TOKEN


fill_table()


cdef Py_ssize_t past(const unsigned char *data, Py_ssize_t at, Py_ssize_t end, int kind) noexcept:
    """The first place from `at` on where another kind of byte stands."""
    while at < end and KIND[data[at]] & kind:
        at += 1
    return at


def split_head(bytes head not None):
    """Method, target and minor version of a whole head, or None when it is not well-formed."""
    cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(head)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(head)
    cdef Py_ssize_t method, target, at, colon
    method = past(data, 0, end, TOKEN)
    if method == 0 or method >= end or data[method] != c" ":
        return None
    target = past(data, method + 1, end, TARGET)
    if target == method + 1 or end - target < 13:
        return None
    if memcmp(data + target, b" HTTP/1.", 8) or not c"0" <= data[target + 8] <= c"1":
        return None
    at = target + 9
    while True:
        # `at` is where a line ends.
        if end - at < 4 or data[at] != c"\r" or data[at + 1] != c"\n":
            return None
        at += 2
        if data[at] == c"\r":
            break
        colon = past(data, at, end, TOKEN)
        if colon == at or colon >= end or data[colon] != c":":
            return None
        at = past(data, colon + 1, end, VALUE)
    if end - at != 2 or data[at + 1] != c"\n":
        return None
    return head[:method], head[method + 1:target], head[target + 8:target + 9]


cdef bytes lower(bytes name):
    cdef bytes known = names.get(name)
    if known is None:
        known = name.lower()
        if PyBytes_GET_SIZE(name) <= LONGEST:
            if len(names) >= NAMES:
                names.clear()
            names[name] = known
    return known


@cython.final
cdef class Fields:
    """Collects the fields of one head from a parser, one by one."""

    cdef readonly list headers
    cdef readonly list deciding

    def __cinit__(self):
        self.reset()

    cpdef reset(self):
        """Begin another head."""
        self.headers = []
        self.deciding = []

    def on_header(self, bytes name not None, bytes value not None):
        """Take a field."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
        cdef const char *text = PyBytes_AS_STRING(value)
        cdef tuple pair
        if size and (text[0] in (c" ", c"\t") or text[size - 1] in (c" ", c"\t")):
            value = value.strip(b" \t")
        name = lower(name)
        pair = (name, value)
        self.headers.append(pair)
        if name in DECIDING:
            self.deciding.append(pair)


cdef bint is_name(bytes name):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef const unsigned char *text = <const unsigned char *> PyBytes_AS_STRING(name)
    return size > 0 and past(text, 0, size, TOKEN) == size


cdef bint has_break(bytes value):
    cdef const char *text = PyBytes_AS_STRING(value)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    return (
        memchr(text, c"\r", size) != NULL
        or memchr(text, c"\n", size) != NULL
        or memchr(text, 0, size) != NULL
    )


cdef bytes make_line(bytes name, bytes value, tuple pair):
    """The line of a field, checked. `name` is in lower case."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name), more = PyBytes_GET_SIZE(value)
    cdef bytes line
    cdef char *text
    cdef int times
    if not is_name(name):
        raise RuntimeError(f"not a header name: {name!r}")
    if has_break(value):
        raise RuntimeError(f"the value of {name.decode()} has a line break in it")
    line = PyBytes_FromStringAndSize(NULL, size + more + 4)
    text = PyBytes_AS_STRING(line)
    memcpy(text, PyBytes_AS_STRING(name), size)
    memcpy(text + size, b": ", 2)
    memcpy(text + size + 2, PyBytes_AS_STRING(value), more)
    memcpy(text + size + 2 + more, b"\r\n", 2)
    if size + more <= LONGEST:
        times = changing.get(name, 0)
        if times < CHANGING:
            if len(lines) >= LINES:
                lines.clear()
            if len(changing) >= NAMES:
                changing.clear()
            changing[name] = times + 1
            lines[pair] = line
    return line


@cython.final
cdef class Response:
    """The answer to one request; see the twin."""

    cdef public bint keep_alive
    cdef readonly bint started, sent, complete
    cdef readonly int status
    cdef bint http10, body_wanted, chunked
    cdef long long left
    cdef list fields

    def __init__(self, str method not None, str version not None, bint keep_alive):
        self.keep_alive = keep_alive
        self.http10 = version == "1.0"
        self.body_wanted = method != "HEAD"
        self.left = -1

    def start(self, message not None, bytes opening not None):
        """Take `http.response.start`. `opening`: the lines before the application's."""
        cdef list fields
        cdef bytes line
        cdef object pair, name, value
        if self.started:
            raise RuntimeError("http.response.start was sent twice")
        fields = [opening]
        self.left = -1
        for pair in message.get("headers", ()):
            line = None
            if type(pair) is tuple:
                line = <bytes> lines.get(pair)
            if line is None:
                name, value = pair
                line = self.field(bytes(name).lower(), bytes(value))
            elif changing:
                changing.pop((<tuple> pair)[0], None)
            fields.append(line)
        self.status = message["status"]
        self.fields = fields
        self.started = True

    cdef bytes field(self, bytes name, bytes value):
        if name == b"content-length":
            self.left = length_of(value)
        elif name == b"connection":
            if b"close" in value.lower():
                self.keep_alive = False
            if b"upgrade" in value.lower():
                return b"connection: upgrade\r\n"
        elif name != b"transfer-encoding" and name != b"date":
            return make_line(name, value, (name, value))
        return b""

    def body(self, data not None, bint more):
        """Take `http.response.body`; returns the bytes to send, which may be none."""
        cdef bytes head
        cdef Py_ssize_t size
        if type(data) is not bytes:
            data = bytes(data)
        size = PyBytes_GET_SIZE(data)
        if not self.started:
            raise RuntimeError("http.response.body came before http.response.start")
        if self.complete:
            raise RuntimeError("the response was complete already")
        head = b"" if self.sent else self.head(size, more)
        if not self.body_wanted:
            data = b""
        elif self.chunked:
            data = chunk(data, more)
        elif self.left >= 0:
            self.left -= size
            if self.left < 0:
                raise RuntimeError("the body is longer than its content-length")
            if self.left and not more:
                raise RuntimeError("the body is shorter than its content-length")
        self.sent = True
        self.complete = not more
        if not PyBytes_GET_SIZE(head):
            return data
        self.fields.append(data)
        return b"".join(self.fields)

    cdef bytes head(self, Py_ssize_t size, bint more):
        """Complete the head, now that it is known whether this piece of the body is the last."""
        cdef list fields = self.fields
        if self.status == 204 or self.status == 304:
            self.body_wanted = False
            if self.status == 304 and self.left >= 0:
                fields.append(b"content-length: %d\r\n" % self.left)
        else:
            if self.left < 0 and not more and (self.body_wanted or size):
                self.left = size
            if self.left >= 0:
                fields.append(b"content-length: %d\r\n" % self.left)
            elif self.http10:
                self.keep_alive = False
            elif self.body_wanted:
                self.chunked = True
                fields.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            fields.append(b"connection: close\r\n")
        elif self.http10:
            fields.append(b"connection: keep-alive\r\n")
        fields.append(b"\r\n")
        return b"\r\n"


cdef long long length_of(bytes value) except -2:
    cdef object number = int(value)
    if not 0 <= number < 1 << 62:
        raise RuntimeError("content-length is no length")
    return number


cdef bytes chunk(bytes data, bint more):
    cdef bytes end = b"" if more else b"0\r\n\r\n"
    return b"%x\r\n%b\r\n%b" % (len(data), data, end) if data else end
