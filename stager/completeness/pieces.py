"""How the pieces of focal planes stand: what was proven by its copies, what was not as its focal plane does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera
from manifests.chops.readouts import Readout
from stager.completeness.focal_plane_maps import Standing
from stager.completeness.visits import STANDING, Plan, of_visit
from stager.models import decode_path

Ids = Mapping[str, Any]


class Plane(NamedTuple):
    """A focal plane that is chopped: its ids, how many files it has with those that are left out, how it stands, and
    the readout by which it was cut, where it was."""

    item: int
    ids: Ids
    whole: int
    standing: str
    looked_for: bool  # by its copies: they were made, though some may have been found gone or bad since
    readout: str | None


def standings(connection: Connection, plan: Plan, visit: str | None) -> Iterator[Standing]:
    """Every file of the focal planes of a chop's visit, of all its visits for None."""
    assert plan.camera is not None  # a chop has one, and without it nobody asks for places
    camera = plan.camera
    extension = camera.chop_rule.extension_id if camera.chop_rule else ""
    planes, left_out = _items(connection, plan, visit, extension)
    yield from (Standing(ids, standing) for of_source in left_out.values() for ids, standing in of_source)
    copies, found = _copies(connection, plan, visit), _findings(connection, plan, visit)
    for source, plane in planes:
        without = [ids for ids, _ in left_out.get(source, ())]
        pieces = copies.get(plane.item, []) if plane.looked_for else _planned(camera, plane, without)
        ccds = {_ccd(camera, plane, hdu) for hdu in found.get(plane.item, ())}
        for ids, proven in pieces:
            standing = "done" if proven else "held" if plane.standing == "done" else plane.standing
            yield Standing(ids, standing, 1, int(extension in ids and ids[extension] in ccds))
        if None in ccds:
            yield Standing({}, plane.standing, 0, 1)


def _items(
    connection: Connection, plan: Plan, visit: str | None, extension: str
) -> tuple[list[tuple[str, Plane]], dict[str, list[tuple[Ids, str]]]]:
    """(the focal planes by their sources, the files of each source that are left out and so items of their own)."""
    query = sa.text(f"""
        SELECT i.id, i.source, i.ids, i.files, {STANDING} AS standing, i.kind, k.readout
        FROM items i LEFT JOIN makings k ON k.item_id = i.id WHERE {of_visit(connection, visit)} ORDER BY i.id""")
    planes, left_out = [], dict[str, list[tuple[Ids, str]]]()
    for row in connection.execute(query, {"manifest": plan.id, "visit": visit}):
        ids = json.loads(row.ids or "{}")
        if extension in ids:
            left_out.setdefault(row.source, []).append((ids, row.standing))
        else:
            looked_for = row.standing == "done" or row.kind == "lost"  # lost: `verify` found a copy gone or bad
            planes.append((row.source, Plane(row.id, ids, row.files, row.standing, looked_for, row.readout)))
    whole = [(source, one._replace(whole=one.whole + len(left_out.get(source, ())))) for source, one in planes]
    return whole, left_out


Pieces = list[tuple[Ids, bool]]  # the ids of each, and whether it is proven


def _planned(camera: Camera, plane: Plane, without: list[Ids]) -> Pieces:
    """The pieces that a focal plane will have: those of a whole visit of its size, but for those that are left out."""
    layout = str(plane.ids.get("obstype", camera.raw_layout.name))
    names = (None, *(name for name, one in camera.focal_planes.items() if one.layout == camera.raw_layout.name))
    name = next((name for name in names if camera.whole(layout, name) == plane.whole), None)
    own = [{key: ids[key] for key in camera.sets if key in ids} for ids in without]
    every = camera.expected(plane.ids, name, layout)
    return [(ids, False) for ids in every if not any(one.items() <= ids.items() for one in own)]


def _copies(connection: Connection, plan: Plan, visit: str | None) -> dict[int, Pieces]:
    """The proven pieces of focal planes, by item; one that `verify` found gone or bad is not proven."""
    query = sa.text(f"""
        SELECT c.piece_of, i.ids, c.path, c.trouble FROM items i JOIN copies c ON c.piece_of = i.id
        WHERE {of_visit(connection, visit)}""")
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
        WHERE f.severity <> 'note' AND {of_visit(connection, visit)}""")
    found: dict[int, list[int]] = {}
    for item, hdus in connection.execute(query, {"manifest": plan.id, "visit": visit}):
        found.setdefault(item, []).extend(json.loads(hdus) or [0])
    return found


def _ccd(camera: Camera, plane: Plane, hdu: int) -> int | None:
    """The CCD that an HDU of a focal plane holds; None for the primary header, and where that is not known: before a
    focal plane is cut its readout is not, and two readouts may have as many files."""
    if camera.chop_rule is None or hdu == 0:
        return None
    readouts = camera.chop_rule.readouts
    fit = [one for one in readouts if plane.readout in (None, one.name) and _fits(one, plane.whole)]
    if len(fit) != 1:
        return None
    if fit[0].naming is None:
        return hdu - 1
    order = fit[0].naming.order
    return order.places[hdu - 1][0] if order and hdu <= len(order.places) else None


def _fits(readout: Readout, files: int) -> bool:
    counts = readout.science_extensions + readout.calibration_extensions
    return files in {count * readout.amps_of_extension for count in counts}
