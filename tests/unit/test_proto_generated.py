"""The .proto file says what the protocol says, and the generated modules what it says."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from google.protobuf.internal import api_implementation

from support.source_tree import ROOT
from syncbridge import protobuf
from syncbridge.messages import MessageType
from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb
from syncbridge.protobuf_json import plan
from syncbridge_server.message_schemas import INBOUND, OUTBOUND

INCLUDE = ROOT / "pysrc" / "syncbridge" / "proto"
SOURCE = "syncbridge/v1/syncbridge.proto"
DEVICE_LIST = MessageType.DEVICE_LIST


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what protoc makes now."""
    out = tmp_path_factory.mktemp("proto")
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{INCLUDE}"]
    subprocess.run(
        [*protoc, f"--python_out={out}", f"--pyi_out={out}", SOURCE], check=True, timeout=60
    )
    return out


@pytest.mark.parametrize("name", ["syncbridge_pb2.py", "syncbridge_pb2.pyi"])
def test_generated_modules_are_current(generated: Path, name: str) -> None:
    """Generating again changes nothing; else run `make proto`."""
    place = Path(SOURCE).parent / name

    assert (generated / place).read_text() == (INCLUDE / place).read_text()


def test_message_types_are_those_of_the_protocol() -> None:
    """The enum of the .proto file has the names and numbers that JSON has."""
    names = {value.name: value.number for value in pb.MessageType.DESCRIPTOR.values}

    assert {f"MESSAGE_TYPE_{kind.name}": kind.value for kind in MessageType} == names


def test_payload_fields_follow_their_types() -> None:
    """Each payload has field number 10 + type; others are an exception by name."""
    fields = {field.name: field.number for field in pb.Envelope.DESCRIPTOR.oneofs[0].fields}
    expected = {kind.name.lower(): 10 + kind for kind in MessageType if kind}

    assert expected | {"state_updated": 35, "event": 40} == fields


def test_parser_is_the_compiled_one() -> None:
    """The pure-Python runtime would parse a hundred times slower."""
    assert "upb" == api_implementation.Type()


def members(message: str) -> set[str]:
    """The JSON members that a payload's protobuf message has; `key` & co. are an entry there."""
    field = pb.Envelope.DESCRIPTOR.fields_by_name[message]
    assert field.message_type is not None
    found = {f.member for f in plan(field.message_type)}
    return found | {"key", "value", "operation"} if message == "state_updated" else found


@pytest.mark.parametrize("kind", OUTBOUND, ids=lambda kind: kind.name)
def test_everything_that_the_server_says_has_a_field(kind: MessageType) -> None:
    """No member of a JSON message gets lost in protobuf; payloads of any shape travel whole."""
    fields = members(protobuf.OUT[kind])

    assert fields == {""} or {f.name for f in msgspec.structs.fields(OUTBOUND[kind])} <= fields


@pytest.mark.parametrize("kind", INBOUND, ids=lambda kind: kind.name)
def test_everything_that_a_client_may_say_has_a_field(kind: MessageType) -> None:
    """What JSON clients can ask for, protobuf clients can."""
    named = (
        {f.name for f in msgspec.structs.fields(INBOUND[kind])} if kind != DEVICE_LIST else set()
    )

    assert named <= members(protobuf.IN[kind])
