"""What landed, by its header: the images of a dataset, and how complete its visits are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera
from manifests.errors import CameraError
from manifests.manifest import Manifest
from stager.database import Database
from stager.models import Image

table = Image.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type


def image(
    camera: Camera,
    manifest: Manifest,
    host: str,
    path: str,
    cards: Mapping[str, Any],
    ids: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The registry's entry for an image that lands at `host:path`; None for a file that is no image of a layout.

    Its ids are those of its path; where the header says other ones, or has no good time, `problem` says so:
    such an image is registered all the same, and reported.
    """
    found = camera.identify(path)
    if found is None:
        return None
    layout, of_path = found
    said, wrong = _said(camera, manifest, cards)
    wrong += [
        f"{name} is {said[name]} by the header and {value} by the path"
        for name, value in of_path.items()
        if name in said and str(said[name]) != str(value)
    ]
    times = camera.times(cards)
    every = {**(ids or {}), **of_path}
    visit = every.get("visit")
    return {
        "dataset": manifest.dataset,
        "host": host,
        "path": path,
        "camera": camera.name,
        "layout": layout,
        "visit": visit if isinstance(visit, int) else None,
        "ids": json.dumps(every),
        "mjd": times.mjd,
        "scale": times.scale,
        "exptime": times.exptime,
        "problem": "; ".join([*wrong, *times.problems]) or None,
    }


def add(database: Database, connection: Connection, images: Sequence[dict[str, Any]]) -> None:
    """Write entries that `image` made; one that is there of the same place is made anew."""
    if not images:
        return
    statement = sa.text(f"""
        INSERT INTO images
            (dataset, host, path, camera, layout, visit, ids, mjd, scale, exptime, problem, registered_at)
        VALUES (:dataset, :host, :path, :camera, :layout, :visit, :ids, :mjd, :scale, :exptime, :problem,
                {database.now})
        ON CONFLICT (host, path) DO UPDATE SET
            dataset = excluded.dataset, camera = excluded.camera, layout = excluded.layout, visit = excluded.visit,
            ids = excluded.ids, mjd = excluded.mjd, scale = excluded.scale, exptime = excluded.exptime,
            problem = excluded.problem, registered_at = excluded.registered_at""").bindparams(
        sa.bindparam("path", type_=table.c.path.type)
    )
    connection.execute(statement, images)


def _said(camera: Camera, manifest: Manifest, cards: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    try:
        return dict(camera.header_ids(cards, manifest.ids)), []
    except CameraError as error:
        return {}, [str(error)]
