"""A registry of DC3b held against its camera, and against what is proven: rows that are lacking or too many, strays,
visits and times that disagree. Pure: rows in, sentences out; `registry_rows` has where they come from."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from manifests.cameras import Camera, Sets
from manifests.clocks import SECONDS_A_DAY, moment
from manifests.errors import shown
from manifests.layouts import IdRule, expectation
from stager.completeness import holes
from stager.completeness.by_visit import HARDLY_ANY
from stager.counts import counted

SAME_S = 0.001  # times that differ by less are the same: registries keep more decimals than there is time in them
MOST_TOLD = 3  # other values of one column that are told of a visit

Key = holes.Key


class Row(NamedTuple):
    """One row of `raw`: its key within its visit, what it says of the visit, its times as they stand there."""

    key: Key
    of_visit: tuple[Any, ...]
    taiobs: Any
    exptime: Any


@dataclass(frozen=True)
class Columns:
    """What a camera's registry has: `key` tells the rows of a visit apart, `of_visit` is the same in all of them."""

    key: tuple[str, ...]
    of_visit: tuple[str, ...]
    planes: tuple[Sets, ...]  # what whole visits have of the key's ids, the usual one first
    places: tuple[str, ...] = ()  # the ids that tell where on the focal plane a file belongs
    rules: Mapping[str, IdRule] = field(default_factory=dict)
    times: tuple[float, float] = (-math.inf, math.inf)  # MJDs between which an exposure can have been

    @classmethod
    def of(cls, camera: Camera, names: Collection[str]) -> Columns:
        """Those of a camera that are among the columns of a registry."""
        key = tuple(name for name in camera.sets if name in names)
        rest = tuple(name for name in names if name in camera.ids and name not in camera.sets and name != "visit")
        planes = [camera.focal_plane(), *camera.focal_planes.values()]
        whole = [{name: plane.sets[name] for name in key} for plane in planes if plane.layout == camera.raw_layout.name]
        rule = camera.time_rule
        return cls(
            key,
            rest,
            tuple(whole),
            camera.map_rule.ids if camera.map_rule else (),
            camera.ids,
            (rule.earliest, rule.latest) if rule else (-math.inf, math.inf),
        )


@dataclass(frozen=True, slots=True)
class Audited:
    """One visit: `expected` files (of a whole visit, or those that are proven), `rows` in `raw`. `flags` say what is
    not well in a word each, the worst first; `problems` in sentences without an end."""

    visit: int
    expected: int
    rows: int
    flags: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.flags

    @property
    def state(self) -> str:
        return self.flags[0] if self.flags else "whole"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "state": self.state}


@dataclass(frozen=True, slots=True)
class Audit:
    """A registry's visits, those that are not sound first, and what is wrong with it as a whole. `against` is what it
    was held against: the datasets whose proven files it should list, nothing where it was checked by itself."""

    path: str
    camera: str
    against: tuple[str, ...]
    visits: tuple[Audited, ...]
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.problems and all(visit.sound for visit in self.visits)

    def as_dict(self) -> dict[str, Any]:
        said = {name: getattr(self, name) for name in ("path", "camera", "against", "problems", "sound")}
        return {**said, "visits": [visit.as_dict() for visit in self.visits]}


