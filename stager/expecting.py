"""What a manifest expects, ticked off while the files that were found are planned: nothing is forgotten."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from manifests.cameras import Camera
from manifests.errors import shown
from manifests.manifest import Manifest
from stager.counts import counted
from stager.models import ItemState
from stager.planning import UNKNOWN, Ids, Planned, left_out

MOST_NAMED = 5  # visits named in a note
MISSING = "missing at the source"
Place = tuple[str, ...]


@dataclass(slots=True)
class _Visit:
    """One visit that is expected, with what is said of all its files; of each file there is but a bit.

    `open` are those that were not found, `rows` those that a registry has.
    """

    ids: dict[str, Any]
    open: bytearray
    rows: bytearray = field(default_factory=bytearray)
    entered: bool = False  # by the manifest itself


class Expectation:
    """What the manifest's expected visits should have. `rows` are those of its registry, one a file.

    Its size is that of the expectation, some bits a file, and not of the listing. `notes` is what there is to
    say of the registry.
    """

    def __init__(self, manifest: Manifest, camera: Camera, rows: Iterable[Ids] = ()) -> None:
        self.manifest = manifest
        self.camera = camera
        self.chop = manifest.kind == "chop"
        self._pattern = manifest.pattern
        self.notes: list[str] = []
        self._layout = camera.layouts[camera.focal_plane(manifest.focal_plane).layout]
        self._files = list(camera.expected({}, manifest.focal_plane))
        self._names = tuple(self._files[0]) if self._files else ()
        self._places = {self._place(ids): number for number, ids in enumerate(self._files)}
        first = self._files[0] if self._files else {}  # what all files of a visit have, a registry need not say
        self._same = {name: first[name] for name in first if all(one[name] == first[name] for one in self._files)}
        self._visits: dict[str, list[_Visit]] = {}
        self._known: dict[str, Ids] = {}  # what files of a visit say of it: filter, field
        self._base: str | None = None
        for entry in manifest.expect:
            self._expect({**manifest.ids, **entry})
        self._add_rows(rows)

    # ------------------------------------------------------------------------ what is expected

    def _place(self, ids: Ids) -> Place:
        """Which file of a visit it is."""
        return tuple(str(ids.get(name)) for name in self._names)

    def _expect(self, ids: Ids) -> None:
        visit = self._visit(ids)
        visit.entered = True
        narrowed = {name: ids[name] for name in self._names if name in ids}
        if narrowed:
            for one in self.camera.expected(narrowed, self.manifest.focal_plane):
                _set(visit.open, self._places[self._place(one)])
        else:
            visit.open[:] = self._all()

    def _all(self) -> bytes:
        return ((1 << len(self._files)) - 1).to_bytes(len(self._files) // 8 + 1, "little")

    def _visit(self, ids: Ids) -> _Visit:
        """The visit of these ids; two of one number are kept where they say different things of it."""
        of_visit = {name: value for name, value in ids.items() if name not in self._names}
        known = self._visits.setdefault(str(of_visit["visit"]), [])
        for one in known:
            if self.chop or _agree(one.ids, of_visit):
                one.ids.update(of_visit)
                return one
        known.append(_Visit(of_visit, bytearray(len(self._files) // 8 + 1)))
        return known[-1]

    def _add_rows(self, rows: Iterable[Ids]) -> None:
        """Expect what a registry has: rows that say again what others say count once, and those that differ from
        the manifest's own ids are of other manifests."""
        read = _Values(self.camera)
        visits: dict[tuple[Any, ...], _Visit] = {}
        twice, elsewhere = 0, 0
        for row in rows:
            ids = read.ids(row)
            if not _agree(self.manifest.ids, ids):
                elsewhere += 1
                continue
            key = tuple(value for name, value in ids.items() if name not in self._names)
            if key not in visits:
                visits[key] = self._visit({**self.manifest.ids, **ids})
            twice += self._add_row(visits[key], ids)
        if self.manifest.registry:
            name = shown(PurePath(self.manifest.registry.path).name)
            self.notes += self._remarks(name, twice, elsewhere)

    def _add_row(self, visit: _Visit, ids: Ids) -> bool:
        """Expect the file of a row; whether another row said so before."""
        number = self._places.get(self._place({**self._same, **ids}))
        if number is None:  # a registry of focal planes need not say of what files
            _set(visit.open, 0)
            return False
        visit.rows = visit.rows or bytearray(len(visit.open))
        _set(visit.open, number)
        return _set(visit.rows, number)

    def _remarks(self, name: str, twice: int, elsewhere: int) -> Iterator[str]:
        if twice:
            yield f"{name}: {_rows(twice)} again what others say; each file is expected once"
        if elsewhere:
            said = " ".join(f"{key}={value}" for key, value in self.manifest.ids.items())
            yield f"{name}: {_rows(elsewhere)} otherwise than [ids] ({said}), and nothing of them is expected"
        partial = [
            f"visit {visit} ({_count(one.rows)} of {counted(len(self._files), 'file')})"
            for visit, every in self._visits.items()
            for one in every
            if not one.entered and 0 < _count(one.rows) < len(self._files)
        ]
        if partial:
            more = f" and {len(partial) - MOST_NAMED} more" if len(partial) > MOST_NAMED else ""
            what = "they are" if len(partial) > 1 else "it is"
            yield (
                f"{name} has only a part of {', '.join(partial[:MOST_NAMED])}{more}: {what} expected as "
                f"{'they stand' if len(partial) > 1 else 'it stands'} there"
            )
        several = [visit for visit, every in self._visits.items() if len(every) > 1]
        for visit in several[:MOST_NAMED]:
            said = " and ".join(_said(one.ids, self._visits[visit]) for one in self._visits[visit])
            yield f"{name}: visit {visit} is said to be of {said}"

    # ------------------------------------------------------------------------ what was found

    def tick(self, planned: Iterable[Planned]) -> Iterator[Planned]:
        """Pass found items on, and take them off the list of what is expected."""
        for one in planned:
            of_layout = self.chop or self._layout.ids(one.source) is not None  # the same ids are those of its products
            if one.ids and "visit" in one.ids and one.plane is None and of_layout:
                self._found(one.ids)
                if self._base is None and not self.chop:
                    self._base = self._layout.base(one.source)
                    self._layout = self._layout.like(one.source)
            yield one

    def _found(self, ids: Ids) -> None:
        visit = str(ids["visit"])
        expected = self._visits.get(visit)
        if expected is None:
            return
        self._known.setdefault(visit, ids)
        if self.chop:
            for one in expected:
                one.open[:] = bytes(len(one.open))
            return
        number = self._places.get(self._place(ids))
        for one in expected:
            if number is not None and _agree(one.ids, ids):
                one.open[number >> 3] &= ~(1 << (number & 7))

    def missing(self) -> Iterator[Planned]:
        """An item for every file that should exist and was not found."""
        for every in self._visits.values():
            for visit in every:
                if self.chop:
                    if any(visit.open):
                        yield self._focal_plane(visit.ids)
                    continue
                for number in _numbers(visit.open):
                    yield self._item(self._with_known({**visit.ids, **self._files[number]}))

    def _with_known(self, ids: Ids) -> Ids:
        """Filter and field of a visit, from its files that are there."""
        of_visit = self._known.get(str(ids["visit"]), {})
        return {**{name: value for name, value in of_visit.items() if name not in self._names}, **ids}

    def _item(self, ids: Ids) -> Planned:
        path = self._layout.path(ids, UNKNOWN)
        fixed = self._pattern.fixed
        source = _within(
            fixed, posixpath.join(self._base if self._base is not None else self._guessed_base(path), path)
        )
        inside = not fixed or source.startswith(fixed + "/")
        relative = self._pattern.relative(source) if inside else path
        destination = posixpath.join(self.manifest.destination.path, relative)
        return self._accepted(Planned(source, destination, ids=ids, missing=True, reason=MISSING))

    def _guessed_base(self, path: str) -> str:
        """The folder above the layout when no file of it was found: the longest that the pattern allows."""
        names = self._pattern.fixed.split("/") if self._pattern.fixed else []
        concrete = path.replace(UNKNOWN, "0")
        for count in range(len(names), -1, -1):
            base = "/".join(names[:count])
            if self._pattern.matches(posixpath.join(base, concrete)):
                return base
        return "/".join(names)

    def _focal_plane(self, ids: Ids) -> Planned:
        assert self.camera.input is not None  # a camera that chops has one
        name = self.camera.input.path(ids, UNKNOWN) + UNKNOWN
        source = posixpath.join(self._pattern.fixed, name)
        files = len(self._files) - len(left_out(self.manifest, self.camera, source, ids, len(self._files)))
        return self._accepted(Planned(source, None, files=files, ids=ids, missing=True, reason=MISSING))

    def _accepted(self, planned: Planned) -> Planned:
        excluded = self.manifest.exclusion(planned.source, planned.ids or {})
        if excluded:
            return planned._replace(state=ItemState.EXCLUDED, missing=False, reason=excluded.reason)
        return planned


