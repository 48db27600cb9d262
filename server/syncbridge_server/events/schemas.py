"""JSON Schema of every event, from the types that they are made of.

    python -m syncbridge_server.events.schemas > docs/events.schema.json

`$defs` holds one schema a kind and number, `session.updated.v1`; unknown members are allowed
everywhere: a kind may get new ones without another number.
"""

import sys
from typing import Any

import msgspec

from syncbridge.events.kinds import KINDS, Event

Json = dict[str, Any]
IDENTIFIER = "urn:syncbridge:events:v1"


def event_schemas() -> Json:
    """The whole document."""
    types = [kind for _, kind in KINDS.values()]
    _, components = msgspec.json.schema_components([Event, *types], ref_template="#/$defs/{name}")
    envelope = components.pop("Event")
    names = {name: f"{name}.v{number}" for name, (number, _) in KINDS.items()}
    told = {
        names[name]: _event(name, envelope, number, kind) for name, (number, kind) in KINDS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": IDENTIFIER,
        "title": "SyncBridge events",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in told],
        "$defs": {**told, **components},
    }


def _event(name: str, envelope: Json, number: int, kind: type) -> Json:
    """The envelope with the data of one kind."""
    properties = dict(envelope["properties"])
    properties["type"] = {"const": name}
    properties["type_version"] = {"const": number}
    properties["timestamp"] = {"type": "string", "format": "date-time"}
    properties["data"] = {"$ref": f"#/$defs/{kind.__name__}"}
    properties["cursor"] = {
        "type": "string",
        "description": "Only in GET /events: the place behind.",
    }
    return {
        "title": name,
        "type": "object",
        "properties": properties,
        "required": envelope["required"],
    }


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(event_schemas())).decode() + "\n")
