"""`syncbridge dead-letters` against a running server."""

import json

import pytest

from support.server_kit import mint
from support.voice.command_kit import Result, run_command, use_secrets
from support.voice.webhook_kit import Site, site
from syncbridge.identity import Role


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    use_secrets(monkeypatch)


async def run(one: Site, *arguments: str) -> Result:
    """The command in a process of its own."""
    return await run_command(one, "dead-letters", *arguments)


async def bury(one: Site, count: int) -> None:
    session = await one.open("c")
    for number in range(count):
        bad = {"type": "participant.left", "sessionId": session, "participantId": "a" * 70}
        assert (
            200 == (await one.post(json.dumps(bad | {"peerId": str(number)}).encode())).status_code
        )
    await one.until_worked_off()


async def test_letters_are_listed_replayed_and_discarded() -> None:
    """One line each; what is replayed fails again under a new entry; all can be forgotten."""
    async with site() as one:
        await bury(one, 2)
        lines = [line.split("\t") for line in (await run(one, "list")).output.splitlines()]
        assert [["user id not acceptable", "participant.left"]] * 2 == [x[2:] for x in lines]
        entry = lines[0][0]

        assert f"{entry}\n" == (await run(one, "replay", entry)).output
        await one.until_worked_off()
        shown = await run(one, "list", "--json")
        entries = [json.loads(line)["entry"] for line in shown.output.splitlines()]
        assert 2 == len(entries)
        assert entry not in entries

        gone = await run(one, "discard", "all")
        assert entries[::-1] == gone.output.splitlines()
        assert Result(0, "", "") == await run(one, "list")


async def test_refusals_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is not there, a token that may not, a server that is away: exit code 1."""
    async with site() as one:
        unknown = await run(one, "discard", "1-1")
        monkeypatch.setenv("SYNCBRIDGE_TOKEN", mint("bot", Role.SERVICE))
        refused = await run(one, "list")
    away = await run(one, "list")

    assert [1, 1, 1] == [unknown.exit_code, refused.exit_code, away.exit_code]
    assert "404: there is no dead letter" in unknown.error
    assert "403" in refused.error
    assert "SYNCBRIDGE_TOKEN" in refused.error
    assert "nothing answers at http://127.0.0.1:" in away.error
    assert "--url" in away.error
    assert [1, 1, 1] == [len(r.error.splitlines()) for r in (unknown, refused, away)]
