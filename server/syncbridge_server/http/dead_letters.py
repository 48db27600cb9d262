"""Webhooks that could not be processed, for role admin: to be looked at, tried again, or forgotten.

These are webhooks of the voice provider, and stored records on which a chore failed.

A body contains personal data, and addresses that open recordings. It is shown with
every address cut down to its host, and with everything taken out that looks like a token or stands
under a name of such; what is taken in again is the body as it came.
"""

import json
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import ADMIN_READERS, ADMINS
from syncbridge.voice.provider.webhook_text import DEPTH, read_document
from syncbridge.voice.stored import DeadLetter
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.pages import Cursor, query_of
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import Answer, Timestamp, describe
from syncbridge_server.ports.channels import DeadLetters

SHOWN = 4096
REDACTED = "[redacted]"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]{0,15}://)(?:[^/\s@]*@)?([^/?#\s]*)\S*", re.IGNORECASE)
# Starts at a word boundary without backtracking: linear in any text.
_TOKEN = re.compile(r"(?<![\w-])[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}+", re.ASCII)
_SECRET = re.compile(r"token|secret|password|signature|authorization|credential", re.IGNORECASE)

_log = get_logger("WEBHOOKS")
PageSize = Annotated[int, Meta(ge=1, le=200)]


class LettersQuery(msgspec.Struct):
    """Query of `GET /admin/voice/dead-letters`."""

    cursor: Cursor = ""
    limit: PageSize = 50


class Told(msgspec.Struct):
    """One event of a letter, as far as its body can be read."""

    type: str
    session_id: str


class LetterRow(msgspec.Struct):
    """One dead letter. `body`: JSON without secrets, at most 4096 characters; empty if it is not
    JSON.

    `kind`: `webhook`, or that of a stored record (`channel`; `presence`, `freeze` for sessions) on
    which a chore failed; `record` is its id, of a channel `%<waddle>/<id>` if the waddle is not the
    first that has opened the id.
    """

    entry: str
    kind: str
    record: str
    delivery_id: str
    reason: str
    received_at: Timestamp
    failed_at: Timestamp
    events: list[Told]
    size: int
    body: str


class LettersBody(msgspec.Struct):
    """A page of dead letters, the latest first. `next_cursor` is empty on the last page."""

    dead_letters: list[LetterRow]
    next_cursor: str


class DeadLetterRoutes:
    """The routes."""

    def __init__(self, letters: DeadLetters, authenticate: BearerAuth) -> None:
        self._letters = letters
        self._authenticate = authenticate

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        path = "/admin/voice/dead-letters"
        return [
            Route(path, self.letters, methods=["GET"]),
            Route(path + "/{entry}/replay", self.replay, methods=["POST"]),
            Route(path + "/{entry}", self.discard, methods=["DELETE"]),
        ]

    @describe(
        "Webhooks that could not be processed", answers={200: LettersBody}, query=LettersQuery
    )
    async def letters(self, request: Request) -> Response:
        """The latest first, each with the reason."""
        await self._authenticate(request, ADMIN_READERS)
        query = query_of(request, LettersQuery)
        found, following = await self._letters.dead(query.limit, query.cursor)
        return encoded(LettersBody([row_of(letter) for letter in found], following))

    @describe(
        "Replay a dead letter",
        answers={204: Answer("It is processed like a new webhook.", None)},
        errors=(404, 422),
    )
    async def replay(self, request: Request) -> Response:
        """If it fails again it becomes a dead letter again.

        422: this server has no such chores, as those of a channel without a voice provider.
        """
        identity = await self._authenticate(request, ADMINS)
        entry = request.path_params["entry"]
        if not await self._letters.replay(entry):
            raise no_letter()
        _log.info("dead_letter_replayed", entry=entry, by=identity.user_id)
        return Response(status_code=204)

    @describe("Discard a dead letter", answers={204: Answer("Forgotten.", None)}, errors=(404, 422))
    async def discard(self, request: Request) -> Response:
        """Its content is lost; the next comparison with the provider may recover it.

        A channel without a later write is deleted with its letter; a session is kept.
        """
        identity = await self._authenticate(request, ADMINS)
        entry = request.path_params["entry"]
        if not await self._letters.discard(entry):
            raise no_letter()
        _log.info("dead_letter_discarded", entry=entry, by=identity.user_id)
        return Response(status_code=204)


def no_letter() -> SyncBridgeError:
    """The error for an unknown entry."""
    return SyncBridgeError(ErrorCode.NOT_FOUND, "there is no dead letter with this entry")


def row_of(letter: DeadLetter) -> LetterRow:
    """A letter as a body."""
    document = document_of(letter.body)
    entries = document if isinstance(document, list) else [document]
    entries = [] if letter.kind else entries
    return LetterRow(
        letter.entry,
        letter.kind or "webhook",
        _shown(letter.record, SHOWN),
        letter.delivery_id,
        letter.reason,
        timestamp(letter.received_at),
        timestamp(letter.failed_at),
        [_told(entry) for entry in entries[:10] if isinstance(entry, dict)],
        len(letter.body),
        "" if document is None else _json(redacted(document))[:SHOWN],
    )


def _json(document: Any) -> str:
    """A document as text; half of a surrogate pair is written as its escape."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace").decode()


def document_of(body: bytes) -> Any:
    """The JSON of a body; None when it is not JSON."""
    try:
        return read_document(body)
    except (ValueError, RecursionError):
        return None


def redacted(value: Any, name: str = "", levels: int = DEPTH) -> Any:
    """A document in which nothing opens anything.

    Args:
        name: the member that the value is. levels: of it are shown; what is below them is empty.
    """
    if isinstance(value, dict):
        below = value.items() if levels else ()
        return {_clean(key): redacted(member, key, levels - 1) for key, member in below}
    if isinstance(value, list):
        return [redacted(member, name, levels - 1) for member in (value if levels else ())]
    if not isinstance(value, str):
        return value
    return REDACTED if _SECRET.search(name) else _clean(value)


def _clean(text: str) -> str:
    return _TOKEN.sub(REDACTED, _ADDRESS.sub(rf"\1\2/{REDACTED}", text))


def _told(entry: dict[str, Any]) -> Told:
    meeting = entry.get("meeting")
    session = entry.get("sessionId") or (meeting.get("id") if isinstance(meeting, dict) else "")
    kind = entry.get("type") or entry.get("event") or ""
    return Told(_shown(kind), _shown(session or ""))


def _shown(value: Any, most: int = 256) -> str:
    """The beginning of a text; what no text may have is written as an escape."""
    return _clean(str(value)).encode(errors="backslashreplace").decode()[:most]
