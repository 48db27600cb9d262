"""The generated protobuf modules in the tree are what protoc makes of the .proto file."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.internal import api_implementation

from source_tree import ROOT
from syncbridge.messages import MessageType
from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb

INCLUDE = ROOT / "pysrc" / "syncbridge" / "proto"
SOURCE = "syncbridge/v1/syncbridge.proto"


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
