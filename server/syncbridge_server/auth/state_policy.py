"""The state policy's file: read at the start, and again on SIGHUP.

TOML, or JSON when its name ends in `.json`. An unusable file prevents the start; on SIGHUP it is
only logged.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jsonschema_rs
import msgspec
from msgspec import Meta

from syncbridge.policy import Current, Policy, Rule, Writer
from syncbridge.resolve import Strategy
from syncbridge_server.configuration.documents import read_document, refused
from syncbridge_server.log import get_logger
from syncbridge_server.settings import ConfigError

MOST_RULES = 1_000
_log = get_logger("POLICY")

Pattern = Annotated[str, Meta(min_length=1, max_length=256)]


class RuleEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One rule of the file; see `syncbridge.policy.Rule`."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    keys: Annotated[tuple[Pattern, ...], Meta(min_length=1)]
    write: Writer = "user"
    create: bool = True
    max_bytes: Annotated[int, Meta(ge=1)] | None = None
    strategy: Strategy | None = None
    value_schema: Any = msgspec.field(default=None, name="schema")


class PolicyFile(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    rule: Annotated[list[RuleEntry], Meta(max_length=MOST_RULES)]


def load_policy(path: str) -> Policy:
    """The policy of a file. Raises ConfigError, one line."""
    where = f"SYNCBRIDGE_STATE_POLICY: {path}"
    entries = read_document(path, where, PolicyFile).rule
    try:
        return Policy(_rule(entry) for entry in entries)
    except (ValueError, RecursionError) as error:  # of the patterns and of the schema
        raise refused(where, error) from None


def _rule(entry: RuleEntry) -> Rule:
    return Rule(
        entry.name,
        entry.keys,
        entry.write,
        entry.max_bytes or 0,
        entry.create,
        entry.strategy,
        _checker(entry) if entry.value_schema is not None else None,
    )


def _checker(entry: RuleEntry) -> Callable[[bytes], str]:
    """Checks values against a JSON Schema without fetching anything."""
    try:
        validator = jsonschema_rs.validator_for(
            entry.value_schema,
            offline=True,
            mask="the value",
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except ValueError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"rule {entry.name!r}: schema: {first}") from None

    def invalid(value: bytes) -> str:
        problem = next(validator.iter_errors(msgspec.json.decode(value)), None)
        if problem is None:
            return ""
        at = "".join(f"/{step}" for step in problem.instance_path)
        return f"value{at}: {problem.message}"[:300]

    return invalid


class StatePolicy(Current):
    """The policy of the configured file. Raises ConfigError; `path` empty: none."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self.policy = load_policy(path) if path else None

    def reload(self) -> None:
        """Read the file again; on failure the policy does not change."""
        if not self._path:
            _log.info("state_policy_not_configured", hint="set SYNCBRIDGE_STATE_POLICY")
            return
        try:
            self.policy = load_policy(self._path)
        except ConfigError as error:
            _log.error("state_policy_reload_failed", reason=str(error))
            return
        _log.info("state_policy_loaded", rules=len(self.policy.rules))
