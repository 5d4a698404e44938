"""How the pieces of focal planes were made: kept so that a later repair knows what was done to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import models
from stager.database import Database
from stager.models import decode_path

table = models.Making.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type


@dataclass(frozen=True, slots=True)
class Making:
    """How one focal plane was cut. `digest` is of the focal plane as it was; `shift` what was added to CRPIX1 of
    amplifiers after the first, `crpix` the manifest's word for it."""

    host: str
    path: str
    size: int
    digest: str
    camera: str
    camera_digest: str
    readout: str
    crpix: str
    shift: int


def add(database: Database, connection: Connection, made: Mapping[int, Making]) -> None:
    """Keep how the pieces of these items were made, in place of how they were before."""
    if not made:
        return
    statement = sa.text(f"""
        INSERT INTO makings (item_id, host, path, size, digest, camera, camera_digest, readout, crpix, shift, made_at)
        VALUES (:item, :host, :path, :size, :digest, :camera, :camera_digest, :readout, :crpix, :shift, {database.now})
        ON CONFLICT (item_id) DO UPDATE SET
            host = excluded.host, path = excluded.path, size = excluded.size, digest = excluded.digest,
            camera = excluded.camera, camera_digest = excluded.camera_digest, readout = excluded.readout,
            crpix = excluded.crpix, shift = excluded.shift, made_at = excluded.made_at""").bindparams(
        sa.bindparam("path", type_=table.c.path.type)
    )
    connection.execute(statement, [{"item": item, **asdict(one)} for item, one in made.items()])


def of_items(connection: Connection, items: Sequence[int]) -> dict[int, dict[str, Any]]:
    """How these items were made, by item; those that were not cut are left out."""
    query = sa.text("""
        SELECT item_id, host, path, size, digest, camera, camera_digest, readout, crpix, shift, made_at
        FROM makings WHERE item_id IN :items""").bindparams(sa.bindparam("items", list(items) or [0], expanding=True))
    return {row.item_id: {**row._mapping, "path": decode_path(row.path)} for row in connection.execute(query)}
