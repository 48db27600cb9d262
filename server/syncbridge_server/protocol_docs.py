"""What of docs/protocol.md is made from the code: the diagram of a connection's states.

    python -m syncbridge_server.protocol_docs docs/protocol.md

writes it into the document again, between its two marks. A test holds the document to it.
"""

import sys
from pathlib import Path

from syncbridge.messages import MessageType
from syncbridge.protocol import TRANSITIONS, State

BEGIN = "<!-- diagram of states: python -m syncbridge_server.protocol_docs docs/protocol.md -->\n"
END = "<!-- end of the diagram -->\n"
OUTCOMES = ((State.JOINING, State.READY, "AUTH_SUCCESS sent"),)
"""Steps that a connection takes by an answer and not by a message of its own."""


def diagram() -> str:
    """The states as a Mermaid diagram, in a code block."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.NEW.name}"]
    for state, row in TRANSITIONS.items():
        for following in State:
            kinds = [name_of(kind) for kind, after in row.items() if after is following]
            if kinds:
                lines.append(f"    {state.name} --> {following.name}: {', '.join(kinds)}")
    lines += [f"    {a.name} --> {b.name}: {text}" for a, b, text in OUTCOMES]
    lines += [f"    {state.name} --> [*]" for state in TRANSITIONS if state is not State.CLOSED]
    return "\n".join([*lines, "```"]) + "\n"


def name_of(kind: int | str) -> str:
    """How a message type is called in the document."""
    return MessageType(kind).name if isinstance(kind, int) else kind


def renewed(text: str) -> str:
    """A document with the diagram of now. Raises ValueError when its marks are missing."""
    start = text.index(BEGIN) + len(BEGIN)
    return text[:start] + diagram() + text[text.index(END, start) :]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text("utf-8")), "utf-8")
