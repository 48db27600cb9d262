"""How users and their devices are called at LiveKit.

There one identity is one connection: a second one with the same identity ends the first. So an
identity is a user *and* a device, `user:device`, and a user without a device that is known is
`user`. In a user id `%` becomes `%p` and `:` becomes `%c`; the device stands as it is. What is
longer than LiveKit allows becomes `%h` and a digest, and both ids travel as attributes of the
participant, which nobody but the service may change. An identity that we did not make, such as that
of a telephone, is a user of that name.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

LONGEST = 256
"""Bytes of an identity, and of a room's name."""
USER, DEVICE = "syncbridge.user", "syncbridge.device"
_DIGEST = "%h"


class Person(NamedTuple):
    """A user, and the device where it is known."""

    user_id: str
    device_id: str = ""


def identity_of(person: Person) -> tuple[str, dict[str, str]]:
    """The identity, and the attributes that go with it. O(bytes)."""
    user = person.user_id.replace("%", "%p").replace(":", "%c")
    identity = f"{user}:{person.device_id}" if person.device_id else user
    if len(identity.encode()) <= LONGEST:
        return identity, {}
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return _DIGEST + digest, {USER: person.user_id, DEVICE: person.device_id}


def person_of(identity: str, attributes: Mapping[str, object]) -> Person:
    """Who has an identity. O(bytes)."""
    if identity.startswith(_DIGEST):
        told = [attributes.get(name, "") for name in (USER, DEVICE)]
        user, device = (text if isinstance(text, str) else "" for text in told)
        return Person(user or identity, device)
    user, _, device = identity.partition(":")
    return Person(user.replace("%c", ":").replace("%p", "%"), device)
