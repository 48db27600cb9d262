"""`syncbridge why` against a running server: an answer in plain words."""

import json

import pytest

from support.server_kit import mint
from support.voice.command_kit import run_command, use_secrets
from support.voice.webhook_kit import Site, event, site
from syncbridge.voice.records import ChannelConfig


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    use_secrets(monkeypatch)


async def why(one: Site, *arguments: str) -> tuple[int, list[str], str]:
    """The command in a process of its own: exit code, lines, errors."""
    done = await run_command(one, "why", *arguments)
    return done.exit_code, done.output.splitlines(), done.error


async def test_why_somebody_is_shown_and_why_not() -> None:
    """Also in a channel whose id has a slash; with --json what the server told."""
    async with site() as one:
        session = await one.open("a/b")
        await one.post(event("rtk", "joined", session, "ann", "p1"))
        await one.post(event("rtk", "joined", session, "bob", "p2"))
        await one.until_users("a/b", "ann", "bob")
        await one.post(event("rtk", "left", session, "bob", "p2"))
        await one.until_users("a/b", "ann")
        there, gone, never, nowhere, raw = [
            await why(one, *arguments)
            for arguments in (
                ["ann", "a/b"],
                ["bob", "a/b"],
                ["cleo", "a/b"],
                ["ann", "other"],
                ["bob", "a/b", "--json"],
            )
        ]

    assert there[1][0].startswith("ann is shown in the call of a/b, since ")
    assert there[1][1].startswith("First shown by a webhook of the provider (")
    assert any(line.startswith("Connection p1: last seen at ") for line in there[1])
    assert "bob is not shown in the call of a/b." == gone[1][0]
    assert "reported with its id. The last evidence was a webhook" in gone[1][1]
    assert "The timeline has no entry about them." == never[1][1]
    assert ["ann is not shown: the channel has had no call yet."] == nowhere[1]
    told = json.loads(raw[1][0])
    assert ["left", "joined"] == [e["what"] for e in told["entries"] if e["userId"] == "bob"]
    assert {0} == {answer[0] for answer in (there, gone, never, nowhere, raw)}


async def test_of_several_waddles_one_is_to_be_named() -> None:
    """The line says which there are; exit code 1."""
    async with site() as one:
        await one.open("c")
        key = await one.voice.names.claim("v", "c")
        await one.voice.writer.change(key, lambda c, now: c.opening(now, ChannelConfig(), "v"))
        several, named = await why(one, "ann", "c"), await why(one, "ann", "c", "--waddle", "w")

    assert (1, []) == several[:2]
    assert "syncbridge why: several waddles have c; add --waddle, one of: v, w\n" == several[2]
    assert 0 == named[0]


async def test_a_token_that_may_not_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a grant; exit code 1."""
    async with site() as one:
        await one.open("c")
        monkeypatch.setenv("SYNCBRIDGE_TOKEN", mint("ann"))
        code, lines, error = await why(one, "ann", "c")

    assert (1, []) == (code, lines)
    assert error.startswith("syncbridge why: 403: ")
    assert 1 == error.count("\n")
