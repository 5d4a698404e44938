"""Which raw images there are of datasets at a host, with ids and times; into a table of their own, not into memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera, load
from manifests.errors import shown
from manifests.headers import TimeRule
from manifests.layouts import Ids
from manifests.wording import nearest
from stager.database import Database
from stager.models import decode_path
from stager.registries.errors import RegistryError
from stager.registries.schemas import Schema, listed, quoted
from stager.registries.taiobs import taiobs

AT_ONCE = 2000  # rows that are in memory
EARLIEST, LATEST = 40000.0, 70000.0  # MJD, of a camera that does not say


class Image(NamedTuple):
    """A raw image as Stager's registry has it. `lost`: when its copy was last looked at it was gone or damaged."""

    path: str
    ids: Ids
    mjd: float | None
    scale: str | None
    exptime: float | None
    lost: bool


@dataclass(frozen=True)
class Place:
    """The raw images of datasets, of one camera and at one host."""

    camera: Camera
    host: str
    datasets: tuple[str, ...]


@dataclass
class Staged:
    """What staging came to: how many images there are, and of these how many without a usable time; how many are lost;
    how many lack an id of the key; how many stand for an image that another stands for too."""

    images: int = 0
    bad_times: int = 0
    lost: int = 0
    nameless: int = 0
    repeated: int = 0


def find(
    database: Database,
    datasets: Sequence[str],
    host: str | None,
    wanted: str | None = None,
    folders: Sequence[Path] = (),
) -> Place:
    """Where the images of datasets are; `wanted` is the host that is meant where none is said and it has some.

    Raises RegistryError where that is no place, or more than one.
    """
    datasets = tuple(dict.fromkeys(datasets))
    with database.read() as connection:
        rows = _counts(connection, datasets)
        _see_all_known(connection, datasets, {row.dataset for row in rows})
    cameras = {name: load(name, folders) for name in {row.camera for row in rows}}
    raw = [row for row in rows if row.layout == cameras[row.camera].raw_layout.name]
    if not raw:
        others = ", ".join(sorted({f"{row.images} of {row.camera}'s {row.layout} files" for row in rows}))
        raise RegistryError(
            f"no raw images of {_names(datasets)} landed yet, so nothing is made"
            + (f"; what landed: {shown(others)}" if others else "")
        )
    host = host or _only_host(raw, datasets, wanted)
    here = [row for row in raw if row.host == host]
    if not here:
        raise RegistryError(f"no raw images of {_names(datasets)} landed at {shown(host, 40)}; {_where(raw)}")
    names = sorted({row.camera for row in here})
    if len(names) > 1:
        raise RegistryError(f"these datasets are of the cameras {', '.join(names)}; name those of one camera")
    return Place(cameras[names[0]], host, datasets)


def _counts(connection: Connection, datasets: Sequence[str]) -> Sequence[Any]:
    query = sa.text("""
        SELECT dataset, host, camera, layout, count(*) AS images FROM images WHERE dataset IN :datasets
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4""").bindparams(sa.bindparam("datasets", list(datasets), expanding=True))
    return connection.execute(query).all()


def _see_all_known(connection: Connection, datasets: Sequence[str], seen: set[str]) -> None:
    """RegistryError for a name that no dataset has."""
    names = connection.execute(sa.text("SELECT name, dataset FROM manifests ORDER BY id"))
    known: dict[str, str] = {row[0]: row[1] for row in names}
    for dataset in datasets:
        if dataset in seen or dataset in known.values():
            continue
        if dataset in known:
            hint = f'; it is a manifest, of the dataset "{shown(known[dataset], 80)}"'
        else:
            hint = nearest(dataset, set(known.values())) or "; `stager status` lists them"
        raise RegistryError(f'there is no dataset "{shown(dataset, 80)}"{hint}')


def _only_host(raw: Sequence[Any], datasets: Sequence[str], wanted: str | None) -> str:
    hosts = sorted({str(row.host) for row in raw})
    if len(hosts) == 1:
        return hosts[0]
    if wanted in hosts:
        return wanted
    raise RegistryError(f"raw images of {_names(datasets)} are at several hosts, and a registry is of one: "
                        f"{_where(raw)}; say which with --host")  # fmt: skip


def _where(raw: Sequence[Any]) -> str:
    hosts = sorted({str(row.host) for row in raw})
    return ", ".join(f"{sum(row.images for row in raw if row.host == host)} at {host}" for host in hosts)