@dataclass
class Found:
    """What is being found out about a visit."""

    flags: dict[str, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, flag: str, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.flags[flag] = None
            self.problems.append(sentence)


def audit_visit(
    visit: int,
    rows: Sequence[Row],
    columns: Columns,
    raw_visit: Sequence[Mapping[str, Any]] | None,
    proven: Mapping[Key, str | None] | None = None,
    fullest: int = 0,
    named: Collection[str] | None = None,
) -> Audited:
    """What is wrong with a visit of a registry.

    `raw_visit` are its rows in the table of that name (None: there is no such table). `proven` are the files that it
    should list, each with its taiObs by its header where that is known; without, it should list a whole visit.
    `fullest` is how many rows the fullest visit has, `named` the visits that are expected, where it is known.
    """
    sets = _plane(rows, columns)
    found = Found()
    whole = _product(sets) if proven is None else len(proven)
    stray = bool(rows) and _is_stray(visit, len(rows), fullest, named, proven)
    if stray:
        found.add("stray", [f"{_rows(len(rows))}, {_why_stray(fullest, named, proven)}"])
    keys = Counter(row.key for row in rows)
    if not rows:
        are = f", and {counted(whole, 'file is', 'files are')} proven" if proven else ""
        found.add("absent", [f"no row in raw{are}"])
    elif stray:
        pass  # what it lacks is no news
    elif proven is None:
        _hold_against_camera(found, keys.keys(), sets, columns)
    else:
        _hold_against_proven(found, keys, rows, sets, columns, proven)
    twice = [key for key, count in keys.items() if count > 1]
    found.add("duplicate", holes.told(sets, twice, columns.places, "in more than one row"))
    usual = _agree(found, rows, sets, columns)
    if raw_visit is not None:
        found.add("raw_visit", _visit_table(rows, columns, raw_visit, usual))
    return Audited(visit, whole, len(rows), tuple(found.flags), tuple(found.problems))


def _plane(rows: Sequence[Row], columns: Columns) -> Sets:
    """The whole visit that has all of the rows; the usual one where none has."""
    seen = [set(values) for values in zip(*(row.key for row in rows), strict=True)]
    for sets in columns.planes:
        if all(some <= set(sets[name]) for name, some in zip(columns.key, seen, strict=False)):
            return sets
    return columns.planes[0]


def _is_stray(
    visit: int, rows: int, fullest: int, named: Collection[str] | None, proven: Mapping[Key, Any] | None
) -> bool:
    if named is not None:
        return str(visit) not in named
    return not proven if proven is not None else rows * HARDLY_ANY <= fullest


def _why_stray(fullest: int, named: Collection[str] | None, proven: Mapping[Key, Any] | None) -> str:
    if named is not None:
        return "and nobody expects this visit"
    return "and no file of it is proven" if proven is not None else f"where the fullest visit has {fullest}"


def _hold_against_camera(found: Found, keys: Set[Key], sets: Sets, columns: Columns) -> None:
    whole = set(itertools.product(*sets.values()))
    found.add("missing", holes.told(sets, whole - keys, columns.places, "without a row"))
    found.add("unknown", holes.told(sets, keys - whole, columns.places, "of no place on the focal plane"))


def _hold_against_proven(
    found: Found,
    keys: Collection[Key],
    rows: Sequence[Row],
    sets: Sets,
    columns: Columns,
    proven: Mapping[Key, str | None],
) -> None:
    """Rows without a file, files without a row, times that are not those of the headers."""
    unproven = [key for key in keys if key not in proven]
    unlisted = [key for key in proven if key not in keys]
    found.add("unproven", holes.told(sets, unproven, columns.places, "with a row and without a proven file"))
    found.add("unlisted", holes.told(sets, unlisted, columns.places, "proven and without a row"))
    other = {row.key for row in rows if (own := proven.get(row.key)) and not same_time(row.taiobs, own)}
    found.add("times", holes.told(sets, other, columns.places, "with another taiObs than in the header"))


def _agree(found: Found, rows: Sequence[Row], sets: Sets, columns: Columns) -> dict[str, Any]:
    """Whether all rows say the same of their visit; what most of them say."""
    usual: dict[str, Any] = {}
    for number, name in enumerate(columns.of_visit):
        usual[name] = _most(row.of_visit[number] for row in rows)
        other = {row.key: (row.of_visit[number], usual[name]) for row in rows if row.of_visit[number] != usual[name]}
        found.add("ids", _others(name, other, sets, columns))
        rule = columns.rules.get(name)
        if rows and rule and rule.own(usual[name]) != usual[name]:
            found.add("ids", [f"{name} is {_value(usual[name])}; expected {expectation(rule)}"])
    return usual | _agree_on_times(found, rows, sets, columns)


def _agree_on_times(found: Found, rows: Sequence[Row], sets: Sets, columns: Columns) -> dict[str, Any]:
    """The same of the times of each snap. Those of the visit are those of its first snap."""
    snaps = list(_by_snap(rows, columns))
    times = [(row, taiobs, exptime) for some, taiobs, exptime in snaps for row in some]
    late = {row.key: (row.taiobs, taiobs) for row, taiobs, _ in times if not same_time(row.taiobs, taiobs)}
    found.add("times", _others("taiObs", late, sets, columns))
    long = {row.key: (row.exptime, exptime) for row, _, exptime in times if row.exptime != exptime}
    found.add("times", _others("expTime", long, sets, columns))
    for taiobs in dict.fromkeys(taiobs for _, taiobs, _ in snaps):
        mjd = moment_of(taiobs)
        if mjd is None or not columns.times[0] <= mjd <= columns.times[1]:
            found.add("times", [f"taiObs is {_value(taiobs)}, which is no time of an exposure"])
    return {"taiObs": snaps[0][1], "expTime": snaps[0][2]} if snaps else {}


def _by_snap(rows: Sequence[Row], columns: Columns) -> Iterator[tuple[list[Row], Any, Any]]:
    """The rows of each snap, the first one's first, with the taiObs and the expTime that most of them have."""
    at = columns.key.index("snap") if "snap" in columns.key else None
    snaps: dict[Any, list[Row]] = {}
    for row in rows:
        snaps.setdefault(None if at is None else row.key[at], []).append(row)
    for snap in sorted(snaps, key=str):
        yield snaps[snap], _most(row.taiobs for row in snaps[snap]), _most(row.exptime for row in snaps[snap])


def _others(name: str, other: Mapping[Key, tuple[Any, Any]], sets: Sets, columns: Columns) -> Iterator[str]:
    """Who says something else than most, by what they say; `other` has both by the key of the row."""
    values = Counter(other.values()).most_common()
    for (value, usual), _ in values[:MOST_TOLD]:
        keys = [key for key, said in other.items() if said == (value, usual)]
        what = f"with {name} {_value(value)}, where others have {_value(usual)}"
        yield "; ".join(holes.told(sets, keys, columns.places, what))
    if len(values) > MOST_TOLD:
        yield f"{counted(len(values) - MOST_TOLD, 'more value')} of {name}"


def _visit_table(
    rows: Sequence[Row], columns: Columns, raw_visit: Sequence[Mapping[str, Any]], usual: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with a visit's rows in `raw_visit`; what it should say is what most of its rows in `raw` do."""
    if not raw_visit and rows:
        yield "no row in raw_visit"
    if len(raw_visit) > 1:
        yield f"{len(raw_visit)} rows in raw_visit"
    for said in raw_visit[:1] if rows else ():
        for name, expected in usual.items():
            value = said.get(name.lower())
            same = same_time(value, expected) if name == "taiObs" else value == expected
            if name.lower() in said and not same:
                yield f"raw_visit has {name} {_value(value)}, and raw {_value(expected)}"


def moment_of(value: Any) -> float | None:
    """A taiObs as an MJD; None for what is no time."""
    found = moment(value) if isinstance(value, str) else None
    return found.mjd if found and found.timed else None


def same_time(one: Any, other: Any) -> bool:
    """Whether two texts say the same time."""
    if one == other:
        return True
    first, second = moment_of(one), moment_of(other)
    return first is not None and second is not None and abs(first - second) * SECONDS_A_DAY < SAME_S


def _most(values: Iterable[Any]) -> Any:
    """What most of them are; the first of several that are equally many."""
    common = Counter(values).most_common(1)
    return common[0][0] if common else None


def _rows(count: int) -> str:
    return counted(count, "row")


def _value(value: Any) -> str:
    return "NULL" if value is None else shown(str(value), 40)


def _product(sets: Sets) -> int:
    count = 1
    for values in sets.values():
        count *= len(values)
    return count
