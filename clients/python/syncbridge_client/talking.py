"""`session.voice`: the program's side of voice calls."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio.lowlevel

from syncbridge_client.dialogue import Dialogue
from syncbridge_client.voice import VoiceCall

Request = Callable[[Callable[[], str]], Awaitable[None]]


class Voice:
    """Calls of the session's user, and what this device says of itself.

    The media is the program's own: it asks for a voice token over HTTP, connects, and says so with
    `join`. From then on this object reports that it is in the call, until `leave`, or until the
    call ends or goes to another device; then `session.events()` delivers `VoiceLost`.

    Attributes:
        calls: channel id -> call, of all channels that this device hears of; a live view.
    """

    def __init__(self, dialogue: Dialogue, request: Request, wake: Callable[[], None]) -> None:
        self._dialogue = dialogue
        self._request = request
        self._wake = wake
        self.calls: Mapping[str, VoiceCall] = dialogue.voice.calls

    async def join(
        self,
        channel_id: str,
        *,
        waddle_id: str | None = None,
        connection_id: str | None = None,
        session_id: str | None = None,
        muted: bool | None = None,
        video: bool | None = None,
    ) -> VoiceCall:
        """This device is in the media of a call; called again, it tells what has changed.

        What is left out is as it was the time before.

        Args:
            waddle_id: the channel's; needed where the token has grants for several.
            connection_id: the provider's id of the connection. session_id: the provider's session,
                as the voice token's answer named it; needed after a `session_migration`.
            muted, video: the device's switches.

        Raises:
            RequestFailed: refused, disconnected, or no answer in time. SessionClosed.
        """
        members = {
            "channelId": channel_id,
            "waddleId": waddle_id,
            "connectionId": connection_id,
            "sessionId": session_id,
            "muted": muted,
            "video": video,
        }
        said = {name: value for name, value in members.items() if value is not None}
        body = self._dialogue.voice.said(channel_id) | said
        self._choose(channel_id, waddle_id or "")
        await self._ask("voice_join", body)
        self._dialogue.voice.keep(body, anyio.current_time())
        self._wake()
        return self.calls.get(channel_id, VoiceCall(channel_id))

    async def leave(self, channel_id: str, *, connection_id: str | None = None) -> None:
        """This device has left the media; raises as `join`."""
        body = self._named(channel_id)
        self._dialogue.voice.drop(channel_id)
        if connection_id is not None:
            body["connectionId"] = connection_id
        await self._ask("voice_leave", body)

    async def speaking(self, channel_id: str, speaking: bool) -> None:
        """The user begins or ends to speak in a call that was joined. It is not waited for."""
        await anyio.lowlevel.checkpoint()
        self._dialogue.voice.speaking(channel_id, speaking, anyio.current_time())
        self._wake()

    async def watch(self, channel_id: str, waddle_id: str = "") -> VoiceCall:
        """Hear of a channel without taking part, on this connection; raises as `join`."""
        body = {"channelId": channel_id} | ({"waddleId": waddle_id} if waddle_id else {})
        self._choose(channel_id, waddle_id)
        await self._ask("voice_watch", body)
        return self.calls.get(channel_id, VoiceCall(channel_id))

    async def unwatch(self, channel_id: str) -> None:
        """End that; raises as `join`."""
        await self._ask("voice_unwatch", {"channelId": channel_id})

    def _choose(self, channel_id: str, waddle_id: str) -> None:
        if waddle_id:
            self._dialogue.voice.choose(channel_id, waddle_id)

    def _named(self, channel_id: str) -> dict[str, Any]:
        """A channel as it was joined."""
        said = self._dialogue.voice.said(channel_id)
        return {name: said[name] for name in ("channelId", "waddleId") if name in said} or {
            "channelId": channel_id
        }

    async def _ask(self, kind: str, body: dict[str, Any]) -> None:
        await self._request(lambda: self._dialogue.ask_voice(kind, body))
