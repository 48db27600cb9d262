"""The one generator of benchmark documents: session states that look like an app's.

A state is a flat object whose keys are paths (`cart.item.17`, `form.address.3`) and whose values
are a fixed mix: 35 % short strings, 20 % numbers, 10 % booleans and null, 25 % small objects, 10 %
short arrays; one string in eight holds a non-ASCII letter, one in sixteen an escape. Everything
follows from the seed, so two runs measure the same bytes.
"""

import json
import random
from typing import Any, NamedTuple

WORDS = [
    "cart",
    "form",
    "editor",
    "scroll",
    "player",
    "draft",
    "filter",
    "theme",
    "locale",
    "profile",
    "address",
    "checkout",
    "invoice",
    "panel",
    "search",
    "result",
    "cursor",
    "layout",
    "message",
    "thread",
    "channel",
    "volume",
    "quality",
]
LETTERS = ("é", "ß", "ł", "日", "ж")


class Case(NamedTuple):
    """One benchmark size: a state, a newer state, and the changes between."""

    name: str
    state: bytes
    target: bytes
    changes: list[bytes]  # flat [key, value, ...]


def text(rng: random.Random, words: int) -> str:
    body = " ".join(rng.choice(WORDS) for _ in range(words))
    if rng.random() < 1 / 8:
        body += rng.choice(LETTERS)
    if rng.random() < 1 / 16:
        body += '\n"quoted"'
    return body


def number(rng: random.Random) -> int | float:
    if rng.random() < 0.5:
        return rng.randrange(1_000_000)
    return round(rng.uniform(-1000, 1000), 3)


def value(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.35:
        return text(rng, rng.randint(2, 14))
    if kind < 0.55:
        return number(rng)
    if kind < 0.65:
        return rng.choice((True, False, None))
    if kind < 0.90:
        return {
            "id": rng.randrange(100_000),
            "name": text(rng, 4),
            "price": number(rng),
            "seen": True,
            "at": rng.randrange(1_700_000_000, 1_800_000_000),
            "tags": [rng.choice(WORDS) for _ in range(rng.randint(1, 6))],
        }
    return [number(rng) for _ in range(rng.randint(2, 16))]


def state(keys: int, seed: int = 1) -> dict[str, Any]:
    """A state of that many keys; about 80 bytes a key."""
    rng = random.Random(seed)
    return {
        f"{rng.choice(WORDS)}.{rng.choice(WORDS)}.{number}": value(rng) for number in range(keys)
    }


def dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def case(keys: int, changed: int = 3, seed: int = 1) -> Case:
    """A state, and the same with a number, a string and an object replaced."""
    rng = random.Random(seed + 1)
    before = state(keys, seed)
    picked = rng.sample(sorted(before), min(changed, keys))
    news = [number(rng), text(rng, 5), {"id": rng.randrange(9), "name": text(rng, 3)}]
    changes = {key: news[i % len(news)] for i, key in enumerate(picked)}
    flat = [part for key, item in changes.items() for part in (key.encode(), dump(item))]
    old, new = dump(before), dump(before | changes)
    return Case(f"{keys} keys, {len(old) / 1024:.1f} KiB", old, new, flat)
