"""What was measured, as plain data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.measuring import Taken


class Goal(NamedTuple):
    """What DESIGN.md wants of a figure's median: no more than `limit`, or no less."""

    limit: float
    at_most: bool = True


@dataclass(frozen=True)
class Figure:
    """One thing measured, a value for each run. `unit`: s, files/s, MB, % or x (times as much as another)."""

    subject: str
    what: str
    unit: str
    values: tuple[float, ...]
    cpu_s: tuple[float, ...] = ()
    goal: Goal | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median is as the goal wants it; None where there is no goal."""
        if self.goal is None:
            return None
        return self.median <= self.goal.limit if self.goal.at_most else self.median >= self.goal.limit

    def as_dict(self) -> dict[str, Any]:
        goal = {"limit": self.goal.limit, "at_most": self.goal.at_most} if self.goal else None
        plain = {"subject": self.subject, "what": self.what, "unit": self.unit, "values": list(self.values)}
        return {**plain, "median": self.median, "cpu_s": list(self.cpu_s), "goal": goal, "met": self.met}


def time_of(subject: str, what: str, taken: Sequence[Taken], goal: Goal | None = None) -> Figure:
    """Seconds on the clock, with the CPU seconds beside them."""
    seconds = tuple(one.seconds for one in taken)
    return Figure(subject, what, "s", seconds, tuple(one.cpu_s for one in taken), goal)


def ratio(subject: str, what: str, taken: Sequence[Taken], to: Sequence[Taken], goal: Goal | None = None) -> Figure:
    """How many times as long: run by run, each against the one of the same turn."""
    values = tuple(one.seconds / other.seconds for one, other in zip(taken, to, strict=True))
    return Figure(subject, what, "x", values, goal=goal)
