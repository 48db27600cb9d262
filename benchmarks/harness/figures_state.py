"""The figures of the session state service, h to m, in the order of the report."""

from harness.differences import KERNEL, PARSER
from harness.durable import STATES
from harness.figure import Figure
from harness.load import Size
from harness.servers import GO_REDIS, SYNCBRIDGE
from harness.wire import KINDS, WHOLE

WIRE_NOTE = "One state and one change; both frames with their headers, without those of TCP."
BURST_NOTE = (
    "Bursts of five updates a session; one node, so no write is ever repeated. The peer keeps a "
    "state as one document, as is usual; in hashes it would do less."
)
CPU_NOTE = "CPU of the server; Redis works for both, more for the one that sends it more."


def state_figures(size: Size) -> list[Figure]:
    """All of them."""
    return [
        *_request_figures(size),
        *(figure for keys in STATES for figure in _durable_figures(size, keys)),
        *map(_wire_figure, KINDS),
        Figure(
            "l",
            "Which keys of two states of 200 keys, 17 KB, differ",
            "/s",
            "diffs_per_s",
            KERNEL,
            PARSER,
            8.0,
            caveat="The kernel keeps one of the states between calls, a parser reads both. A state "
            "that is looked at once gains only what the table of the kernel shows for `load`.",
        ),
        *_resume_figures(size),
    ]


def _request_figures(size: Size) -> list[Figure]:
    names = {
        "handoff": (
            "h",
            "Handoff over REST, POST and the target's GET",
            100.0,
            "State of 200 keys, 17 KB. The source is connected and is released in the same step. "
            "Two requests one after the other, without a network between them.",
        ),
        "conflict": (
            "i",
            "POST of a conflict, strategy merge, 17 KB",
            50.0,
            "Each has one key that both sides changed and three of each side alone. The session "
            "has been used before, so its state is in the server's memory.",
        ),
    }
    return [
        figure
        for name, (key, title, limit, note) in names.items()
        for figure in (
            Figure(
                key,
                f"{title}, p99 with {size.connections:,} connections open",
                "ms",
                f"{name}_p99_ms",
                SYNCBRIDGE,
                "",
                limit,
                True,
                note,
            ),
            Figure(
                key,
                f"The same, {size.rates[0]:,}/s updates of other sessions meanwhile",
                "ms",
                f"busy_{name}_p99_ms",
                SYNCBRIDGE,
            ),
        )
    ]


def _durable_figures(size: Size, keys: int) -> list[Figure]:
    title = f"Durable updates, {size.sessions:,} sessions of two devices, state of {keys} keys"
    return [
        Figure(
            "j",
            f"{title}: until the other device has them",
            "/s",
            f"durable_{keys}_per_s",
            SYNCBRIDGE,
            GO_REDIS,
            1.5,
            caveat=BURST_NOTE if keys == STATES[0] else "",
        ),
        Figure(
            "j",
            f"{title}: per second of server CPU",
            "/s",
            f"durable_{keys}_per_cpu_s",
            SYNCBRIDGE,
            GO_REDIS,
            1.5,
            caveat=CPU_NOTE if keys == STATES[0] else "",
        ),
    ]


def _wire_figure(kind: str) -> Figure:
    protobuf, deflate = KINDS[kind]
    name = "Protobuf" if protobuf else "JSON"
    how = ", permessage-deflate" if deflate else ""
    return Figure(
        "k",
        f"{name}{how}: frame of a change of three keys beside that of the whole state",
        "B",
        f"{kind}_frame_bytes",
        SYNCBRIDGE,
        WHOLE,
        0.05,
        True,
        "" if protobuf or deflate else WIRE_NOTE,
    )


def _resume_figures(size: Size) -> list[Figure]:
    return [
        Figure(
            "m",
            "Devices that have converged on another node after theirs was killed",
            "",
            "resumed",
            SYNCBRIDGE,
            "",
            size.resumed,
            caveat="The clients come back at once and know where; real ones wait, and find out.",
        ),
        Figure(
            "m", "From the kill until the last of them has it", "s", "resume_seconds", SYNCBRIDGE
        ),
        Figure("m", "Bytes received for each, deflate off", "B", "resume_bytes", SYNCBRIDGE),
        Figure("m", "CPU of the node for each", "µs", "resume_cpu_us", SYNCBRIDGE),
        Figure("m", "Redis commands meanwhile", "/s", "resume_redis_commands_per_s", SYNCBRIDGE),
        Figure("m", "CPU of Redis meanwhile, 1: a core", "", "resume_redis_cpu_share", SYNCBRIDGE),
    ]
