"""Maps users and their devices to LiveKit identities.

In LiveKit, an identity has one connection: a second connection with it ends the first. So an
identity is a user *and* a device, `user:device`, or `user` if the device is unknown. In the user
id, `%` becomes `%p` and `:` becomes `%c`; the device id is unchanged. If the identity exceeds
LiveKit's limit, it becomes `%h` and a digest, and both ids are attributes of the participant, which
only the service can change. An identity that SyncBridge did not make, such as that of a telephone,
is a user of that name.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from syncbridge.voice.provider.webhook_text import text_of

LONGEST = 256
"""Bytes of an identity, and of a room's name."""
USER, DEVICE = "syncbridge.user", "syncbridge.device"
_DIGEST = "%h"


class Person(NamedTuple):
    """A user, and the device if known."""

    user_id: str
    device_id: str = ""


def identity_of(person: Person) -> tuple[str, dict[str, str]]:
    """The identity and its attributes. O(bytes)."""
    user = person.user_id.replace("%", "%p").replace(":", "%c")
    identity = f"{user}:{person.device_id}" if person.device_id else user
    if len(identity.encode()) <= LONGEST:
        return identity, {}
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return _DIGEST + digest, {USER: person.user_id, DEVICE: person.device_id}


def person_of(identity: str, attributes: Mapping[str, object]) -> Person:
    """The user and device of an identity. O(bytes)."""
    if identity.startswith(_DIGEST):
        user, device = (text_of(attributes.get(name), LONGEST) for name in (USER, DEVICE))
        return Person(user or identity, device)
    user, _, device = identity.partition(":")
    user = user.replace("%c", ":").replace("%p", "%")
    return Person(user, device) if user else Person(identity)
