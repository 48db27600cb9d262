"""Who of this node hears of which channel: the devices of its participants, and who watches.

One hub topic a channel that somebody here hears of. A device hears of a channel for as long as its
user is in the call, or it watches. Watching is checked against the channel's true waddle whenever a
call begins and whenever a token is renewed: a channel without a call cannot tell its waddle.
"""

from collections.abc import Iterable

from syncbridge import encode
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice import grants
from syncbridge.voice.announcements import Message
from syncbridge_core.hub import KIND_NOTICE, Hub
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.post import Post
from syncbridge_server.voice.sockets.live_calls import LiveCalls

MAX_WATCHED = 32
"""Channels that one connection may watch."""


class ChannelAudience:
    """Topics of channels, and the connections of users. All costs O(devices concerned)."""

    def __init__(self, hub: Hub, post: Post, live_calls: LiveCalls) -> None:
        self._hub = hub
        self._post = post
        self._live_calls = live_calls
        self._topics: dict[str, int] = {}
        self._devices: dict[str, Connection | dict[int, Connection]] = {}
        self._watchers: dict[str, dict[int, Connection]] = {}
        self._watched: dict[int, dict[str, None]] = {}

    def devices(self, user_id: str) -> list[Connection]:
        """The connections of a user here."""
        held = self._devices.get(user_id)
        if held is None:
            return []
        return list(held.values()) if isinstance(held, dict) else [held]

    # Connections

    def add(self, connection: Connection, user_id: str) -> None:
        """A connection is ready: it hears of its user's calls."""
        held = self._devices.get(user_id)
        if isinstance(held, dict):
            held[connection.cid] = connection
        elif held is None:
            self._devices[user_id] = connection  # most users have one; a dict costs 230 bytes
        else:
            self._devices[user_id] = {held.cid: held, connection.cid: connection}
        for call in self._live_calls.calls_of(user_id):
            self._subscribe(call.channel_id, connection)

    def remove(self, connection: Connection, user_id: str) -> None:
        """A connection is gone."""
        held = self._devices.get(user_id)
        if isinstance(held, dict):
            held.pop(connection.cid, None)
        if held is connection or held == {}:
            del self._devices[user_id]
        for channel_id in list(self._watched.get(connection.cid, ())):
            self._forget(channel_id, connection)
            self._unsubscribe(channel_id, connection)
        for call in self._live_calls.calls_of(user_id):
            self._unsubscribe(call.channel_id, connection)

    # Watching

    def watch(self, channel_id: str, connection: Connection) -> None:
        """Let a connection hear of a channel. Raises SyncBridgeError when it watches too many."""
        watched = self._watched.setdefault(connection.cid, {})
        if channel_id not in watched and len(watched) >= MAX_WATCHED:
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                f"channelId: a connection watches at most {MAX_WATCHED} channels",
                field="channelId",
            )
        watched[channel_id] = None
        self._watchers.setdefault(channel_id, {})[connection.cid] = connection
        self._subscribe(channel_id, connection)

    def unwatch(self, channel_id: str, connection: Connection) -> None:
        """End that; a participant goes on to hear of the call."""
        self._forget(channel_id, connection)
        identity = connection.identity
        if identity is None or self._live_calls.member(channel_id, identity.user_id) is None:
            self._unsubscribe(channel_id, connection)

    def review(self, channel_id: str, waddle_id: str) -> None:
        """A call has begun: who may not hear of this waddle's channels does not watch it."""
        for connection in list(self._watchers.get(channel_id, {}).values()):
            self._review(channel_id, waddle_id, connection)

    def review_connection(self, connection: Connection) -> None:
        """A connection has another token."""
        for channel_id in list(self._watched.get(connection.cid, ())):
            call = self._live_calls.calls.get(channel_id)
            if call is not None:
                self._review(channel_id, call.view.head.waddle_id, connection)

    def _review(self, channel_id: str, waddle_id: str, connection: Connection) -> None:
        identity = connection.identity
        if identity is None or not grants.permissions_of(identity, waddle_id, channel_id):
            self.unwatch(channel_id, connection)

    # Participants

    def joined(self, channel_id: str, user_ids: Iterable[str]) -> list[Connection]:
        """Users are in the call: their devices here hear of it. Answers those devices."""
        found = [device for user_id in user_ids for device in self.devices(user_id)]
        for connection in found:
            self._subscribe(channel_id, connection)
        return found

    def left(self, channel_id: str, user_ids: Iterable[str]) -> None:
        """Users are not in the call any more."""
        for user_id in user_ids:
            for connection in self.devices(user_id):
                if connection.cid not in self._watchers.get(channel_id, {}):
                    self._unsubscribe(channel_id, connection)

    # Telling

    def has_listeners(self, channel_id: str) -> bool:
        """Whether anybody here hears of a channel."""
        return channel_id in self._topics

    def channels_of(self, connection: Connection, user_id: str) -> list[str]:
        """The channels of which a connection hears and that have a call."""
        watched = [c for c in self._watched.get(connection.cid, ()) if c in self._live_calls.calls]
        calls = (call.channel_id for call in self._live_calls.calls_of(user_id))
        return list(dict.fromkeys([*watched, *calls]))

    def tell(self, channel_id: str, message: Message, kind: int = KIND_NOTICE) -> int:
        """Send a message to all who hear of a channel; returns to how many."""
        topic = self._topics.get(channel_id)
        return self._post.everyone(topic, encode.to_json(message), kind) if topic else 0

    def tell_user(self, user_id: str, message: Message) -> None:
        """Send a message to the devices of a user here."""
        frame = encode.to_json(message)
        for connection in self.devices(user_id):
            self._post.raw(connection, frame)

    # Parts

    def _subscribe(self, channel_id: str, connection: Connection) -> None:
        topic = self._topics.get(channel_id)
        if topic is None:
            topic = self._topics[channel_id] = self._hub.open_topic()
        self._hub.subscribe(topic, connection.cid)

    def _unsubscribe(self, channel_id: str, connection: Connection) -> None:
        topic = self._topics.get(channel_id)
        if topic is None:
            return
        self._hub.unsubscribe(topic, connection.cid)
        if not self._hub.topic_size(topic):
            del self._topics[channel_id]
            self._hub.close_topic(topic)

    def _forget(self, channel_id: str, connection: Connection) -> None:
        """Drop what makes a connection a watcher."""
        watched = self._watched.get(connection.cid, {})
        watched.pop(channel_id, None)
        if not watched:
            self._watched.pop(connection.cid, None)
        watchers = self._watchers.get(channel_id, {})
        watchers.pop(connection.cid, None)
        if not watchers:
            self._watchers.pop(channel_id, None)
