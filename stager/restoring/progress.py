"""How far a restore has come, while it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console

from stager.durations import duration

WINDOW_S = 120.0  # over which the rate is taken that tells when the end is
LINE_S = 30.0  # between two lines where there is no terminal
BAR_COLUMNS = 14  # of the bar on a terminal: of 80 it leaves half to what is said


class Pace:
    """How quickly a number grows, over the last while. Times are of a monotonic clock."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, now: float, count: int) -> None:
        """The number was so large then."""
        self._seen.append((now, count))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._window_s:
            self._seen.popleft()

    @property
    def per_s(self) -> float | None:
        """How much it grew a second; None before it has grown."""
        if len(self._seen) < 2:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin) if last > first and end > begin else None

    def left_s(self, left: int) -> float | None:
        """How long so much more will take; None where that is not known."""
        rate = self.per_s
        return 0.0 if left <= 0 else left / rate if rate else None


class Progress(Protocol):
    """What is told of how far it has come."""

    def tell(self, what: str, percent: float, said: str, *, seconds: float | None = None) -> None:
        """`what` is at so many percent; `said` has more, `seconds` is how long the rest will take."""
        ...


class Silent:
    """Tells nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def tell(self, what: str, percent: float, said: str, *, seconds: float | None = None) -> None:
        """Nothing is told."""


class Lines:
    """A line at the beginning of each thing, and every so many seconds; on standard error, as results are on standard
    output."""

    def __init__(self, console: Console, every_s: float = LINE_S) -> None:
        self._console = console
        self._every_s = every_s
        self._last = -1e9
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Each line is whole."""

    def tell(self, what: str, percent: float, said: str, *, seconds: float | None = None) -> None:
        now = time.monotonic()
        if what == self._what and now - self._last < self._every_s:
            return
        self._last, self._what = now, what
        self._console.print(f"{what}: {percent:.1f} %, {said}{_eta(seconds)}", markup=False, soft_wrap=True)


class Bar:
    """A bar that is drawn anew, and gone at the end. Where the terminal is too narrow for all that is said, the percent
    and the time that is left are still told."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Drawn
        from rich.table import Column

        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_COLUMNS),
            TextColumn("{task.fields[far]}", markup=False),
            TextColumn("{task.fields[said]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        ]
        self._drawn = Drawn(*columns, console=console, transient=True, expand=True)
        self._task = self._drawn.add_task("", total=100.0, far="", said="")

    def __enter__(self) -> Self:
        self._drawn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drawn.stop()

    def tell(self, what: str, percent: float, said: str, *, seconds: float | None = None) -> None:
        line: dict[str, Any] = {"far": f"{percent:.1f} %{_eta(seconds)},", "said": said}
        self._drawn.update(self._task, description=what[:40], completed=percent, **line)


def shown_on(console: Console, *, quiet: bool) -> Silent | Lines | Bar:
    """What fits the place where it is told."""
    if quiet:
        return Silent()
    return Bar(console) if console.is_terminal else Lines(console)


def _eta(seconds: float | None) -> str:
    return "" if seconds is None else f", {duration(seconds)} left"
