"""Log events have one style: a line names its event in snake_case, and its details are fields."""

import ast
import re

from support.source_tree import text, with_suffix

LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
EVENT = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


def is_writer(node: ast.AST) -> bool:
    """Whether it is `log.info` or its like, on `log`, `_log` or what `get_logger` returns."""
    if not isinstance(node, ast.Attribute) or node.attr not in LEVELS:
        return False
    logger = node.value
    if isinstance(logger, ast.Call):
        return getattr(logger.func, "id", getattr(logger.func, "attr", "")) == "get_logger"
    return getattr(logger, "id", "") in ("log", "_log")


def event_at(call: ast.Call) -> int | None:
    """Which argument of a call is the event of a log line; None for calls that write none."""
    if is_writer(call.func):
        return int(getattr(call.func, "attr", "") == "log")
    return 2 if getattr(call.func, "id", "") == "Frequent" else None


def violations(source: str) -> list[tuple[int, str]]:
    """Lines whose event is no snake_case literal, and writers that are not called where they stand:
    nobody finds the event of those."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    called = {id(call.func) for call in calls}
    found = [
        (node.lineno, "not called")
        for node in nodes
        if isinstance(node, ast.Attribute) and is_writer(node) and id(node) not in called
    ]
    for call in calls:
        position = event_at(call)
        if position is not None:
            argument = call.args[position]
            branches = [argument]
            if isinstance(argument, ast.IfExp):
                branches = [argument.body, argument.orelse]
            for node in branches:
                event = getattr(node, "value", None)
                if not isinstance(event, str) or not EVENT.fullmatch(event):
                    found.append((call.lineno, str(event)))
    return found


def test_violations_are_found() -> None:
    """Sentences, texts made at run time and aliases are found; events in snake_case are not."""
    source = """
log.info("node_dead", node=name)
_log.warning("Node is dead")
get_logger("APP").error(f"dead_{name}")
write = log.error
log.log(30, "node_dead")
Frequent("HTTP", "finish", "Request answered")
"""

    found = violations(source)

    assert [3, 4, 5, 7] == sorted(line for line, _ in found)


def test_log_events_are_snake_case() -> None:
    """Every log line of the server and the tools names its event in snake_case."""
    paths = [p for p in with_suffix(".py") if p.parts[0] in ("server", "pysrc", "tools")]
    found = {str(p): violations(text(p)) for p in paths if p.name != "log.py"}

    assert len(paths) > 100
    assert {} == {path: lines for path, lines in found.items() if lines}
