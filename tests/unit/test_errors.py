"""The catalogue of errors."""

import re

import pytest

from syncbridge.errors import (
    BY_WIRE,
    ErrorCode,
    StoreError,
    StoreOverloaded,
    StoreTimeout,
    StoreUnavailable,
    SyncBridgeError,
)


def test_wire_names_are_unique_and_snake_case() -> None:
    """Each code has a wire name of its own, in lower snake case, and is found by it."""
    assert len(ErrorCode) == len(BY_WIRE)
    assert [] == [c for c in ErrorCode if not re.fullmatch(r"[a-z]+(_[a-z]+)*", c.wire)]
    assert [] == [c for c in ErrorCode if BY_WIRE[c.wire] is not c]


def test_retryable_codes_are_those_that_pass() -> None:
    """Too many requests and our own troubles pass, except damage; what is wrong stays wrong."""
    passing = [c for c in ErrorCode if c.status == 429 or c.status >= 500]

    assert [ErrorCode.STATE_DAMAGED] == [c for c in passing if not c.retryable]
    assert [] == [c for c in ErrorCode if c.retryable and c.status in (400, 403, 404, 413, 422)]


def test_every_code_has_a_client_status_and_a_title() -> None:
    """Statuses are 4xx, or 500 and 503; titles are not empty."""
    assert [] == [c for c in ErrorCode if not (400 <= c.status < 500 or c.status in (500, 503))]
    assert [] == [c for c in ErrorCode if not c.title]


def test_detail_falls_back_to_the_title() -> None:
    """An error without a detail says its title."""
    error = SyncBridgeError(ErrorCode.NOT_FOUND, where="x")

    assert ("Not found", "Not found", {"where": "x"}) == (error.detail, str(error), error.fields)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (StoreUnavailable, ErrorCode.STORE_UNAVAILABLE),
        (StoreTimeout, ErrorCode.STORE_UNAVAILABLE),
        (StoreOverloaded, ErrorCode.OVERLOADED),
    ],
)
def test_store_errors_are_503_with_a_time(kind: type[StoreError], code: ErrorCode) -> None:
    """Each store error tells the client when to come back."""
    error = kind("Redis is away")

    assert (code, 503) == (error.code, error.code.status)
    assert error.retry_after is not None
    assert error.retry_after > 0
