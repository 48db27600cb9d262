"""Protobuf messages and JSON objects into one another, by the rules that syncbridge.proto states.

Theory of operation. The .proto file is the only table: for every message type a plan is made once,
a tuple with one field each, which says by the field's type and name how its JSON member looks:

* `x_json`: the JSON text of member `x`; `json` alone: the whole object;
* a list of Entry: an object of state keys, in order;
* a message, a list of messages, a list of strings, a map, an enum (its name without the prefix);
* anything else: a JSON string, number or boolean.

`read` is for what clients send: every `bytes` that is to be JSON is validated and made compact by
the document kernel before it becomes part of a larger text, so a value cannot reach out of its
place; lists are counted before they are walked. `write` is for our own messages, which are
trusted. Both are linear in the size of the message, and as deep as the .proto file nests.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from syncbridge import kernels
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb
from syncbridge.session import UNLIMITED
from syncbridge.updates import document_error

Reader = Callable[[Any, "Bounds"], bytes | None]
"""(field value, bounds) -> JSON text of the member, None for no member."""
Writer = Callable[[Message, msgspec.Raw], None]
"""Sets the field from the JSON text of the member."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_plain = msgspec.json.Decoder()
_number = msgspec.json.Encoder().encode
_null = b"null"


class Bounds(msgspec.Struct, frozen=True):
    """What a message may hold: limits of a document, and how many elements a list has."""

    document: kernels.DocumentLimits
    elements: int


class Field(msgspec.Struct, frozen=True):
    """One field of a message type and its JSON member. `optional`: may be unset."""

    name: str
    member: str
    optional: bool
    read: Reader
    write: Writer


def read(message: Message, bounds: Bounds) -> bytes:
    """The JSON object of a message, as compact text.

    Raises:
        SyncBridgeError: a field is not acceptable JSON, or a list is too long.
    """
    parts = []
    for field in plan(message.DESCRIPTOR):
        if field.optional and not message.HasField(field.name):
            continue
        text = field.read(getattr(message, field.name), bounds)
        if text is not None:
            parts.append(b'"%b":%b' % (field.member.encode(), text))
    return b"{%b}" % b",".join(parts)


def write(message: Message, text: msgspec.Raw) -> None:
    """Fill a message from the JSON object that stands for it; other members are left out.

    Raises:
        ValueError, TypeError: the object has another shape.
    """
    fields = plan(message.DESCRIPTOR)
    if fields and fields[0].member == "":
        fields[0].write(message, text)
        return
    members = _members.decode(text)
    for field in fields:
        member = members.get(field.member)
        if member is not None and bytes(member) != _null:
            field.write(message, member)


def entries(container: Any, flat: Sequence[bytes]) -> None:
    """Append `[key, value, ...]` to a list of Entry."""
    add = container.add
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        # Half the time of passing both to `add`.
        entry = add()
        entry.key = key.decode()
        entry.value_json = value


@cache
def plan(descriptor: Descriptor) -> tuple[Field, ...]:
    """The fields of a message type."""
    return tuple(_field(field) for field in descriptor.fields)


def _field(field: FieldDescriptor) -> Field:
    name = field.name
    is_json = field.type == FieldDescriptor.TYPE_BYTES
    member = name.removesuffix("json").removesuffix("_") if is_json else name
    read, write = _kind(field, member)
    return Field(name, member, field.has_presence, read, write)


def _kind(field: FieldDescriptor, member: str) -> tuple[Reader, Writer]:
    """How a field is read and written."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _json(field.name, member)
    if field.message_type is not None:
        return _messages(field)
    if field.is_repeated:
        return _strings(field.name)
    if field.enum_type is not None:
        return _enum(field.name, field.enum_type)
    return _scalar(field)


def _json(name: str, member: str) -> tuple[Reader, Writer]:
    def read(value: bytes, bounds: Bounds) -> bytes:
        return _compact(value, bounds, member)

    return read, lambda message, text: setattr(message, name, bytes(text))


def _compact(value: bytes, bounds: Bounds, where: str) -> bytes:
    try:
        return kernels.compact(value, bounds.document)
    except kernels.DocumentError as error:
        raise document_error(error, where) from None


def _messages(field: FieldDescriptor) -> tuple[Reader, Writer]:
    name = field.name
    assert field.message_type is not None
    if field.message_type is pb.Entry.DESCRIPTOR:
        return _entries(name)
    if field.message_type.GetOptions().map_entry:
        return _map(name)
    if not field.is_repeated:
        return read, lambda message, text: _write_one(getattr(message, name), text)

    def read_all(values: Sequence[Message], bounds: Bounds) -> bytes:
        _count(values, bounds, name)
        return b"[%b]" % b",".join(read(value, bounds) for value in values)

    def write_all(message: Message, text: msgspec.Raw) -> None:
        for item in _items.decode(text):
            write(getattr(message, name).add(), item)

    return read_all, write_all


def _write_one(message: Message, text: msgspec.Raw) -> None:
    message.SetInParent()
    write(message, text)


def _entries(name: str) -> tuple[Reader, Writer]:
    def read(values: Sequence[Any], bounds: Bounds) -> bytes | None:
        _count(values, bounds, name)
        flat: list[bytes] = []
        for entry in values:
            key = entry.key
            flat += key.encode(), _compact(entry.value_json, bounds, f"{name}.{key[:64]}")
        return kernels.render_pairs(flat) if flat else None

    def write(message: Message, text: msgspec.Raw) -> None:
        entries(getattr(message, name), kernels.split(memoryview(text), UNLIMITED).flat())

    return read, write


def _map(name: str) -> tuple[Reader, Writer]:
    def read(values: Any, bounds: Bounds) -> bytes:
        _count(values, bounds, name)
        return _number(dict(values))

    return read, lambda message, text: getattr(message, name).update(_plain.decode(text))


def _strings(name: str) -> tuple[Reader, Writer]:
    def read(values: Sequence[str], bounds: Bounds) -> bytes | None:
        _count(values, bounds, name)
        return _number(list(values)) if values else None

    return read, lambda message, text: getattr(message, name).extend(_plain.decode(text))


def _enum(name: str, enum: EnumDescriptor) -> tuple[Reader, Writer]:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = {value.number: value.name.removeprefix(prefix) for value in enum.values}

    def read(value: int, bounds: Bounds) -> bytes | None:
        return _number(names.get(value, str(value))) if value else None

    def write(message: Message, text: msgspec.Raw) -> None:
        setattr(message, name, enum.values_by_name[prefix + _plain.decode(text)].number)

    return read, write


def _scalar(field: FieldDescriptor) -> tuple[Reader, Writer]:
    name = field.name

    def read(value: str | int | bool, bounds: Bounds) -> bytes:
        return _number(value)

    def read_double(value: float, bounds: Bounds) -> bytes:
        if not math.isfinite(value):
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD, f"{name}: a finite number is expected", field=name
            )
        return _number(int(value) if value.is_integer() and abs(value) < 2**53 else value)

    def write(message: Message, text: msgspec.Raw) -> None:
        setattr(message, name, _plain.decode(text))

    return read_double if field.type == FieldDescriptor.TYPE_DOUBLE else read, write


def _count(values: Any, bounds: Bounds, name: str) -> None:
    if len(values) > bounds.elements:
        raise SyncBridgeError(
            ErrorCode.TOO_MANY_CHANGES, f"{name}: at most {bounds.elements} are expected"
        )
