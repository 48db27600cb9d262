"""The audience of each channel on this node: devices of its participants and watchers.

A channel with an audience has one hub topic. A device is subscribed while its user is in the call
or while it watches the channel. The permission to watch is checked again when a call begins and
when a token is renewed, because the waddle of a channel without a call is unknown.
"""

from collections.abc import Iterable

from syncbridge import encode
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice import grants
from syncbridge.voice.announcements import Message
from syncbridge_core.hub import KIND_NOTICE, Hub
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.voice.sockets.live_calls import LiveCalls

MAX_WATCHED = 32
"""Channels that one connection may watch."""


class ChannelAudience:
    """Topics of channels and connections of users. All methods are O(affected devices)."""

    def __init__(self, hub: Hub, post: MessageSender, live_calls: LiveCalls) -> None:
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
        """Subscribe a ready connection to its user's calls."""
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
        """Drop a closed connection."""
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
        """Watch a channel. Raises SyncBridgeError above `MAX_WATCHED` channels."""
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
        """Stop watching a channel. A participant stays subscribed to the call."""
        self._forget(channel_id, connection)
        identity = connection.identity
        if identity is None or self._live_calls.member(channel_id, identity.user_id) is None:
            self._unsubscribe(channel_id, connection)

    def review(self, channel_id: str, waddle_id: str) -> None:
        """Check the permissions of all watchers when a call begins."""
        for connection in list(self._watchers.get(channel_id, {}).values()):
            self._review(channel_id, waddle_id, connection)

    def review_connection(self, connection: Connection) -> None:
        """Check the permissions of a connection whose token was renewed."""
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
        """Subscribe the devices of users who joined; returns those devices."""
        found = [device for user_id in user_ids for device in self.devices(user_id)]
        for connection in found:
            self._subscribe(channel_id, connection)
        return found

    def left(self, channel_id: str, user_ids: Iterable[str]) -> None:
        """Unsubscribe the devices of users who left, except watchers."""
        for user_id in user_ids:
            for connection in self.devices(user_id):
                if connection.cid not in self._watchers.get(channel_id, {}):
                    self._unsubscribe(channel_id, connection)

    # Telling

    def has_listeners(self, channel_id: str) -> bool:
        """Whether a channel has an audience on this node."""
        return channel_id in self._topics

    def channels_of(self, connection: Connection, user_id: str) -> list[str]:
        """The channels with a call to which a connection is subscribed."""
        watched = [c for c in self._watched.get(connection.cid, ()) if c in self._live_calls.calls]
        calls = (call.channel_id for call in self._live_calls.calls_of(user_id))
        return list(dict.fromkeys([*watched, *calls]))

    def tell(self, channel_id: str, message: Message, kind: int = KIND_NOTICE) -> int:
        """Send a message to the audience of a channel; returns the number of receivers."""
        topic = self._topics.get(channel_id)
        return self._post.everyone(topic, encode.to_json(message), kind) if topic else 0

    def tell_user(self, user_id: str, message: Message) -> None:
        """Send a message to the user's devices on this node."""
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
        """Remove a connection from the watchers of a channel."""
        watched = self._watched.get(connection.cid, {})
        watched.pop(channel_id, None)
        if not watched:
            self._watched.pop(connection.cid, None)
        watchers = self._watchers.get(channel_id, {})
        watchers.pop(connection.cid, None)
        if not watchers:
            self._watchers.pop(channel_id, None)
