"""The registry: every image of a camera's layouts that landed, with its ids, and its time by its header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera
from manifests.headers import Values
from stager.database import Database
from stager.models import Image

table = Image.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type


def image(
    camera: Camera,
    dataset: str,
    host: str,
    path: str,
    cards: Values,
    ids: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The registry's entry for an image that lands at `host:path`; None for a file that is no image of a layout.

    Its ids are those of its path, and then those given. Its time is as the header says; a bad one is no reason to
    leave the image out, and is told of in `findings`.
    """
    found = camera.identify(path)
    if found is None:
        return None
    layout, of_path = found
    times = camera.times(cards)
    every = {**(ids or {}), **of_path}
    visit = every.get("visit")
    return {
        "dataset": dataset,
        "host": host,
        "path": path,
        "camera": camera.name,
        "layout": layout,
        "visit": visit if isinstance(visit, int) else None,
        "ids": json.dumps(every),
        "mjd": times.mjd,
        "scale": times.scale,
        "exptime": times.exptime,
    }


def add(database: Database, connection: Connection, images: Sequence[dict[str, Any]]) -> None:
    """Write entries that `image` made; one that is there of the same place is made anew."""
    if not images:
        return
    statement = sa.text(f"""
        INSERT INTO images (dataset, host, path, camera, layout, visit, ids, mjd, scale, exptime, registered_at)
        VALUES (:dataset, :host, :path, :camera, :layout, :visit, :ids, :mjd, :scale, :exptime, {database.now})
        ON CONFLICT (host, path) DO UPDATE SET
            dataset = excluded.dataset, camera = excluded.camera, layout = excluded.layout, visit = excluded.visit,
            ids = excluded.ids, mjd = excluded.mjd, scale = excluded.scale, exptime = excluded.exptime,
            registered_at = excluded.registered_at""").bindparams(sa.bindparam("path", type_=table.c.path.type))
    connection.execute(statement, images)
