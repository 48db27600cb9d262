"""Voice calls for tests of sockets: tokens with grants, calls that are open, devices in them."""

import time
from collections.abc import Callable
from typing import Any

import trio

from support.server_kit import Node, mint, settings
from support.ws_client import Device
from syncbridge.identity import Role, VoiceGrant
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Evidence, Joined, Left, Source
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.sockets.live_calls import LiveCalls
from syncbridge_server.voice.voice_gateway import VoiceGateway

WADDLE = "w"
NOWHERE = {"rtk_api_url": "http://127.0.0.1:9", "rtk_api_key": "k"}
"""Settings of a server with voice and a provider that never answers."""


def pass_for(user: str, *words: str, waddle: str = WADDLE, channel: str = "*") -> str:
    """An access token with a voice grant."""
    tokens, _ = build_tokens(settings("unix:///nowhere"))
    grant = Grant(user, Role.USER, voice=(VoiceGrant(waddle, channel, words or ("speak",)),))
    return tokens.mint_access(grant, time.time(), 900.0)[0]


def desk_of(node: Node) -> ChannelWriter:
    assert node.server.voice is not None
    return node.server.voice.writer


def calls_of(node: Node) -> VoiceGateway:
    assert node.server.calls is not None
    return node.server.calls


async def open_call(node: Node, channel_id: str, session_id: str = "s1") -> None:
    """A live channel, as if the provider had opened its room."""

    def rule(channel: Channel, now: int) -> None:
        room = channel.opening(now, ChannelConfig(), WADDLE)
        channel.opened(session_id, now, room.key)

    await desk_of(node).change(channel_id, rule)


async def hear(node: Node, channel_id: str, *evidence: Evidence) -> None:
    """What the provider says."""
    await desk_of(node).change(channel_id, lambda channel, now: channel.apply(evidence, now))


def came(user: str, connection: str, generation: int = 1) -> Joined:
    """A connection of a user, as the provider tells of it now."""
    return Joined(
        generation=generation,
        at=int(time.time() * 1000),
        source=Source.WEBHOOK,
        user_id=user,
        connection_id=connection,
    )


def went(user: str, connection: str) -> Left:
    """The same of one that is gone."""
    return Left(
        generation=1,
        at=int(time.time() * 1000),
        source=Source.WEBHOOK,
        user_id=user,
        connection_id=connection,
    )


async def device_of(node: Node, user: str, name: str, *, token: str = "", **extra: Any) -> Device:
    """A device in its user's own session, with a grant for every channel of the waddle."""
    device = await Device.open(node.port, protobuf=node.protobuf)
    await device.auth(token or pass_for(user), name, **extra)
    return device


async def join(device: Device, channel_id: str, **members: Any) -> dict[str, Any]:
    """voice_join; returns the answer."""
    return await device.request("voice_join", {"channelId": channel_id, **members})


async def states(device: Device, *wanted: str) -> list[dict[str, Any]]:
    """The next voice_state_updates with these states, in this order."""
    found = []
    for state in wanted:
        while True:
            message = await device.receive("voice_state_update")
            if message["state"] == state:
                found.append(message)
                break
    return found


async def until(node: Node, shows: Callable[[LiveCalls], bool]) -> None:
    """Wait until a node's copy shows something."""
    live_calls = calls_of(node).live_calls
    with trio.fail_after(10):
        while not shows(live_calls):  # noqa: ASYNC110 - any change of it may be the one
            await trio.sleep(0.005)


def muted(live_calls: LiveCalls, channel_id: str, user: str) -> bool:
    """Whether a copy shows a participant as muted."""
    person = live_calls.member(channel_id, user)
    return person is not None and person.muted


def plain_token(user: str) -> str:
    """A token without any voice grant."""
    return mint(user)


def people(call: dict[str, Any]) -> set[str]:
    """Who is in a call, as a message shows it."""
    return {person["userId"] for person in call["participants"]}
