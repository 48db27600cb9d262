"""What devices saw of unacknowledged writes that a failover lost.

A store may show a commit before enough replicas have it. When it is lost then, devices are given a
whole state in place of it, and another commit may have its version. Lineages decide which history
is the true one: a place is confirmed when the history ends there, when a write was acknowledged
there, or when a step leads from it to a confirmed place.
"""

from collections import defaultdict
from collections.abc import Iterator

from support.history.records import History, Place


def forget_lost(history: History) -> int:
    """Take out the steps of a lost history that a whole state has replaced; returns their number.

    What is not confirmed counts as lost: on a store that loses nothing the number must be 0. A
    step that nothing has replaced stays, for the checker to complain. O(steps).
    """
    known, forgotten = confirmed(history), 0
    for stream in history.streams:
        last = max((at for at, step in enumerate(stream.steps) if step.full is not None), default=0)
        kept = []
        for at, step in enumerate(stream.steps):
            place = step.version, step.lineage
            if at >= last or not step.lineage or place in known:
                kept.append(step)
            else:
                history.lost.add(place)
        forgotten += len(stream.steps) - len(kept)
        stream.steps = kept
    return forgotten


def confirmed(history: History) -> set[Place]:
    """The places of the true history, backwards from its end and from all acknowledgements.

    An acknowledgement promises that its write is not lost. If it is, two places of one version are
    confirmed, and the checker sees two writers.
    """
    before: dict[Place, set[Place]] = defaultdict(set)
    for step in (step for stream in history.streams for step in stream.steps):
        if step.full is None and step.prev_lineage:
            before[step.version, step.lineage].add((step.prev, step.prev_lineage))
    found: set[Place] = set()
    ahead = [(history.final_version, history.final_lineage), *_acknowledged(history)]
    while ahead:
        place = ahead.pop()
        if place not in found:
            found.add(place)
            ahead.extend(before[place])
    return found


def _acknowledged(history: History) -> Iterator[Place]:
    """The places at which writes were acknowledged."""
    for call in history.calls:
        for answer in call.answers:
            if answer.committed and answer.lineage:
                yield answer.version, answer.lineage
