"""Ways in turn, as `measuring.side_by_side`, for work of which something can go wrong: every run is checked, and one
that fails is told of and takes no further part. Slow ways may run once, or on a part of the files.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks.idle import TICKS
from benchmarks.measuring import Taken, timed
from benchmarks.sets import Work

Step = Callable[[Work], object]
BUSY = (0, 1, 2, 5, 6)  # of the numbers in /proc/stat: all that is neither idle, waiting nor another machine's


def no_step(_: Work) -> None:
    """Nothing to do."""


class Measured(NamedTuple):
    """One run: its own time, and the CPU seconds that the whole machine was busy meanwhile."""

    taken: Taken
    busy_s: float

    def further(self, first: Measured, files: int, whole: int) -> Measured:
        """What all files would take, by a run of `files` (self) and one of a single file (first).

        What is not for files, such as the connecting, is in both and not multiplied.
        """

        def reckoned(one: float, some: float) -> float:
            return one + max(0.0, some - one) * (whole - 1) / (files - 1)

        seconds = reckoned(first.taken.seconds, self.taken.seconds)
        cpu_s = reckoned(first.taken.cpu_s, self.taken.cpu_s)
        return Measured(Taken(seconds, cpu_s), reckoned(first.busy_s, self.busy_s))


@dataclass(frozen=True)
class Contender:
    """A way, with what it needs before each run and proves after it, neither of which is counted."""

    name: str
    run: Step
    prepare: Step = no_step
    check: Step = no_step
    runs: int | None = None  # no more than so many
    files: int | None = None  # on so many of the files alone; the rest is reckoned

    def note(self, work: Work, runs: int) -> str:
        """What is to be said of a way that did not do what the others do."""
        if self.files is not None and self.files < len(work.names):
            return f" ({self.files} files measured once, the rest reckoned)"
        return " (one run)" if self.runs == 1 and runs > 1 else ""


@dataclass
class Rounds:
    """The runs of all ways of one work, and what went wrong."""

    work: Work
    subject: str
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def measure(self, contenders: Iterable[Contender], runs: int) -> None:
        """So many turns; in each, one run of every way that still takes part in it."""
        going = list(contenders)
        for turn in range(runs):
            for one in [one for one in going if one.runs is None or turn < one.runs]:
                try:
                    measured = self._run(one)
                except Exception as error:  # noqa: BLE001  of whatever kind: the hour that the others take is not to be lost
                    going.remove(one)
                    self.problems.append(f"{self.subject}, {self.work.title}: {one.name}: {in_words(error)}")
                    _say(self.problems[-1])
                    continue
                self.runs.setdefault(one.name, []).append(measured)
                _say(f"  {self.work.title}: {one.name}{one.note(self.work, runs)}: {measured.taken.seconds:.2f} s")

    def _run(self, one: Contender) -> Measured:
        whole = len(self.work.names)
        if one.files is None or not 1 < one.files < whole:
            return _once(one, self.work)
        first, some = (_once(one, self.work.part(count)) for count in (1, one.files))
        return some.further(first, one.files, whole)


def _once(one: Contender, work: Work) -> Measured:
    work.prepare()
    one.prepare(work)
    busy = busy_s()
    taken = timed(lambda: one.run(work))
    busy = busy_s() - busy
    work.check()
    one.check(work)
    return Measured(taken, busy)


def busy_s() -> float:
    """CPU seconds that this machine has worked, for whomever, since it was started; 0 where it does not say."""
    try:
        numbers = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    return sum(int(numbers[place]) for place in BUSY) / TICKS


def in_words(error: BaseException) -> str:
    """The error, with the end of what a program said."""
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or b"").decode(errors="replace").strip()
        return (
            f"{Path(str(error.cmd[0])).name} ended with status {error.returncode}: {said[-1000:] or 'it says nothing'}"
        )
    return f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_step(one: Sequence[Measured], other: Sequence[Measured]) -> tuple[list[Taken], list[Taken]]:
    """The runs of the turns in which both ran: they are the first ones of each."""
    count = min(len(one), len(other))
    return [run.taken for run in one[:count]], [run.taken for run in other[:count]]
