"""What a route says about itself, written beside its endpoint.

    @describe("One session", answers={200: SessionBody}, errors=(404,))
    async def get_session(self, request): ...

Bodies, answers and query parameters are the msgspec types that the endpoint itself decodes and
encodes with, so that the description cannot promise another shape. `openapi.document` collects the
descriptions of an application's routes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Raw, Struct

from syncbridge.updates import MAX_VERSION

F = TypeVar("F", bound=Callable[..., Any])

JSON = "application/json"
# How the description words what the domain's own checks (`syncbridge.ids`, `syncbridge.updates`)
# enforce: `extra_json_schema` is shown and not validated, so that their error messages stand.
Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
"""A session id."""
ShortId = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 64})]
"""A user or device id: printable, at most 64 bytes by default."""
ChannelId = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})]
"""A voice channel's or waddle's id: any text of at most 256 bytes without control characters."""
VersionNumber = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_VERSION})]
"""A version of a session."""
RawObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
"""A JSON object that is kept as it was sent."""
JsonObject = Annotated[Any, Meta(extra_json_schema={"type": "object"})]
"""Any JSON object, for descriptions only."""
Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC."""


class Problem(Struct):
    """An error (RFC 9457). Some codes have further members; the protocol page names them."""

    type: str
    title: str
    status: int
    detail: str
    code: str


@dataclass(frozen=True)
class Answer:
    """One answer of an operation: its text, its body's type (None: no body) and media type.

    `texts`: media types in which it is a text, if that is asked for.
    """

    text: str
    body: Any = None
    media_type: str = JSON
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """One operation.

    Args:
        summary: one line.
        answers: status -> `Answer`, or the type of a JSON body, or None for none.
        body: type of the JSON body that is read.
        query: Struct whose fields are the query parameters.
        headers: request headers that are looked at, name -> meaning.
        errors: statuses of problem documents, besides those that follow from the rest.
        public: no token is asked for.
        limited: callers are held to a rate.
        tag: heading under which it is listed; by default the first part of the path.
        path: schema of path parameters, by name.
    """

    summary: str
    answers: Mapping[int, Any]
    body: Any = None
    query: type[Struct] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    public: bool = False
    limited: bool = True
    tag: str = ""
    path: Mapping[str, Any] = field(default_factory=dict)

    def problem_statuses(self) -> list[int]:
        """Every status that a problem document can have here."""
        statuses = {*self.errors}
        if not self.public:
            statuses |= {401, 403, 503}
        if self.body is not None:
            statuses |= {400, 413, 415, 422}
        if self.query is not None:
            statuses |= {422}
        if self.limited:
            statuses |= {429}
        return sorted(statuses)


def describe(summary: str, *, answers: Mapping[int, Any], **parts: Any) -> Callable[[F], F]:
    """Mark an endpoint with its `Description`; see there for the arguments."""
    description = Description(summary, answers, **parts)

    def mark(endpoint: F) -> F:
        endpoint.description = description  # type: ignore[attr-defined]
        return endpoint

    return mark
