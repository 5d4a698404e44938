"""Which recalls a store is to be asked for next, and which are to be looked at. Pure.

A tape is mounted once and read from its beginning: recalls go by volume, then position. One bad tape must not hold up
the rest: no volume takes all the room for outstanding recalls, and those of which more fails than comes are sick, and
together take up a share of it at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stager.models import RecallState

QUIET_S = 1.0  # nothing new for so long: what is wanted together is known, and can be put in order...
GATHER_S = 10.0  # ...but none waits longer than this for those that may follow
FIRST_LOOK_S = 0.5  # after which a recall is looked at first; later ever more seldom...
LOOK_SHARE = 0.05  # ...each time after this share of the time since it was asked for...
LAST_LOOK_S = 30.0  # ...or this
FIRST_REFUSED_S = 30.0  # after which a request that was refused is made again; twice as long each time...
LAST_REFUSED_S = 3600.0  # ...up to this
TRICKLE_S = 2.0  # between two requests to a store that refuses more than it takes: they go one by one
MOUNTED_S = 3600.0  # a volume that is being read goes before others that have waited up to so much longer


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one store: how many recalls may be outstanding, and the seconds after which one is asked for again."""

    most: int = 64
    again_s: float = 3600.0

    @property
    def share(self) -> int:
        """Of the outstanding recalls: as many as sick volumes may have, and as one volume must leave to the others."""
        return max(1, self.most // 4)


@dataclass(frozen=True, slots=True)
class Recall:
    """The recall of one file of a store. Times are Unix seconds; `not_before` is when it may be asked for, or once it
    is asked for, when it is to be looked at. `oldest` and `newest`: since when recalls of its volume are wanted."""

    id: int
    path: str
    state: str
    volume: str | None
    position: int | None
    asks: int
    wanted_at: float
    asked_at: float | None
    not_before: float
    priority: int | None = 0  # of a manifest that waits for it; None where none does
    oldest: float = 0.0
    newest: float = 0.0

    @property
    def tape(self) -> str:
        """What fails together: the volume; the file itself where the store does not tell."""
        return f"volume {self.volume}" if self.volume else f"file {self.path}"


# ------------------------------------------------------------------------------------------- looking


def look_after_s(asked_at: float, now: float) -> float:
    """How long after a look at a recall the next one is due."""
    return min(LAST_LOOK_S, max(FIRST_LOOK_S, LOOK_SHARE * (now - asked_at)))


def to_look_at(rows: Iterable[Recall], now: float) -> list[Recall]:
    """The recalls to look at now: those that are due, and with them those that soon are, as one look costs a store
    little more than many. None where nothing is due."""
    asked = [row for row in rows if row.state == RecallState.ASKED]
    if not any(row.not_before <= now for row in asked):
        return []
    return [row for row in asked if row.not_before <= now + look_after_s(row.asked_at or now, now) / 2]


def refused_s(asks: int) -> float:
    """How long to wait after a request was refused, the so-manyth for that file."""
    return min(LAST_REFUSED_S, FIRST_REFUSED_S * 2.0 ** min(max(asks, 1) - 1, 30))


# ------------------------------------------------------------------------------------------- choosing


def next_up(rows: Sequence[Recall], limits: Limits, now: float) -> list[Recall]:
    """The recalls to ask for now, in order, where their destinations have room: those that are asked for and late, and
    as many new ones as may be outstanding."""
    known = [row for row in rows if row.state != RecallState.WANTED]
    asked = [row for row in known if row.state == RecallState.ASKED]
    late = [row for row in asked if is_late(row, limits, now)]
    due = [row for row in rows if _is_due(row, now)]
    if is_gathering(due, now):
        due = [row for row in due if row.asks]
    sick = sick_tapes(known, limits, now)
    slots = _Slots(asked, sick, limits)
    chosen = [row for row in _queue(in_order(due, asked), sick, slots) if slots.take(row)]
    refused_at = refuses_most(known)
    if refused_at is not None:
        first = [row for row in chosen if row.tape not in sick] or chosen
        chosen = first[:1] if now - refused_at >= TRICKLE_S else []
    return in_order([*late, *chosen], asked)


def may_ask(known: Sequence[Recall], limits: Limits, now: float) -> bool:
    """Whether anything new could be asked for, whatever is wanted."""
    asked = [row for row in known if row.state == RecallState.ASKED]
    slots = _Slots(asked, sick_tapes(known, limits, now), limits)
    return slots.free_for_well or slots.free_for_sick


def _is_due(row: Recall, now: float) -> bool:
    return row.state in (RecallState.WANTED, RecallState.REFUSED) and row.not_before <= now


def is_late(row: Recall, limits: Limits, now: float) -> bool:
    """Whether a recall that was asked for should be here by now."""
    return row.state == RecallState.ASKED and row.asked_at is not None and now - row.asked_at >= limits.again_s


def is_gathering(due: Iterable[Recall], now: float) -> bool:
    """Whether recalls are being added just now, so that those that belong together are not all known."""
    fresh = [row for row in due if row.state == RecallState.WANTED and not row.asks]
    return (
        bool(fresh)
        and max(row.newest for row in fresh) > now - QUIET_S
        and min(row.oldest for row in fresh) > now - GATHER_S
    )


def refuses_most(known: Iterable[Recall]) -> float | None:
    """When a store last refused a request, where it refuses those of more tapes than it takes any of: were it asked for
    all at once, it would be asked without end."""
    known = list(known)
    refused = [row for row in known if row.state == RecallState.REFUSED]
    taken = {row.tape for row in known if row.state != RecallState.REFUSED}
    if len({row.tape for row in refused} - taken) <= len(taken):
        return None
    return max(row.asked_at or 0.0 for row in refused)


def is_bad(row: Recall, limits: Limits, now: float) -> bool:
    """Whether a recall was refused, or did not come in time."""
    asked_again = row.state == RecallState.ASKED and row.asks > 1
    return row.state == RecallState.REFUSED or asked_again or is_late(row, limits, now)


def sick_tapes(known: Iterable[Recall], limits: Limits, now: float) -> set[str]:
    """The tapes of which at least half of what was asked for was refused, or did not come."""
    asked: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for row in known:
        asked[row.tape] += 1
        bad[row.tape] += is_bad(row, limits, now)
    return {tape for tape, count in bad.items() if count and 2 * count >= asked[tape]}


def in_order(rows: Iterable[Recall], asked: Iterable[Recall]) -> list[Recall]:
    """By volume, and then by position: the volume of the most urgent manifest first, of equals the one that is being
    read already, else the one that has waited longest."""
    rows = list(rows)
    read = {row.volume for row in asked if row.volume}
    urgent: dict[str | None, int] = {}
    since: dict[str | None, float] = {}
    for row in rows:
        urgent[row.volume] = max(urgent.get(row.volume, row.priority or 0), row.priority or 0)
        since[row.volume] = min(since.get(row.volume, row.wanted_at), row.oldest or row.wanted_at)

    def rank(row: Recall) -> tuple[int, float, str, int, bool, int, str]:
        began = since[row.volume] - (MOUNTED_S if row.volume in read else 0.0)
        place = (-(row.priority or 0), row.position is None, row.position or 0, row.path)
        return (-urgent[row.volume], began, row.volume or "", *place)

    return sorted(rows, key=rank)


class _Slots:
    """How many recalls more may be outstanding, and of which tapes."""

    def __init__(self, asked: Sequence[Recall], sick: set[str], limits: Limits) -> None:
        self._of_sick = sick
        self._limits = limits
        self._taken = Counter(row.tape for row in asked)
        self.sick = sum(count for tape, count in self._taken.items() if tape in sick)
        self.well = len(asked) - self.sick

    @property
    def free_for_well(self) -> bool:
        others = min(self.sick, self._limits.share, self._limits.most - 1)
        return self.well + others < self._limits.most

    @property
    def free_for_sick(self) -> bool:
        return self.sick < self._limits.share and self.well + self.sick < self._limits.most

    def take(self, row: Recall) -> bool:
        """Whether there was a slot for it, which it has now."""
        sick = row.tape in self._of_sick
        of_one = max(1, self._limits.most - self._limits.share)
        free = self.free_for_sick if sick else self.free_for_well and self._taken[row.tape] < of_one
        if free:
            self._taken[row.tape] += 1
            self.sick += sick
            self.well += not sick
        return free


def _queue(ordered: Sequence[Recall], sick: set[str], slots: _Slots) -> list[Recall]:
    """What is sick comes last; but one of it is tried whatever else there is to do, or it would never be well again."""
    bad = [row for row in ordered if row.tape in sick]
    first = bad[:1] if not slots.sick else []
    return [*first, *(row for row in ordered if row.tape not in sick), *bad[len(first) :]]


def lots(chosen: Iterable[Recall]) -> list[list[Recall]]:
    """What is asked for together. A file that was refused before goes alone: it may be why others were refused too."""
    chosen = list(chosen)
    together = [row for row in chosen if row.state != RecallState.REFUSED]
    alone = [[row] for row in chosen if row.state == RecallState.REFUSED]
    return [*([together] if together else []), *alone]


# ----------------------------------------------------------------------------------------------- room


@dataclass(frozen=True, slots=True)
class Fitting:
    """What may be asked for, in order, what must wait for room at a destination, with the names of those, and the
    destinations at which nothing that comes later has room either."""

    chosen: list[Recall]
    waiting: list[tuple[Recall, list[str]]]
    full: set[str]


Needs = Mapping[int, Mapping[str, int]]  # by the id of a recall: bytes that wait for it, by destination


def fitting(
    chosen: Iterable[Recall],
    rows: Sequence[Recall],
    needs: Needs,
    rooms: Mapping[str, int],
    limits: Limits,
    now: float,
) -> Fitting:
    """Of what is to be asked for, that for which a destination has room (`rooms`: bytes; one that is not in it cannot
    be used), counting what was asked for already and was not brought yet. A destination that nothing is on its way to
    gets one however little room it has.

    What is sick takes up no room: it would hold up the rest.
    """
    known = [row for row in rows if row.state != RecallState.WANTED]
    sick = sick_tapes(known, limits, now)
    space = _Space(rooms, limits.most)
    for row in known:
        if row.state == RecallState.ONLINE or (row.state == RecallState.ASKED and row.tape not in sick):
            space.count(needs.get(row.id, {}), row.state == RecallState.ONLINE)
    found = Fitting([], [], space.full)
    for row in chosen:
        asked = row.state == RecallState.ASKED
        full = [] if asked else space.lacks(needs.get(row.id, {}), passes=row.tape in sick)
        if full:
            found.waiting.append((row, full))
            continue
        found.chosen.append(row)
        if not asked and row.tape not in sick:
            space.count(needs.get(row.id, {}), False)
    return found


class _Space:
    """The room at the destinations."""

    def __init__(self, rooms: Mapping[str, int], most: int) -> None:
        self._left = dict(rooms)
        self._most = most
        self._coming: set[str] = set()
        self._online: Counter[str] = Counter()
        self.full: set[str] = set()

    def count(self, needs: Mapping[str, int], online: bool) -> None:
        """Something is on its way, or is online and waits to be brought."""
        for name, size in needs.items():
            self._coming.add(name)
            self._online[name] += online
            if name in self._left:
                self._left[name] -= size

    def lacks(self, needs: Mapping[str, int], *, passes: bool) -> list[str]:
        """The destinations that have no room; empty where one of them has. Nothing that comes later in order goes
        before what waits for room at one, unless that `passes` for sick."""
        full = [name for name, size in needs.items() if not self._fits(name, size)]
        if not passes:
            self.full.update(full)
        return full if len(full) == len(needs) else []

    def _fits(self, name: str, size: int) -> bool:
        if name not in self._left or name in self.full or self._online[name] >= self._most:
            return False
        return size <= self._left[name] or name not in self._coming
