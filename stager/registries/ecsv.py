"""A table of images for `butler ingest-files` of lsst-daf-butler: ECSV, as astropy reads it.

The first column is the file, the others are dimensions of the Butler: the instrument, and what the camera's file or
an option makes of ids. Rows are in the order of the dimensions, so that the same images give the same bytes.
"""

from __future__ import annotations

import csv
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import IO, Any
from urllib.parse import quote

from manifests.cameras import Camera
from manifests.dimensions import ButlerRule
from manifests.errors import CameraError, found, shown
from manifests.layouts import Ids, expectation
from manifests.wording import nearest
from stager.registries.drafts import Draft
from stager.registries.errors import RegistryError
from stager.registries.landed import AT_ONCE, Image, Place

FILE = "file"
INSTRUMENT = "instrument"
NAME = re.compile("[a-z][a-z0-9_]{0,63}")
MAGIC = b"# %ECSV "
UNRESERVED = "/+,=@~!$&'()*;:"  # in a URI's path, beside letters, digits and _.-
NOT_RELATIVE = "#%?"  # which the Butler would take for parts of a URI, where there is no scheme


@dataclass
class Report:
    """What was done: a row for each image. Those that were lost when last looked at are left out."""

    camera: str
    host: str
    datasets: tuple[str, ...]
    columns: tuple[str, ...]
    written: bool = False
    rows: int = 0
    lost: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rule_of(camera: Camera, instrument: str | None, dimensions: Sequence[str]) -> ButlerRule:
    """What the Butler calls a camera's ids, with options such as `detector=ccd` or `detector=raft,sensor`.

    Raises RegistryError for what cannot be a dimension.
    """
    assert camera.butler_rule is not None
    said: dict[str, tuple[str, ...]] = {}
    for text in dimensions:
        name, equals, ids = text.partition("=")
        if not equals or not NAME.fullmatch(name) or name in (FILE, INSTRUMENT):
            raise RegistryError(
                f"--dimension {shown(text, 80)}: expected NAME=ID or NAME=ID,ID such as detector=ccd,amp"
            )
        said[name] = tuple(one for one in ids.split(",") if one)
    try:
        return camera.butler_rule.but(instrument, said)
    except CameraError as error:
        raise RegistryError(f"--dimension: {error}") from error


def chosen_ids(camera: Camera, conditions: Sequence[str]) -> Ids:
    """The ids that options such as `amp=0` or `channel=0,7` ask for. Raises RegistryError for what no id can be."""
    chosen: Ids = {}
    for text in conditions:
        name, _, value = text.partition("=")
        if name not in camera.ids:
            raise RegistryError(f"--where {shown(text, 80)}: no id of {camera.name}{nearest(name, camera.ids)}; "
                                f"expected ID=VALUE such as visit=788033")  # fmt: skip
        own = camera.ids[name].own(value)
        if own is None:
            raise RegistryError(f"--where {name}: {found(value)}; expected {expectation(camera.ids[name])}")
        chosen[name] = own
    return chosen


def export(
    draft: Draft,
    place: Place,
    rule: ButlerRule,
    images: Iterable[Image],
    *,
    root: str | None,
    chosen: Mapping[str, int | str] | None = None,
) -> Report:
    """Write the table of these images, and keep the draft where it is another than what is there.

    `root` is the host's, absolute: files are URIs; without one, paths relative to it. `chosen` are ids that images
    must have. Raises RegistryError where two files would be one to the Butler, and where what is there is no ECSV.
    """
    _see_that_it_is_ours(draft)
    report = Report(place.camera.name, place.host, place.datasets, (FILE, INSTRUMENT, *rule.dimensions))
    with closing(sqlite3.connect("", isolation_level=None)) as scratch:  # "": on disk, and gone when it is closed
        scratch.execute("PRAGMA cache_size = -8192")
        _stage(scratch, rule, _chosen(images, chosen or {}, report))
        names = ", ".join(f"d{number}" for number in range(len(rule.dimensions)))
        _see_all_differ(scratch, rule, names)
        (report.rows,) = scratch.execute("SELECT count(*) FROM files").fetchone()
        if not report.rows:
            raise RegistryError("none of the images that landed is to be told of, so no table is made")
        rows = scratch.execute(f"SELECT path{', ' if names else ''}{names} FROM files ORDER BY {names or 'path'}")
        with draft.file.open("w", encoding="utf-8", newline="") as file:
            _write(
                file, rule, report.columns, ((_file(path, root), rule.instrument, *values) for path, *values in rows)
            )
    report.written = not _is_as_before(draft)
    if report.written:
        draft.keep()
    return report


