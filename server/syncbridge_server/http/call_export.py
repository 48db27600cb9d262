"""The export for billing: each call that has ended, once, as NDJSON or CSV.

`X-Next-Cursor` of a page is the cursor of the next one. A reader that stores the cursor together
with the records, in one step, gets each record exactly once, whichever node answers and however
often either side crashes. An empty page means that there are no more records now; its cursor stays
valid.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.call_rules.billing import (
    CallRecord,
    LedgerPlace,
    check_part,
    cursor_text,
    parse_ledger_cursor,
    record_of,
)
from syncbridge.identity import ADMIN_READERS
from syncbridge.records.calls import LedgerPart
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.support.answers import timestamp
from syncbridge_server.http.support.pages import query_of
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import Answer, Timestamp, describe
from syncbridge_server.ports.calls import Ledger

NDJSON, CSV = "application/x-ndjson", "text/csv"
NEXT = "X-Next-Cursor"

_log = get_logger("SESSION_MANAGER")


class Format(StrEnum):
    """How records are written."""

    NDJSON = "ndjson"
    CSV = "csv"


class ExportQuery(msgspec.Struct):
    """Query of `GET /admin/calls/export`. A page has at most `limit` records, often fewer."""

    cursor: Annotated[
        str, Meta(max_length=400, description="`X-Next-Cursor` of the page before.")
    ] = ""
    limit: Annotated[int, Meta(ge=16, le=4_096)] = 1_024
    format: Format = Format.NDJSON


class RecordBody(msgspec.Struct, rename="camel"):
    """A call that has ended; a line of the export. Members are left out for what never was.

    `record` is its permanent id. `seconds`: of the active time, one that has begun counts.
    `damaged`: it cannot be read, and nothing else is known of it.
    """

    record: str
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    created_at: Timestamp | UnsetType = UNSET
    created_by: str | UnsetType = UNSET
    active_at: Timestamp | UnsetType = UNSET
    ended_at: Timestamp | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET
    parent: str | UnsetType = UNSET
    channel: str | UnsetType = UNSET
    ring_ms: int | UnsetType = UNSET
    active_ms: int | UnsetType = UNSET
    held_ms: int | UnsetType = UNSET
    seconds: int | UnsetType = UNSET
    damaged: bool | UnsetType = UNSET


class CallExportRoutes:
    """The route. `count`: called with the number of records of each page."""

    def __init__(
        self, ledger: Ledger, authenticate: BearerAuth, count: Callable[[int], None]
    ) -> None:
        self._ledger = ledger
        self._authenticate = authenticate
        self._count = count

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [Route("/admin/calls/export", self.export, methods=["GET"])]

    @describe(
        "Export ended calls, for billing",
        answers={200: Answer("One record per line, as NDJSON or CSV.", RecordBody, NDJSON, (CSV,))},
        query=ExportQuery,
        errors=(410,),
    )
    async def export(self, request: Request) -> Response:
        """Each once. The header `X-Next-Cursor` is the cursor of the next page; an empty page is
        the end for now. 410 when records after the cursor have expired."""
        await self._authenticate(request, ADMIN_READERS)
        query = query_of(request, ExportQuery)
        parts = self._ledger.parts
        after: Sequence[LedgerPlace | None] = (
            parse_ledger_cursor(query.cursor, parts) or [None] * parts
        )
        numbers = [place.number if place is not None else None for place in after]
        found = await self._ledger.read(numbers, query.limit // parts)
        following = [check_part(place, part) for place, part in zip(after, found, strict=True)]
        records = [shown(record) for record in records_of(found)]
        self._count(len(records))
        headers = {NEXT: cursor_text(following), "Cache-Control": "no-store"}
        if query.format is Format.CSV:
            text = as_csv(records, header=not query.cursor)
            return Response(text, 200, headers, CSV)
        return Response(msgspec.json.Encoder().encode_lines(records), 200, headers, NDJSON)


def records_of(parts: Iterable[LedgerPart]) -> Iterator[CallRecord]:
    """The records of all parts, each with the name that it keeps."""
    for index, part in enumerate(parts):
        for number, call in part.records:
            record = record_of(f"{index}-{number}", call)
            if record.damaged:
                _log.error("call_record_damaged", record=record.record)
            yield record


def shown(record: CallRecord) -> RecordBody:
    """A record as a body."""
    if record.damaged:
        return RecordBody(record.record, damaged=True)
    return RecordBody(
        record.record,
        record.id,
        record.type,
        _time(record.created_at),
        record.created_by,
        _time(record.active_at),
        _time(record.ended_at),
        record.ended_by,
        record.cause or UNSET,
        record.parent or UNSET,
        record.channel or UNSET,
        record.ring_ms,
        record.active_ms,
        record.held_ms,
        record.seconds,
    )


def as_csv(records: Iterable[RecordBody], header: bool) -> str:
    """Records as CSV (RFC 4180), after the names of the columns on the first page."""
    text = io.StringIO()
    writer = csv.writer(text)
    if header:
        writer.writerow(RecordBody.__struct_encode_fields__)
    for record in records:
        cells = [getattr(record, name) for name in RecordBody.__struct_fields__]
        writer.writerow("" if cell is UNSET else _cell(cell) for cell in cells)
    return text.getvalue()


def _cell(value: object) -> object:
    return "true" if value is True else value


def _time(ms: int) -> str | UnsetType:
    return timestamp(ms) if ms else UNSET