def _within(fixed: str, path: str) -> str:
    """The path with what is unknown of it as the pattern has it: every file of D1/** is of field D1."""
    if UNKNOWN not in path[: len(fixed)] or not fixed:
        return path
    known, names = fixed.split("/"), path.split("/")
    fits = len(known) < len(names) and all(name in (UNKNOWN, one) for name, one in zip(names, known, strict=False))
    return "/".join((*known, *names[len(known) :])) if fits else path


class _Values:
    """Rows of a registry with their values as the camera's ids have them."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._own: dict[tuple[str, Any], Any] = {}

    def ids(self, row: Ids) -> Ids:
        return {name: self._value(name, value) for name, value in row.items() if name in self.camera.ids}

    def _value(self, name: str, value: Any) -> Any:
        key = (name, value)
        if key not in self._own:
            own = self.camera.ids[name].own(value)
            self._own[key] = value if own is None else own
        return self._own[key]


def _agree(said: Mapping[str, Any], ids: Mapping[str, Any]) -> bool:
    """Whether two sets of ids say nothing different of what both have."""
    return all(name not in ids or str(ids[name]) == str(value) for name, value in said.items())


def _set(bits: bytearray, number: int) -> bool:
    """Set a bit; whether it was set."""
    before = bits[number >> 3]
    bits[number >> 3] = before | 1 << (number & 7)
    return bool(before >> (number & 7) & 1)


def _count(bits: bytearray) -> int:
    return int.from_bytes(bits, "little").bit_count()


def _numbers(bits: bytearray) -> Iterator[int]:
    return (at * 8 + bit for at, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1)


def _rows(count: int) -> str:
    return counted(count, "row says", "rows say")


def _said(ids: Ids, every: Iterable[_Visit]) -> str:
    """What tells one of several of a visit from the others."""
    others = list(every)
    names = [name for name in ids if len({str(one.ids.get(name)) for one in others}) > 1]
    return " ".join(f"{name} {shown(str(ids[name]), 40)}" for name in names) or "another"