def _see_that_it_is_ours(draft: Draft) -> None:
    if draft.before is not None:
        with draft.before.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise RegistryError(f"{shown(draft.name)}: no ECSV table; it is left as it is, name another file")


def _chosen(images: Iterable[Image], chosen: Mapping[str, int | str], report: Report) -> Iterator[Image]:
    for image in images:
        if all(image.ids.get(name) == value for name, value in chosen.items()):
            if image.lost:
                report.lost += 1
            else:
                yield image


def _stage(scratch: sqlite3.Connection, rule: ButlerRule, images: Iterator[Image]) -> None:
    columns = "".join(f", d{number}" for number in range(len(rule.dimensions)))
    scratch.execute(f"CREATE TABLE files (path blob{columns})")
    scratch.execute("BEGIN")
    marks = ", ".join("?" * (len(rule.dimensions) + 1))
    while lot := list(islice(images, AT_ONCE)):
        scratch.executemany(f"INSERT INTO files VALUES ({marks})", [_row(rule, image) for image in lot])
    scratch.execute("COMMIT")


def _row(rule: ButlerRule, image: Image) -> list[Any]:
    try:
        return [os.fsencode(image.path), *(rule.value(name, image.ids) for name in rule.dimensions)]
    except CameraError as error:
        raise RegistryError(f"{shown(image.path)}: {error}") from error


def _see_all_differ(scratch: sqlite3.Connection, rule: ButlerRule, names: str) -> None:
    """RegistryError where several files have one data id: the Butler would refuse them halfway."""
    if not names:
        raise RegistryError("the table would have no dimension; name some with --dimension")
    query = f"SELECT count(*), min(path), max(path), {names} FROM files GROUP BY {names} HAVING count(*) > 1"
    row = scratch.execute(f"{query} LIMIT 1").fetchone()
    if row is None:
        return
    (alike,) = scratch.execute(f"SELECT count(*) FROM ({query})").fetchone()
    said = ", ".join(f"{name} {value}" for name, value in zip(rule.dimensions, row[3:], strict=True))
    raise RegistryError(
        f"{alike} data ids would be of more than one file, such as {said}: {shown(os.fsdecode(row[1]))} and "
        f"{shown(os.fsdecode(row[2]))}; make a dimension of more ids (--dimension detector=ccd,amp), or export the "
        "files of one amplifier at a time (--where amp=0)"
    )


def _file(path: bytes, root: str | None) -> str:
    """The URI of a file, or its path relative to the root."""
    try:
        path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RegistryError(f"{shown(os.fsdecode(path))}: its name is no UTF-8, and no Butler could find it") from error
    if root is not None:
        return "file://" + quote(os.fsencode(root).rstrip(b"/") + b"/" + path, safe=UNRESERVED)
    text = path.decode("utf-8")
    if any(sign in text for sign in NOT_RELATIVE) or not text.isprintable():
        raise RegistryError(f"{shown(text)}: the Butler takes signs in it for a URI's; leave out --relative")
    return text


def _write(file: IO[str], rule: ButlerRule, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """ECSV 1.0: a YAML header in comments, then values parted by commas."""
    numbers = {name for name in rule.dimensions if rule.is_number(name)}
    file.write("# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n")
    for name in columns:
        kind = "int64" if name in numbers else "string"
        file.write(f'# - {{name: "{name}", datatype: {kind}}}\n')
    file.write("# schema: astropy-2.0\n")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)


def _is_as_before(draft: Draft) -> bool:
    if draft.before is None or draft.before.stat().st_size != draft.file.stat().st_size:
        return False
    with draft.before.open("rb") as old, draft.file.open("rb") as new:
        while block := new.read(1 << 20):
            if block != old.read(1 << 20):
                return False
    return True
