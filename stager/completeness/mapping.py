"""What stands where on the focal plane, by what the database knows of a manifest's visits. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.errors import InputError, shown
from manifests.maps import MapRule
from manifests.wording import nearest
from stager.completeness import pieces, visits
from stager.completeness.by_visit import natural
from stager.completeness.focal_plane_maps import FocalPlane, Standing, focal_plane
from stager.completeness.visits import STANDING, Counts, Key, Plan, of_visit
from stager.database import Database, id_of
from stager.intents import UnknownName

MOST_MAPS = 3  # drawn of visits that are not whole, where none is chosen
MOST_REASONS = 5  # why files of a visit are held or left out


@dataclass(frozen=True, slots=True)
class VisitMap:
    """A map of one visit, or of all of them together where `visit` is None; `reasons` say why files of it are held
    or excluded, with how many they are."""

    visit: str | None
    plane: FocalPlane
    reasons: tuple[tuple[str, int, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        reasons = [{"state": state, "files": files, "reason": reason} for state, files, reason in self.reasons]
        return {"visit": self.visit, **self.plane.as_dict(), "reasons": reasons}


@dataclass(frozen=True, slots=True)
class Maps:
    """The maps of a manifest that are worth drawing, and how many visits there are of each kind: `whole`, not whole
    and drawn or not (`more`), and `absent` ones, of which nothing was found."""

    manifest: str
    dataset: str
    host: str
    maps: tuple[VisitMap, ...]
    whole: int
    absent: tuple[str, ...]
    more: tuple[str, ...]

    @property
    def visits(self) -> int:
        drawn = sum(one.visit is not None for one in self.maps)
        return self.whole + len(self.absent) + len(self.more) + drawn

    def as_dict(self) -> dict[str, Any]:
        said = {name: getattr(self, name) for name in ("manifest", "dataset", "host", "whole", "absent", "more")}
        return {**said, "maps": [one.as_dict() for one in self.maps]}


def maps(database: Database, name: str, visit: str | None = None, folders: Sequence[Path] = ()) -> Maps:
    """The map of one visit of a manifest's newest revision; without one, those of some visits that are not whole, or
    of all visits together where all are.

    Raises UnknownName for a manifest or a visit there is not, InputError for one that has no camera or no map.
    """
    with database.read() as connection:
        plan = _plan(connection, name, folders)
        rule = _rule(plan)
        if visit is not None:
            drawn = _map(connection, plan, rule, visit)
            if not drawn.plane.files:
                raise UnknownName(_no_visit(name, visit, visits.counts(connection, [plan])))
            return Maps(name, plan.dataset, plan.host, (drawn,), 0, (), ())
        counted = {key.visit: counts for key, counts in visits.counts(connection, [plan]).items()}
        partly, absent, whole = _sorted(counted)
        together: list[str | None] = [] if absent and not whole else [None]
        chosen = partly[:MOST_MAPS] or together
        every = tuple(_map(connection, plan, rule, one) for one in chosen)
    return Maps(name, plan.dataset, plan.host, every, whole, tuple(absent), tuple(partly[MOST_MAPS:]))


def _plan(connection: Connection, name: str, folders: Sequence[Path]) -> Plan:
    found = visits.plans(connection, folders, name=name)
    if found:
        return found[0]
    query = sa.text("SELECT name, intent FROM manifests WHERE intent <> 'planning' ORDER BY name")
    known = {row[0]: row[1] for row in connection.execute(query)}
    if name not in known:
        raise UnknownName(f'there is no manifest "{shown(name, 60)}"{nearest(name, known)}; `stager status` lists them')
    if known[name] == "cancelled":
        raise InputError(f"{name} is cancelled: nothing is expected of it; `stager release {name}` brings it back")
    raise InputError(f"{name} names no camera, and only a camera knows where files lie on a focal plane")


def _rule(plan: Plan) -> MapRule:
    if plan.camera is None:
        raise InputError(f"the camera {plan.manifest.camera} of {plan.manifest.name} cannot be used; see its file")
    if plan.camera.map_rule is None:
        raise InputError(f"the camera {plan.camera.name} has no [[map]] in its file, which says where its CCDs lie")
    return plan.camera.map_rule


def _no_visit(name: str, visit: str, known: Iterable[Key]) -> str:
    there = sorted((key.visit for key in known if key.visit), key=natural)
    more = f" and {len(there) - 5} more" if len(there) > 5 else ""
    has = f"it has {', '.join(shown(one, 40) for one in there[:5])}{more}" if there else "it has none"
    return f'{name} has no visit "{shown(visit, 40)}"{nearest(visit, there)}; {has}'


def _sorted(counted: Mapping[str, Counts]) -> tuple[list[str], list[str], int]:
    """(visits that are partly there, visits of which nothing is, how many are whole), each by number."""
    partly, absent, whole = [], [], 0
    for visit in sorted(filter(None, counted), key=natural):
        counts = counted[visit]
        expected = sum(counts.values()) - counts.get("excluded", 0)
        if counts.get("done", 0) == expected:
            whole += 1
        elif counts.get("missing", 0) == expected:
            absent.append(visit)
        else:
            partly.append(visit)
    return partly, absent, whole


def _map(connection: Connection, plan: Plan, rule: MapRule, visit: str | None) -> VisitMap:
    cut = plan.manifest.kind == "chop"
    standings = pieces.standings(connection, plan, visit) if cut else _files(connection, plan, rule, visit)
    plane = focal_plane(rule, standings)
    return VisitMap(visit, plane, _reasons(connection, plan, visit) if visit is not None else ())


def _files(connection: Connection, plan: Plan, rule: MapRule, visit: str | None) -> Iterator[Standing]:
    """How the files of a copy stand, counted by place in the database."""
    places = ", ".join(id_of(connection, name) for name in rule.ids)
    found = "CASE WHEN EXISTS (SELECT 1 FROM findings f WHERE f.item_id = i.id AND f.severity <> 'note') THEN 1 END"
    query = sa.text(f"""
        SELECT {STANDING}, sum(i.files), count({found}), {places} FROM items i
        WHERE {of_visit(connection, visit)} GROUP BY {STANDING}, {places}""")
    camera = plan.camera
    assert camera is not None  # `_rule` lets no other through
    for standing, files, findings, *values in connection.execute(query, {"manifest": plan.id, "visit": visit}):
        pairs = zip(rule.ids, values, strict=True)
        ids = {name: camera.ids[name].own(value) for name, value in pairs if value is not None}
        yield Standing(ids, standing, int(files), findings)


def _reasons(connection: Connection, plan: Plan, visit: str) -> tuple[tuple[str, int, str], ...]:
    """(state, files, reason) of what is held or left out, what is held first."""
    query = sa.text(f"""
        SELECT i.state, sum(i.files), i.reason FROM items i
        WHERE i.state IN ('held', 'excluded') AND i.reason IS NOT NULL AND {of_visit(connection, visit)}
        GROUP BY i.state, i.reason ORDER BY i.state = 'held' DESC, 2 DESC, i.reason LIMIT {MOST_REASONS}""")
    rows = connection.execute(query, {"manifest": plan.id, "visit": visit})
    return tuple((state, int(files), reason) for state, files, reason in rows)
