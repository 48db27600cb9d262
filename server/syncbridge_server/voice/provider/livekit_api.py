"""LiveKit's server API: Twirp, JSON over POST, each request with a JWT of its own.

LiveKit's own Python SDK needs asyncio. What is used here are a few methods; each function below is
one of them, and answers what the adapter needs of it. A text that is not JSON is never shown: for
a bad token LiveKit answers with the whole token in it.
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
"""Bytes of the list of all rooms, which has no pages: about 20,000 of them."""
NO_NODE = (503, "unavailable")
"""In the answer's body: no node has this room. The API works; it waited 3 seconds for one."""
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
        """A JWT of ours with these claims, `seconds` long."""
        now = int(self._clock())
        times = {"iss": self._key, "nbf": now, "exp": now + seconds}
        return jwt.encode({**times, **claims}, self._secret, algorithm="HS256")

    # Rooms

    async def create_room(self, name: str, options: Object, *, poll: bool = False) -> Object:
        """The room of that name; one that is there stays as it is."""
        body = {"name": name, **options}
        return (await self._room("CreateRoom", body, {"roomCreate": True}, poll=poll)).body

    async def delete_room(self, name: str) -> None:
        """Whoever is in it is sent away. One that is not there is no error."""
        await self._room("DeleteRoom", {"room": name}, {"roomCreate": True}, accept=(404,))

    async def rooms(self, *names: str) -> list[Object]:
        """These rooms as far as they are there; without names all there are."""
        body = {"names": names} if names else {}
        more: Object = {"reads": True, "poll": True, "most": MAX_LIST}
        answer = await self._room("ListRooms", body, {"roomList": True}, **more)
        return entries(answer.body, "rooms")

    # Participants

    async def people(self, room: str, *, poll: bool = False) -> list[Object] | None:
        """Who is listed and somebody, in whatever state; None: no node has the room.

        A room that is not there is an empty list, where LiveKit answers from its store.
        """
        answer = await self._in_room(
            "ListParticipants", room, {}, reads=True, poll=poll, accept=(503,)
        )
        if answer.status == 503:
            self._require(answer, NO_NODE)
            return None
        return [one for one in entries(answer.body, "participants") if somebody(one)]

    async def remove(self, room: str, identity: str) -> bool:
        """Send a participant away; False when there is none."""
        answer = await self._in_room(
            "RemoveParticipant", room, {"identity": identity}, accept=(404,)
        )
        return answer.status != 404

    async def update(self, room: str, identity: str, permission: Object) -> bool:
        """Change what a participant may do; False when there is none."""
        body = {"identity": identity, "permission": permission}
        return (await self._in_room("UpdateParticipant", room, body, accept=(404,))).status != 404

    async def mute(self, room: str, identity: str, track: str) -> None:
        """Mute one track. One that is not there, or whose participant has left, is no error."""
        body = {"identity": identity, "track_sid": track, "muted": True}
        answer = await self._in_room("MutePublishedTrack", room, body, accept=(404, 503))
        if answer.status == 503:
            self._require(answer, NO_NODE)

    # Egress

    async def egress(self, room: str) -> list[Object]:
        """What is being recorded of a room."""
        return entries(
            (await self._egress("ListEgress", room_name=room, active=True)).body, "items"
        )

    async def has_redis(self) -> bool:
        """Whether LiveKit has a Redis, which several nodes share. Without it there is no egress."""
        try:
            await self._egress("ListEgress", active=True)
        except errors.Unsupported:
            return False
        return True

    async def start_egress(self, room: str, path: str) -> str:
        """Record the sound of a room into a file; the recording's id."""
        files = [{"file_type": "OGG", "filepath": path}]
        answer = await self._egress(
            "StartRoomCompositeEgress",
            (429,),
            room_name=room,
            audio_only=True,
            file_outputs=files,
        )
        if answer.status == 429:  # it is the recorders that are busy; our requests are no trouble
            raise errors.ProviderUnavailable("no recorder is free", retry_after=30.0)
        return text(answer.body, "egress_id")

    async def stop_egress(self, egress_id: str) -> None:
        """Stop a recording. One that has ended, or was never there, is no error."""
        await self._egress("StopEgress", (404, 412), egress_id=egress_id)

    # Requests

    async def _room(self, method: str, body: Object, grant: Object, **more: Any) -> ProviderAnswer:
        return await self._ask("RoomService", method, body, grant, **more)

    async def _in_room(self, method: str, room: str, body: Object, **more: Any) -> ProviderAnswer:
        """`roomAdmin` holds for the room that is named beside it, and no other."""
        grant = {"roomAdmin": True, "room": room}
        return await self._room(method, {"room": room, **body}, grant, **more)

    async def _egress(
        self, method: str, accept: tuple[int, ...] = (), **body: Any
    ) -> ProviderAnswer:
        """Raises Unsupported where LiveKit has no Redis."""
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
        """Raise ProviderUnavailable unless an answer is this error of the API itself."""
        if (answer.status, answer.body.get("code")) != wanted:
            raise errors.ProviderUnavailable(f"the provider answered {answer.status}")
