"""What the tests of registries share: images in Stager's registry without files, and what is read of what was made."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from manifests.cameras import load
from stager import registry
from stager.database import Database
from stager.registries import making
from tests.stager.site import configuration

SENSORS = [("2,3", "1,1"), ("2,3", "1,2")]
CHANNELS = ["0,0", "0,7", "1,3"]


class Archive:
    """Images of datasets at the hosts a and b, by their headers, and what registries are made of them."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.config = configuration(folder, database.url.render_as_string(hide_password=False))
        self.output = folder / "registry.sqlite3"

    def add(
        self,
        camera: str,
        ids: Iterable[dict[str, Any]],
        dataset: str = "D",
        host: str = "b",
        root: str = "",
        **cards: Any,
    ) -> list[str]:
        """Register images with these ids, all with the same cards; returns their paths."""
        loaded = load(camera)
        entries = []
        for one in ids:
            entry = registry.image(loaded, dataset, host, root + loaded.destination(one), cards)
            assert entry is not None
            entries.append(entry)
        with self.database.write() as connection:
            registry.add(self.database, connection, entries)
        return [entry["path"] for entry in entries]

    def change(self, statement: str) -> None:
        with self.database.write() as connection:
            connection.exec_driver_sql(statement)

    def build(self, *datasets: str, **options: Any) -> Any:
        output = options.pop("output", str(self.output))
        return making.registry(self.config, self.database, datasets or ("D",), output, **options)

    def export(self, *datasets: str, **options: Any) -> Any:
        output = options.pop("output", str(self.folder / "raw.ecsv"))
        return making.table(self.config, self.database, datasets or ("D",), output, **options)

    def read(self, query: str, file: Path | None = None) -> list[Any]:
        return rows(file or self.output, query)


def rows(file: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def schema(file: Path) -> dict[str, str | None]:
    return dict(rows(file, "SELECT name, sql FROM sqlite_master"))


def imsim(visit: int = 85471048, snaps: Iterable[int] = (0, 1), filter_: str = "y") -> Iterator[dict[str, Any]]:
    """The ids of twelve images: two snaps of two sensors of three channels."""
    for snap in snaps:
        for raft, sensor in SENSORS:
            for channel in CHANNELS:
                yield {
                    "visit": visit,
                    "filter": filter_,
                    "snap": snap,
                    "raft": raft,
                    "sensor": sensor,
                    "channel": channel,
                }


def cfht(visit: int = 788033, filter_: str = "r", field: str = "D2", ccds: Iterable[int] = range(36)) -> Iterator[Any]:
    """The ids of the amplifiers of a visit: 72 for all CCDs."""
    for ccd in ccds:
        for amp in (0, 1):
            yield {"field": field, "visit": visit, "filter": filter_, "snap": 0, "ccd": ccd, "amp": amp}


IMSIM_CARDS = {"MJD-OBS": 49552.28496, "TAI": 49552.28496, "EXPTIME": 15.0}
CFHT_CARDS = {"MJD-OBS": 53466.2835389, "EXPTIME": 360.09}
