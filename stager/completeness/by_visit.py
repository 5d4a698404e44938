"""How complete the visits of a dataset are: what is expected of each, found, proven and registered.

What is expected is what a manifest's `expect` makes with its camera, or the registry that it names; where nothing is
expected, it is what was found. A visit that nobody expects is a stray, and so is one that has hardly any files where
others have many.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.errors import InputError, shown
from manifests.wording import nearest
from stager.completeness import holes, visits
from stager.completeness.visits import NO_VISIT, Counts, Ids, Key, Plan
from stager.database import Database
from stager.intents import UnknownName

HARDLY_ANY = 20  # a visit with less than one file in so many of what others have is no visit of the survey's


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of a dataset at one host, in files; `visit` is None for files that are of none.

    `expected` is by `basis`: "expect" (the manifest lists it), "registry" (a registry does, which the manifest names)
    or "found" (it says nothing, so what was found).
    `found` of them are at the source, `proven` at their place, `registered` as images there. What the accept
    list leaves out is `excluded`, and in no other count. `findings` counts files with something worse than a note.
    `full` is what a whole visit has by its camera, 0 where that is not known.
    `flags` say what is not well, the worst first; `lacking` says which files are missing.
    """

    dataset: str
    host: str
    visit: str | None
    basis: str
    expected: int
    found: int
    proven: int
    registered: int
    missing: int = 0
    held: int = 0
    excluded: int = 0
    findings: int = 0
    full: int = 0
    flags: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all of it that is expected is proven and registered, and it is expected."""
        return not self.flags

    @property
    def state(self) -> str:
        """The worst that is to be said of it, in a word."""
        return self.flags[0] if self.flags else "whole" if self.expected or not self.excluded else "excluded"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "whole": self.whole, "state": self.state}


@dataclass(frozen=True)
class Measure:
    """What the visits of a dataset at a host are measured by."""

    named: frozenset[str] | None = None  # the visits that its manifests expect; None: they say nothing of that
    listed: frozenset[str] = frozenset()  # those of them that only a registry names
    fullest: int = 0  # files of the fullest visit here
    full: int = 0  # files of a whole visit by its camera; 0 where that is not known
    registers: bool = False  # whether headers are looked into, so that all that is proven is registered
    expected: Mapping[str, int] = field(default_factory=dict)  # files by visit, where it is known which these are
    sets: Mapping[str, holes.Sets] = field(default_factory=dict)  # what these visits have of each id
    usual: holes.Sets = field(default_factory=dict)  # what all others have
    places: tuple[str, ...] = ()  # the ids that tell where on the focal plane a file belongs


def completeness(database: Database, dataset: str | None = None, folders: Sequence[Path] = ()) -> list[Visit]:
    """Every visit of the datasets, by the newest revision of each manifest that has a camera; what is not whole goes
    first at each host, then it is by number.

    A file that two manifests bring to one place is counted once, at its best. `dataset` may be a manifest's name,
    and `folders` are where cameras of one's own lie. Raises UnknownName for a name that nobody submitted, InputError
    for a dataset that no camera knows.
    """
    with database.read() as connection:
        named = _dataset(connection, dataset) if dataset is not None else None
        plans = visits.plans(connection, folders, named)
        counts = visits.counts(connection, plans)
        images = visits.images(connection, named)
        findings = visits.findings(connection, plans)
        keys = {*counts, *images}
        if dataset is not None and not keys:
            raise InputError(f"no manifest of {named} names a camera, and only a camera knows which files a visit has")
        measures = {place: _measure(place, plans, counts) for place in {(key.dataset, key.host) for key in keys}}
        partly = {key for key in counts if counts[key].get("missing") and _found(counts[key])}
        missing = list(visits.missing(connection, plans, partly)) if partly else []
    lacking = _lacking(missing, measures)
    judged = [
        judge(key, counts.get(key, {}), images.get(key, 0), findings.get(key, 0), measures[key.dataset, key.host])
        for key in keys
    ]
    told = [replace(one, lacking=_told(one, lacking)) if one.missing else one for one in judged]
    return sorted(told, key=lambda one: (one.dataset, one.host, one.whole, natural(one.visit or "")))


def dataset_named(database: Database, name: str) -> str:
    """The dataset of that name, or the one that a manifest of that name is of; raises UnknownName."""
    with database.read() as connection:
        return _dataset(connection, name)


def _dataset(connection: Connection, name: str) -> str:
    query = sa.text("""
        SELECT DISTINCT dataset, name FROM manifests WHERE intent <> 'planning' ORDER BY dataset, name""")
    rows = connection.execute(query).all()
    datasets, manifests = {row.dataset for row in rows}, {row.name: row.dataset for row in rows}
    if name in datasets:
        return name
    if name in manifests:
        return str(manifests[name])
    near = nearest(name, [*datasets, *manifests])
    raise UnknownName(f'there is no dataset or manifest "{shown(name, 60)}"{near}; `stager status` lists them')


def judge(key: Key, counts: Counts, images: int, findings: int, measure: Measure) -> Visit:
    """What a visit comes to, from how its files stand and what it is measured by."""
    missing, excluded, found = counts.get("missing", 0), counts.get("excluded", 0), _found(counts)
    every = found + missing + excluded
    extra = max(0, every - measure.expected.get(key.visit, every))  # for which nobody asked
    visit = Visit(
        key.dataset,
        key.host,
        None if key.visit == NO_VISIT else key.visit,
        _basis(key.visit, measure),
        found + missing - extra,
        found,
        counts.get("done", 0),
        images,
        missing,
        counts.get("held", 0),
        excluded,
        findings,
        measure.full,
    )
    return replace(visit, flags=tuple(_flags(visit, measure)))


def _basis(visit: str, measure: Measure) -> str:
    if visit in measure.listed:
        return "registry"
    return "expect" if visit in (measure.named or ()) else "found"


def _flags(visit: Visit, measure: Measure) -> Iterator[str]:
    every = visit.found + visit.missing + visit.excluded
    whole = min(measure.full or measure.fullest, measure.fullest)
    if visit.visit is not None and (
        visit.visit not in measure.named if measure.named is not None else every * HARDLY_ANY <= whole
    ):
        yield "stray"
    if visit.missing:
        yield "missing" if visit.found else "absent"
    if visit.visit is not None and measure.named is None and every < whole:
        yield "partial"
    if visit.held:
        yield "held"
    if visit.proven + visit.held < visit.found:
        yield "unproven"
    if measure.registers and visit.registered < visit.proven:
        yield "no image"


def _found(counts: Counts) -> int:
    """Files that are at the source, or were."""
    return sum(counts.values()) - counts.get("missing", 0) - counts.get("excluded", 0)


def _measure(place: tuple[str, str], plans: Sequence[Plan], counts: Mapping[Key, Counts]) -> Measure:
    """What the visits of a dataset at a host are measured by."""
    dataset, host = place
    of_dataset = [plan for plan in plans if plan.dataset == dataset]
    here = [plan for plan in of_dataset if plan.host == host]
    expects = [plan for plan in of_dataset if plan.manifest.expects]
    listed = {visit for plan in expects if plan.manifest.registry for visit in plan.named}
    fullest = max((sum(found.values()) for key, found in counts.items() if key[:2] == place and key.visit), default=0)
    asked = _asked(here)
    return Measure(
        named=frozenset(visit for plan in expects for visit in plan.named) if expects else None,
        listed=frozenset(listed - set(asked)),
        fullest=fullest,
        full=min((plan.full for plan in here if plan.full), default=0),
        registers=bool(here) and all(plan.manifest.check != "none" for plan in here),
        expected={visit: files for visit, (files, _) in asked.items()},
        sets={visit: sets for visit, (_, sets) in asked.items()},
        usual=next((plan.sets for plan in here if plan.sets), {}),
        places=next((plan.camera.map_rule.ids for plan in here if plan.camera and plan.camera.map_rule), ()),
    )


def _asked(here: Sequence[Plan]) -> dict[str, tuple[int, holes.Sets]]:
    """What `expect` asks of each visit, as of `expected_files`; not of focal planes, which say so themselves."""
    cut = {visit for plan in here if plan.manifest.kind == "chop" for visit in plan.named}
    entries: dict[str, list[Ids]] = {}
    of_plan: dict[str, Plan] = {}
    for plan in here:
        for visit, some in _entries(plan).items():
            if plan.sets and visit not in cut:
                entries.setdefault(visit, []).extend(some)
                of_plan[visit] = plan
    return {visit: expected_files(of_plan[visit], some) for visit, some in entries.items()}


def _entries(plan: Plan) -> dict[str, list[Ids]]:
    """The entries of a manifest's `expect` by visit, each with the manifest's own ids."""
    found: dict[str, list[Ids]] = {}
    for entry in plan.manifest.expect:
        ids = {**plan.manifest.ids, **entry}
        if "visit" in ids:
            found.setdefault(str(ids["visit"]), []).append(ids)
    return found


def expected_files(plan: Plan, entries: Sequence[Ids]) -> tuple[int, holes.Sets]:
    """(how many files, what of each id) entries of `expect` ask of one visit together; a file that several ask for is
    one."""
    camera = plan.camera
    assert camera is not None  # who has sets has one
    chosen = [
        {name: (camera.ids[name].own(ids[name]),) if name in ids else values for name, values in plan.sets.items()}
        for ids in entries
    ]
    if len(chosen) == 1:
        files = math.prod(map(len, chosen[0].values()))
    else:
        files = len({key for one in chosen for key in itertools.product(*one.values())})
    sets = {
        name: [value for value in values if any(value in one[name] for one in chosen)]
        for name, values in plan.sets.items()
    }
    return files, sets


def _lacking(
    missing: Sequence[tuple[Key, Ids]], measures: Mapping[tuple[str, str], Measure]
) -> dict[Key, tuple[str, ...]]:
    """What is missing of visits that are partly there, in sentences; nothing of those that have no set of files."""
    keys: dict[Key, set[holes.Key]] = {}
    for key, ids in missing:
        sets = _sets(key, measures)
        if sets and all(name in ids for name in sets):
            keys.setdefault(key, set()).add(tuple(ids[name] for name in sets))
    return {
        key: tuple(holes.told(_sets(key, measures), some, measures[key.dataset, key.host].places))
        for key, some in keys.items()
    }


def _sets(key: Key, measures: Mapping[tuple[str, str], Measure]) -> holes.Sets:
    measure = measures[key.dataset, key.host]
    return measure.sets.get(key.visit, measure.usual)


def _told(visit: Visit, lacking: Mapping[Key, tuple[str, ...]]) -> tuple[str, ...]:
    known = lacking.get(Key(visit.dataset, visit.host, visit.visit or NO_VISIT))
    if known:
        return known
    all_of_it = "nothing of it is there: all " if not visit.found and visit.missing > 1 else ""
    return (f"{all_of_it}{visit.missing} missing",)


def natural(text: str) -> tuple[tuple[bool, int, str], ...]:
    """A key that sorts texts with the numbers in them by their size, however long these are."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    numbers = [part.lstrip("0") or "0" if part[0] in "0123456789" else "" for part in parts]
    return tuple((not number, len(number), number or part) for number, part in zip(numbers, parts, strict=True))
