"""What stands where on the focal plane, by what the database knows of a manifest's visits. Reads only."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.errors import InputError, shown
from manifests.maps import MapRule
from manifests.readouts import Readout
from manifests.wording import nearest
from stager import visits
from stager.completeness import natural
from stager.database import Database
from stager.focal_plane_maps import FocalPlane, Standing, focal_plane
from stager.intents import UnknownName
from stager.models import decode_path
from stager.visits import STANDING, Counts, Key, Plan, id_of

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
    of_plan = _of_focal_planes if plan.manifest.kind == "chop" else _of_files
    plane = focal_plane(rule, of_plan(connection, plan, rule, visit))
    return VisitMap(visit, plane, _reasons(connection, plan, visit) if visit is not None else ())


def _where(connection: Connection, visit: str | None) -> str:
    """SQL for the items of a manifest's visit; of all its visits for None."""
    of_visit = id_of(connection, "visit")
    return "i.manifest_id = :manifest" + (f" AND {of_visit} = :visit" if visit is not None else "")


def _of_files(connection: Connection, plan: Plan, rule: MapRule, visit: str | None) -> Iterator[Standing]:
    """How the files of a copy stand, counted by place in the database."""
    places = ", ".join(id_of(connection, name) for name in rule.ids)
    found = "CASE WHEN EXISTS (SELECT 1 FROM findings f WHERE f.item_id = i.id AND f.severity <> 'note') THEN 1 END"
    query = sa.text(f"""
        SELECT {STANDING}, sum(i.files), count({found}), {places} FROM items i
        WHERE {_where(connection, visit)} GROUP BY {STANDING}, {places}""")
    camera = plan.camera
    assert camera is not None  # `_rule` lets no other through
    for standing, files, findings, *values in connection.execute(query, {"manifest": plan.id, "visit": visit}):
        pairs = zip(rule.ids, values, strict=True)
        ids = {name: camera.ids[name].own(value) for name, value in pairs if value is not None}
        yield Standing(ids, standing, int(files), findings)


# ------------------------------------------------------------------------------------ focal planes


def _of_focal_planes(connection: Connection, plan: Plan, rule: MapRule, visit: str | None) -> Iterator[Standing]:
    """How the pieces of focal planes stand: what was proven by its copies, what was not as its focal plane does."""
    query = sa.text(f"""
        SELECT i.id, i.source, i.ids, i.files, {STANDING} AS standing, i.kind, k.readout
        FROM items i LEFT JOIN makings k ON k.item_id = i.id WHERE {_where(connection, visit)} ORDER BY i.id""")
    rows = connection.execute(query, {"manifest": plan.id, "visit": visit}).all()
    copies, found = _copies(connection, plan, visit), _findings(connection, plan, visit)
    for row in rows:
        seen = row.standing == "done" or row.kind == "lost"  # lost: `verify` found a copy gone or bad
        pieces = copies.get(row.id, []) if seen else _planned(plan, row)
        ccds = {_ccd(plan, row, hdu) for hdu in found.get(row.id, ())}
        yield from _pieces(plan, row, pieces, ccds)
        if None in ccds:
            yield Standing({}, row.standing, 0, 1)


Pieces = list[tuple[Mapping[str, Any], bool]]  # the ids of each, and whether it is proven


def _pieces(plan: Plan, row: Any, pieces: Pieces, ccds: set[int | None]) -> Iterator[Standing]:
    chop_rule = plan.camera.chop_rule if plan.camera else None
    for ids, proven in pieces:
        standing = "done" if proven else row.standing if row.standing != "done" else "held"
        if plan.manifest.exclusions and plan.manifest.exclusion(decode_path(row.source), ids):
            standing = "excluded"
        number = ids.get(chop_rule.extension_id) if chop_rule else None
        yield Standing(ids, standing, 1, int(number is not None and number in ccds))


def _planned(plan: Plan, row: Any) -> Pieces:
    """The pieces that a focal plane will have: those of a whole visit of its size."""
    camera = plan.camera
    assert camera is not None
    ids = json.loads(row.ids or "{}")
    planes = [camera.focal_plane(), *camera.focal_planes.values()]
    sizes = (plane.sets for plane in planes if plane.layout == camera.raw_layout.name)
    fit = (sets for sets in sizes if math.prod(map(len, sets.values())) == row.files)
    sets = next(fit, plan.sets)
    every = itertools.product(*sets.values())
    return [({**ids, **dict(zip(sets, values, strict=True))}, False) for values in every]


def _copies(connection: Connection, plan: Plan, visit: str | None) -> dict[int, Pieces]:
    """The proven pieces of focal planes, by item; one that `verify` found gone or bad is not proven."""
    query = sa.text(f"""
        SELECT c.piece_of, i.ids, c.path, c.trouble FROM items i JOIN copies c ON c.piece_of = i.id
        WHERE {_where(connection, visit)}""")
    found: dict[int, Pieces] = {}
    assert plan.camera is not None
    for item, ids, path, trouble in connection.execute(query, {"manifest": plan.id, "visit": visit}):
        identified = plan.camera.identify(decode_path(path))
        of_path = identified[1] if identified else {}
        found.setdefault(item, []).append(({**json.loads(ids or "{}"), **of_path}, trouble is None))
    return found


def _findings(connection: Connection, plan: Plan, visit: str | None) -> dict[int, list[int]]:
    """The HDUs in which something worse than a note was found, by item; 0 for the file as a whole."""
    query = sa.text(f"""
        SELECT f.item_id, f.hdus FROM findings f JOIN items i ON i.id = f.item_id
        WHERE f.severity <> 'note' AND {_where(connection, visit)}""")
    found: dict[int, list[int]] = {}
    for item, hdus in connection.execute(query, {"manifest": plan.id, "visit": visit}):
        found.setdefault(item, []).extend(json.loads(hdus) or [0])
    return found


def _ccd(plan: Plan, row: Any, hdu: int) -> int | None:
    """The CCD that an HDU of a focal plane holds; None for the primary header, and where that is not known."""
    chop_rule = plan.camera.chop_rule if plan.camera else None
    if chop_rule is None or hdu == 0:
        return None
    fit = [one for one in chop_rule.readouts if row.readout in (None, one.name) and _fits(one, row.files)]
    if len(fit) != 1:
        return None
    if fit[0].naming is None:
        return hdu - 1
    order = fit[0].naming.order
    return order.places[hdu - 1][0] if order and hdu <= len(order.places) else None


def _fits(readout: Readout, files: int) -> bool:
    counts = readout.science_extensions + readout.calibration_extensions
    return files in {count * readout.amps_of_extension for count in counts}


def _reasons(connection: Connection, plan: Plan, visit: str) -> tuple[tuple[str, int, str], ...]:
    """(state, files, reason) of what is held or left out, what is held first."""
    query = sa.text(f"""
        SELECT i.state, sum(i.files), i.reason FROM items i
        WHERE i.state IN ('held', 'excluded') AND i.reason IS NOT NULL AND {_where(connection, visit)}
        GROUP BY i.state, i.reason ORDER BY i.state = 'held' DESC, 2 DESC, i.reason LIMIT {MOST_REASONS}""")
    rows = connection.execute(query, {"manifest": plan.id, "visit": visit})
    return tuple((state, int(files), reason) for state, files, reason in rows)
