"""A figure: a number of one server beside a baseline, and what it does not show."""

from typing import NamedTuple


class Figure(NamedTuple):
    """One line of the results.

    Args:
        key: the letter under which it is known. title, unit: for people.
        metric: name in the samples. subject: the server in question.
        baseline: the server beside it, or empty for a figure with a limit of its own.
        target: bound of the ratio, or of the value when there is no baseline; None for none.
        at_most: the target is an upper bound.
        caveat: what the number does not show.
    """

    key: str
    title: str
    unit: str
    metric: str
    subject: str
    baseline: str = ""
    target: float | None = None
    at_most: bool = False
    caveat: str = ""
