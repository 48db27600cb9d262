"""A session's life as a replay has it: what each version changed, and any key at any version."""

from bisect import bisect_right
from collections import defaultdict
from typing import Any

from support.history import model
from support.history.records import ABSENT, State


class Timeline:
    """The session as the replay has it: the effect of each version, the values of each key."""

    def __init__(self) -> None:
        self.effects: list[State] = [{}]
        self._at: dict[str, list[int]] = defaultdict(list)
        self._values: dict[str, list[Any]] = defaultdict(list)

    @property
    def version(self) -> int:
        return len(self.effects) - 1

    def append(self, effect: State) -> None:
        """The next version."""
        self.effects.append(effect)
        for key, value in effect.items():
            self._at[key].append(self.version)
            self._values[key].append(value)

    def get(self, key: str, version: int) -> Any:
        """A key's value at a version, or ABSENT."""
        index = bisect_right(self._at[key], version) if key in self._at else 0
        return self._values[key][index - 1] if index else ABSENT

    def changed_at(self, key: str, version: int) -> int:
        """The version that changed a key last, up to a version; 0 for none."""
        index = bisect_right(self._at[key], version) if key in self._at else 0
        return self._at[key][index - 1] if index else 0

    def state(self, version: int) -> State:
        """All keys at a version."""
        values = {key: self.get(key, version) for key in self._at}
        return {key: value for key, value in values.items() if value is not ABSENT}

    def effect(self, payload: dict[str, Any], version: int) -> State:
        """What an update would do right after a version; raises model.Refusal."""
        return model.effect(
            payload, lambda key: self.get(key, version), lambda key: self.changed_at(key, version)
        )