def _names(datasets: Sequence[str]) -> str:
    return ", ".join(f'"{shown(one, 80)}"' for one in datasets)


def images(connection: Connection, place: Place, *, elsewhere: bool = False) -> Iterator[Image]:
    """The raw images of a place, by path; `elsewhere`: those of the same camera and host in all other datasets."""
    query = sa.text(f"""
        SELECT i.path, i.ids, i.mjd, i.scale, i.exptime, c.trouble IS NOT NULL
        FROM images i LEFT JOIN copies c ON c.host = i.host AND c.path = i.path
        WHERE i.host = :host AND i.camera = :camera AND i.layout = :layout
          AND i.dataset {"NOT IN" if elsewhere else "IN"} :datasets
        ORDER BY i.path{"" if connection.dialect.name == "sqlite" else ' COLLATE "C"'}""").bindparams(
        sa.bindparam("datasets", list(place.datasets), expanding=True)
    )
    values = {"host": place.host, "camera": place.camera.name, "layout": place.camera.raw_layout.name}
    streamed = connection.execution_options(stream_results=True, yield_per=AT_ONCE)
    for path, ids, mjd, scale, exptime, lost in streamed.execute(query, values):
        yield Image(decode_path(path), json.loads(ids), mjd, scale, exptime, bool(lost))


def stage(target: sqlite3.Connection, schema: Schema, place: Place, found: Iterable[Image]) -> Staged:
    """Write images into the table temp.landed, the keys of those that are lost into temp.lost.

    Of two with one key that one stays which has a time, else the first; `differ` is set where they say different
    things.
    """
    _make_tables(target, schema)
    columns = (*schema.columns, "path")
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT INTO temp.landed ({listed(columns)}) VALUES ({marks}) {_on_conflict(schema)}"
    insert_lost = f"INSERT OR IGNORE INTO temp.lost VALUES ({', '.join('?' * len(schema.rule.key))})"
    staged, rest = Staged(), iter(found)
    while lot := list(islice(rest, AT_ONCE)):
        named = [image for image in lot if all(name in image.ids for name in schema.rule.key)]
        lost = [[image.ids[name] for name in schema.rule.key] for image in named if image.lost]
        target.executemany(insert, [_row(schema, place.camera.time_rule, one) for one in named if not one.lost])
        target.executemany(insert_lost, lost)
        staged.nameless += len(lot) - len(named)
        staged.lost += len(lost)
    counts = "SELECT count(*), COALESCE(sum(copies), 0) - count(*), count(*) - count(taiObs) FROM temp.landed"
    staged.images, staged.repeated, staged.bad_times = target.execute(counts).fetchone()
    return staged


def _make_tables(target: sqlite3.Connection, schema: Schema) -> None:
    key = f"PRIMARY KEY ({listed(schema.rule.key)})"
    extra = "path text, copies int DEFAULT 1, differ int DEFAULT 0, old integer"
    target.execute(f"CREATE TEMP TABLE landed ({schema.typed(schema.columns)}, {extra}, {key}) WITHOUT ROWID")
    target.execute(f"CREATE TEMP TABLE lost ({schema.typed(schema.rule.key)}, {key}) WITHOUT ROWID")


def _on_conflict(schema: Schema) -> str:
    better = "taiObs IS NULL AND excluded.taiObs IS NOT NULL"
    chosen = [f"{name} = CASE WHEN {better} THEN excluded.{name} ELSE {name} END"
              for name in map(quoted, (*schema.values, "path"))]  # fmt: skip
    other = " OR ".join(f"{name} IS NOT excluded.{name}" for name in map(quoted, schema.values))
    counted = ["copies = copies + 1", f"differ = differ OR {other}"]
    return f"ON CONFLICT DO UPDATE SET {', '.join(counted + chosen)}"


def _row(schema: Schema, rule: TimeRule | None, image: Image) -> list[Any]:
    exposed = image.exptime if image.exptime is not None and image.exptime >= 0 else None
    return [*(image.ids.get(name) for name in schema.rule.columns), time_text(image, rule), exposed, image.path]


def time_text(image: Image, rule: TimeRule | None) -> str | None:
    """The time of an image as registries have it; None for one that its camera finds no good one: zero, a Julian
    date, none at all."""
    earliest, latest = (rule.earliest, rule.latest) if rule else (EARLIEST, LATEST)
    if image.mjd is None or not earliest <= image.mjd <= latest:
        return None
    try:
        return taiobs(image.mjd, image.scale or "utc")
    except ValueError:
        return None
