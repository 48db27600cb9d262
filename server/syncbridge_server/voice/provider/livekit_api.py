"""LiveKit's server API: Twirp, JSON over POST, each request with its own JWT.

LiveKit's Python SDK needs asyncio, so this module implements the few methods that the adapter
needs. An answer that is not JSON is never shown: for an invalid token, LiveKit's answer contains
the whole token.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jwt

from syncbridge.voice.provider import errors
from syncbridge.voice.provider.livekit_webhooks import somebody
from syncbridge_server.voice.provider.answers import entries, text
from syncbridge_server.voice.provider.calling import ProviderAnswer, ProviderCalls

JWT_SECONDS = 60
MAX_LIST = 16_777_216
"""Maximum bytes of the list of all rooms, which has no pages: about 20,000 rooms."""
NO_NODE = (503, "unavailable")
"""Status and code of the answer that no node has the room; the API waits 3 seconds for one."""
NO_REDIS = "redis required"

Object = dict[str, Any]


class LiveKitApi:
    """Requests to one LiveKit. `calls`: without a key; `clock`: Unix seconds."""

    def __init__(
        self, calls: ProviderCalls, key: str, secret: str, clock: Callable[[], float]
    ) -> None:
        self._calls = calls
        self._key = key
        self._secret = secret
        self._clock = clock

    def sign(self, claims: Mapping[str, Any], seconds: int) -> str:
        """Sign a JWT with these claims, valid for `seconds`."""
        now = int(self._clock())
        times = {"iss": self._key, "nbf": now, "exp": now + seconds}
        return jwt.encode({**times, **claims}, self._secret, algorithm="HS256")

    # Rooms

    async def create_room(self, name: str, options: Object, *, poll: bool = False) -> Object:
        """Create a room; an existing one stays unchanged."""
        body = {"name": name, **options}
        return (await self._room("CreateRoom", body, {"roomCreate": True}, poll=poll)).body

    async def delete_room(self, name: str) -> None:
        """Delete a room and remove its participants. A missing room is no error."""
        await self._room("DeleteRoom", {"room": name}, {"roomCreate": True}, accept=(404,))

    async def rooms(self, *names: str) -> list[Object]:
        """The existing rooms with these names; without names, all rooms."""
        body = {"names": names} if names else {}
        more: Object = {"reads": True, "poll": True, "most": MAX_LIST}
        answer = await self._room("ListRooms", body, {"roomList": True}, **more)
        return entries(answer.body, "rooms")

    # Participants

    async def people(self, room: str, *, poll: bool = False) -> list[Object] | None:
        """The listed people in any state; None: no node has the room.

        If LiveKit answers from its store, a missing room is an empty list.
        """
        answer = await self._in_room(
            "ListParticipants", room, {}, reads=True, poll=poll, accept=(503,)
        )
        if answer.status == 503:
            self._require(answer, NO_NODE)
            return None
        return [one for one in entries(answer.body, "participants") if somebody(one)]

    async def remove(self, room: str, identity: str) -> bool:
        """Remove a participant; False if there is none."""
        answer = await self._in_room(
            "RemoveParticipant", room, {"identity": identity}, accept=(404,)
        )
        return answer.status != 404

    async def update(self, room: str, identity: str, permission: Object) -> bool:
        """Change a participant's permissions; False if there is none."""
        body = {"identity": identity, "permission": permission}
        return (await self._in_room("UpdateParticipant", room, body, accept=(404,))).status != 404

    async def mute(self, room: str, identity: str, track: str) -> None:
        """Mute one track. A missing track or participant is no error."""
        body = {"identity": identity, "track_sid": track, "muted": True}
        answer = await self._in_room("MutePublishedTrack", room, body, accept=(404, 503))
        if answer.status == 503:
            self._require(answer, NO_NODE)

    # Egress

    async def egress(self, room: str) -> list[Object]:
        """The active recordings of a room."""
        return entries(
            (await self._egress("ListEgress", room_name=room, active=True)).body, "items"
        )

    async def has_redis(self) -> bool:
        """Whether LiveKit has a Redis, which egress and several nodes need."""
        try:
            await self._egress("ListEgress", active=True)
        except errors.Unsupported:
            return False
        return True

    async def start_egress(self, room: str, path: str) -> str:
        """Record the audio of a room into a file; returns the recording's id."""
        files = [{"file_type": "OGG", "filepath": path}]
        answer = await self._egress(
            "StartRoomCompositeEgress",
            (429,),
            room_name=room,
            audio_only=True,
            file_outputs=files,
        )
        if answer.status == 429:  # the recorders are busy; it is no limit of our requests
            raise errors.ProviderUnavailable("no recorder is free", retry_after=30.0)
        return text(answer.body, "egress_id")

    async def stop_egress(self, egress_id: str) -> None:
        """Stop a recording. An ended or missing recording is no error."""
        await self._egress("StopEgress", (404, 412), egress_id=egress_id)

    # Requests

    async def _room(self, method: str, body: Object, grant: Object, **more: Any) -> ProviderAnswer:
        return await self._ask("RoomService", method, body, grant, **more)

    async def _in_room(self, method: str, room: str, body: Object, **more: Any) -> ProviderAnswer:
        """Send a request with `roomAdmin`, which applies only to the room in the grant."""
        grant = {"roomAdmin": True, "room": room}
        return await self._room(method, {"room": room, **body}, grant, **more)

    async def _egress(
        self, method: str, accept: tuple[int, ...] = (), **body: Any
    ) -> ProviderAnswer:
        """Send a request to the Egress service. Raises Unsupported without a Redis."""
        grant = {"roomRecord": True}
        reads = method == "ListEgress"
        answer = await self._ask("Egress", method, body, grant, reads=reads, accept=(500, *accept))
        if answer.status == 500 and NO_REDIS in str(answer.body.get("msg", "")):
            raise errors.Unsupported("LiveKit records only with a Redis and an Egress worker")
        if answer.status == 500:
            raise errors.ProviderUnavailable("the provider answered 500", outcome_unknown=not reads)
        return answer

    async def _ask(
        self, service: str, method: str, body: Object, grant: Object, **more: Any
    ) -> ProviderAnswer:
        token = self.sign({"video": grant}, JWT_SECONDS)
        headers = {"authorization": f"Bearer {token}"}
        path = f"/twirp/livekit.{service}/{method}"
        return await self._calls.ask("POST", path, body, headers=headers, **more)

    def _require(self, answer: ProviderAnswer, wanted: tuple[int, str]) -> None:
        """Raise ProviderUnavailable unless the answer is this error of the API."""
        if (answer.status, answer.body.get("code")) != wanted:
            raise errors.ProviderUnavailable(f"the provider answered {answer.status}")
