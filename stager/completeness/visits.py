"""What the database knows of the visits of datasets: how many files stand how, which are missing, which images
there are. Reads only."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera, Sets, load
from manifests.errors import CameraError
from manifests.manifest import Manifest
from stager.database import id_of
from stager.models import decode_path

Ids = Mapping[str, Any]
NO_VISIT = ""  # of files that belong to none: calibrations, and focal planes whose headers could not be read
STANDING = """CASE WHEN i.missing THEN 'missing' ELSE i.state END"""
BEST = ("done", "running", "waiting", "held", "missing", "excluded")  # of two that bring a file to one place


class Key(NamedTuple):
    """A visit of a dataset at a host; `visit` as text, NO_VISIT for none."""

    dataset: str
    host: str
    visit: str


Counts = dict[str, int]  # files by how they stand: done, running, waiting, held, missing, excluded


class Plan(NamedTuple):
    """The newest revision of a manifest that has a camera; `camera` is None where its file can no longer be used.

    `layout` is what its files lie as, None where that is not known.
    """

    id: int
    dataset: str
    manifest: Manifest
    camera: Camera | None
    layout: str | None

    @property
    def host(self) -> str:
        return self.manifest.destination.host

    @property
    def sets(self) -> Sets:
        """What a whole visit has of each id; nothing where that is not known."""
        with suppress(CameraError):  # a focal plane that the camera's file no longer has
            return self.camera.expected_sets(self.manifest.focal_plane) if self.camera else {}
        return {}

    @property
    def full(self) -> int:
        """Files of a whole visit, as its files lie; 0 where that is not known."""
        with suppress(CameraError):
            if self.camera and self.layout and self.sets:
                return self.camera.whole(self.layout, self.manifest.focal_plane)
        return 0

    @property
    def named(self) -> frozenset[str]:
        """The visits that its manifest expects."""
        own = {str(self.manifest.ids["visit"])} if self.manifest.expect and "visit" in self.manifest.ids else set()
        return self.manifest.visits | own


def of_visit(connection: Connection, visit: str | None) -> str:
    """SQL for the items (`i`) of a manifest (:manifest) that are of a visit (:visit); of any visit for None."""
    return "i.manifest_id = :manifest" + (f" AND {id_of(connection, 'visit')} = :visit" if visit is not None else "")


def plans(
    connection: Connection, folders: Sequence[Path] = (), dataset: str | None = None, name: str | None = None
) -> list[Plan]:
    """The newest revisions that know visits: all, those of a dataset, or the one of a manifest."""
    query = sa.text("""
        SELECT id, dataset, document FROM manifests
        WHERE intent IN ('active', 'held') AND (dataset = :dataset OR :any_dataset) AND (name = :name OR :any_name)
        ORDER BY id""")
    values = {"dataset": dataset or "", "any_dataset": dataset is None, "name": name or "", "any_name": name is None}
    rows = connection.execute(query, values).all()
    made = (_plan(connection, row[0], row[1], Manifest.from_canonical(row[2]), folders) for row in rows)
    return [plan for plan in made if plan.manifest.camera is not None]


def _plan(connection: Connection, number: int, dataset: str, manifest: Manifest, folders: Sequence[Path]) -> Plan:
    camera = None
    with suppress(CameraError):  # what is known can still be told without it
        camera = load(manifest.camera, folders) if manifest.camera else None
    layout = camera.raw_layout.name if camera else None
    if camera and manifest.kind != "chop":
        query = sa.text("SELECT source FROM items WHERE manifest_id = :id AND ids IS NOT NULL LIMIT 1")
        source = connection.execute(query, {"id": number}).scalar()
        found = camera.identify(decode_path(source)) if source else None
        layout = found[0] if found else None
    return Plan(number, dataset, manifest, camera, layout)


def counts(connection: Connection, every: Collection[Plan]) -> dict[Key, Counts]:
    """How the files of each visit stand. One that two manifests bring to one place is counted once, at its best."""
    of_manifest: dict[Key, dict[int, Counts]] = {}
    by_id = {plan.id: plan for plan in every}
    query = sa.text(f"""
        SELECT i.manifest_id, {id_of(connection, "visit")}, {STANDING}, sum(i.files) FROM items i
        WHERE i.manifest_id IN :manifests GROUP BY 1, 2, 3""").bindparams(_many("manifests", by_id))
    for manifest, visit, standing, files in connection.execute(query):
        key = Key(by_id[manifest].dataset, by_id[manifest].host, visit or NO_VISIT)
        of_manifest.setdefault(key, {}).setdefault(manifest, {})[standing] = int(files)
    shared = {manifest for found in of_manifest.values() if len(found) > 1 for manifest in found}
    together = _together(connection, [by_id[one] for one in shared]) if shared else {}
    return {key: together[key] if len(found) > 1 else next(iter(found.values())) for key, found in of_manifest.items()}


def _together(connection: Connection, every: Collection[Plan]) -> dict[Key, Counts]:
    """The counts of manifests that share visits at a host: by place, the best of each.

    Of a visit that is both chopped there and brought there as files, whose places cannot be compared, it is the way
    that has proven more.
    """
    rank = " ".join(f"WHEN {STANDING} = '{one}' THEN {number}" for number, one in enumerate(BEST))
    query = sa.text(f"""
        SELECT dataset, host, visit, cut, best, sum(files) FROM (
            SELECT m.dataset, m.destination_host AS host, {id_of(connection, "visit")} AS visit,
                   m.kind = 'chop' AS cut, COALESCE(i.destination, i.source) AS place,
                   max(i.files) AS files, min(CASE {rank} END) AS best
            FROM items i JOIN manifests m ON m.id = i.manifest_id WHERE m.id IN :manifests
            GROUP BY 1, 2, 3, 4, 5) AS places
        GROUP BY 1, 2, 3, 4, 5""").bindparams(_many("manifests", [plan.id for plan in every]))
    ways: dict[Key, dict[bool, Counts]] = {}
    for dataset, host, visit, cut, best, files in connection.execute(query):
        of_key = ways.setdefault(Key(dataset, host, visit or NO_VISIT), {})
        of_key.setdefault(bool(cut), {})[BEST[best]] = int(files)
    return {key: max(found.values(), key=lambda one: one.get("done", 0)) for key, found in ways.items()}


def missing(connection: Connection, every: Collection[Plan], chosen: Collection[Key]) -> Iterator[tuple[Key, Ids]]:
    """The ids of every file of these visits that is missing at its source, and that no other manifest brings."""
    by_id = {plan.id: plan for plan in every}
    query = sa.text(f"""
        SELECT i.manifest_id, {id_of(connection, "visit")}, i.ids
        FROM items i JOIN manifests m ON m.id = i.manifest_id
        WHERE i.manifest_id IN :manifests AND i.missing AND NOT EXISTS (
            SELECT 1 FROM items o JOIN manifests n ON n.id = o.manifest_id
            WHERE o.manifest_id IN :manifests AND o.manifest_id <> i.manifest_id AND o.destination = i.destination
              AND NOT o.missing AND n.dataset = m.dataset AND n.destination_host = m.destination_host)
        """).bindparams(_many("manifests", by_id))
    for manifest, visit, ids in connection.execute(query):
        key = Key(by_id[manifest].dataset, by_id[manifest].host, visit or NO_VISIT)
        if key in chosen:
            yield key, json.loads(ids or "{}")


def images(connection: Connection, dataset: str | None = None) -> dict[Key, int]:
    """How many images of each visit are registered."""
    query = sa.text("""
        SELECT dataset, host, visit, count(*) FROM images WHERE dataset = :dataset OR :every GROUP BY 1, 2, 3""")
    rows = connection.execute(query, {"dataset": dataset or "", "every": dataset is None})
    return {Key(row[0], row[1], NO_VISIT if row[2] is None else str(row[2])): row[3] for row in rows}


def findings(connection: Connection, every: Collection[Plan]) -> dict[Key, int]:
    """In how many files of each visit something was found that is worse than a note."""
    by_id = {plan.id: plan for plan in every}
    query = sa.text(f"""
        SELECT f.manifest_id, {id_of(connection, "visit")}, count(DISTINCT f.item_id)
        FROM findings f JOIN items i ON i.id = f.item_id
        WHERE f.severity <> 'note' AND f.manifest_id IN :manifests GROUP BY 1, 2""").bindparams(
        _many("manifests", by_id)
    )
    found: dict[Key, int] = {}
    for manifest, visit, files in connection.execute(query):
        key = Key(by_id[manifest].dataset, by_id[manifest].host, visit or NO_VISIT)
        found[key] = max(found.get(key, 0), files)
    return found


def _many(name: str, values: Collection[int]) -> Any:
    return sa.bindparam(name, list(values) or [0], expanding=True)
