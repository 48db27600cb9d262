"""The audience of each channel on this node: devices of its participants and watchers.

A channel with an audience has one hub topic. A device is subscribed while its user is in the call
or while it watches the channel. A device watches an id, in a waddle or in those of its grants, also
when there is no call yet; it is subscribed to the channels that it may hear of. That is checked
again when a call begins, when something is told of a channel without a call, and when a token is
renewed.
"""

from collections.abc import Iterable

from syncbridge import encode
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice import grants
from syncbridge.voice.announcements import Message
from syncbridge.voice.naming import id_of_key
from syncbridge_core.hub import KIND_NOTICE, Hub
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.voice.sockets.live_calls import LiveCalls, discard

MAX_WATCHED = 32
"""Channels that one connection may watch."""

Watched = tuple[str, str]
"""(id, waddle) of what is watched; an empty waddle: any that the token has a grant for."""


class ChannelAudience:
    """Topics of channels and connections of users. All methods are O(affected devices)."""

    def __init__(self, hub: Hub, sender: MessageSender, live_calls: LiveCalls) -> None:
        self._hub = hub
        self._sender = sender
        self._live_calls = live_calls
        self._topics: dict[str, int] = {}
        self._open: dict[str, dict[str, None]] = {}
        self._devices: dict[str, Connection | dict[int, Connection]] = {}
        self._watchers: dict[Watched, dict[int, Connection]] = {}
        self._watched: dict[int, dict[Watched, None]] = {}

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
        for one in list(self._watched.get(connection.cid, ())):
            self._forget(one, connection)
            for key in list(self._open.get(one[0], ())):
                self._unsubscribe(key, connection)
        for call in self._live_calls.calls_of(user_id):
            self._unsubscribe(call.channel_id, connection)

    # Watching

    def watch(self, channel_id: str, waddle_id: str, connection: Connection) -> None:
        """Watch an id. Raises SyncBridgeError above `MAX_WATCHED`."""
        watched = self._watched.setdefault(connection.cid, {})
        one = (channel_id, waddle_id)
        if one not in watched and len(watched) >= MAX_WATCHED:
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                f"channelId: a connection watches at most {MAX_WATCHED} channels",
                field="channelId",
            )
        watched[one] = None
        self._watchers.setdefault(one, {})[connection.cid] = connection
        for call in self._live_calls.named(channel_id, waddle_id):
            self._review(call.channel_id, call.waddle_id, connection)

    def unwatch(self, channel_id: str, waddle_id: str, connection: Connection) -> None:
        """Stop watching an id, in all waddles if none is named. Participants stay subscribed."""
        for one in list(self._watched.get(connection.cid, ())):
            if one[0] == channel_id and waddle_id in ("", one[1]):
                self._forget(one, connection)
        for key in list(self._open.get(channel_id, ())):
            self._drop(key, connection)
        for call in self._live_calls.named(channel_id):
            self._review(call.channel_id, call.waddle_id, connection)

    def review(self, channel_id: str, waddle_id: str) -> None:
        """Subscribe the watchers who may hear of the channel of a key, and no others."""
        for one in _names(channel_id, waddle_id):
            for connection in list(self._watchers.get(one, {}).values()):
                self._review(channel_id, waddle_id, connection)

    def review_connection(self, connection: Connection) -> None:
        """Check the permissions of a connection whose token was renewed."""
        for channel_id, waddle_id in list(self._watched.get(connection.cid, ())):
            if not may_watch(connection, channel_id, waddle_id):
                self.unwatch(channel_id, waddle_id, connection)
            for call in self._live_calls.named(channel_id, waddle_id):
                self._review(call.channel_id, call.waddle_id, connection)

    def _review(self, channel_id: str, waddle_id: str, connection: Connection) -> None:
        if self._watches(channel_id, waddle_id, connection):
            self._subscribe(channel_id, connection)
        else:
            self._drop(channel_id, connection)

    def _watches(self, channel_id: str, waddle_id: str, connection: Connection) -> bool:
        """Whether a connection watches the channel of a key, and may."""
        watched = self._watched.get(connection.cid, {})
        if not any(one in watched for one in _names(channel_id, waddle_id)):
            return False
        return may_watch(connection, id_of_key(channel_id), waddle_id, there=True)

    # Participants

    def joined(self, channel_id: str, user_ids: Iterable[str]) -> list[Connection]:
        """Subscribe the devices of users who joined; returns those devices."""
        found = [device for user_id in user_ids for device in self.devices(user_id)]
        for connection in found:
            self._subscribe(channel_id, connection)
        return found

    def left(self, channel_id: str, waddle_id: str, user_ids: Iterable[str]) -> None:
        """Unsubscribe the devices of users who left, except watchers."""
        for user_id in user_ids:
            for connection in self.devices(user_id):
                if not self._watches(channel_id, waddle_id, connection):
                    self._unsubscribe(channel_id, connection)

    # Telling

    def channels_of(self, connection: Connection, user_id: str) -> list[str]:
        """The keys of channels with a call to which a connection is subscribed."""
        watched = [
            call.channel_id
            for one in self._watched.get(connection.cid, ())
            for call in self._live_calls.named(*one)
            if self._watches(call.channel_id, call.waddle_id, connection)
        ]
        calls = (call.channel_id for call in self._live_calls.calls_of(user_id))
        return list(dict.fromkeys([*watched, *calls]))

    def tell(self, channel_id: str, message: Message, kind: int = KIND_NOTICE) -> int:
        """Send a message to the audience of a channel; returns the number of receivers."""
        topic = self._topics.get(channel_id)
        return self._sender.everyone(topic, encode.to_json(message), kind) if topic else 0

    def tell_user(self, user_id: str, message: Message) -> None:
        """Send a message to the user's devices on this node."""
        frame = encode.to_json(message)
        for connection in self.devices(user_id):
            self._sender.raw(connection, frame)

    # Parts

    def _subscribe(self, channel_id: str, connection: Connection) -> None:
        topic = self._topics.get(channel_id)
        if topic is None:
            topic = self._topics[channel_id] = self._hub.open_topic()
            self._open.setdefault(id_of_key(channel_id), {})[channel_id] = None
        self._hub.subscribe(topic, connection.cid)

    def _unsubscribe(self, channel_id: str, connection: Connection) -> None:
        topic = self._topics.get(channel_id)
        if topic is None:
            return
        self._hub.unsubscribe(topic, connection.cid)
        if not self._hub.topic_size(topic):
            del self._topics[channel_id]
            discard(self._open, id_of_key(channel_id), channel_id)
            self._hub.close_topic(topic)

    def _drop(self, channel_id: str, connection: Connection) -> None:
        """Unsubscribe a connection whose user is not in the call."""
        identity = connection.identity
        if identity is None or self._live_calls.member(channel_id, identity.user_id) is None:
            self._unsubscribe(channel_id, connection)

    def _forget(self, one: Watched, connection: Connection) -> None:
        """Remove a connection from the watchers of an id."""
        watched = self._watched.get(connection.cid, {})
        watched.pop(one, None)
        if not watched:
            self._watched.pop(connection.cid, None)
        watchers = self._watchers.get(one, {})
        watchers.pop(connection.cid, None)
        if not watchers:
            self._watchers.pop(one, None)


def _names(channel_id: str, waddle_id: str) -> tuple[Watched, Watched]:
    """What a connection may watch to hear of the channel of a key."""
    public_id = id_of_key(channel_id)
    return (public_id, waddle_id), (public_id, "")


def may_watch(
    connection: Connection, channel_id: str, waddle_id: str, *, there: bool = False
) -> bool:
    """Whether a token has a grant for an id in a waddle; without a waddle, in any.

    `there`: the channel is known, also that its waddle is not.
    """
    identity = connection.identity
    if identity is None:
        return False
    if there or waddle_id:
        return grants.permissions_of(identity, waddle_id, channel_id) is not None
    waddles = grants.waddles_of(identity, channel_id)
    return waddles is None or bool(waddles)
