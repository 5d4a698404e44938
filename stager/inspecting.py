"""What a look into an item's file comes to: findings, whether the manifest holds the item for them, its image.

The glue between what FITS demands (`transfers.integrity`), what a camera expects of headers (`manifests.checking`)
and what the manifest makes of it (`hold`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from manifests.cameras import Camera
from manifests.checking.checks import check
from manifests.findings import Finding, Severity, merged
from manifests.manifest import Manifest
from stager.database import Database, id_of
from transfers import integrity
from transfers.errors import TransferError
from transfers.fits import Header
from transfers.hosts import Hdu, Limits

FITS_ENDINGS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fits.fz.gz")
MOST_SAID = 5  # findings that the reason of a held item names
FEWEST_SIBLINGS = 3  # whose word counts against one file's
MOST_SIBLINGS = 25  # that are remembered of one exposure


class Unsound(TransferError):
    """A file was looked into, and what was found is as bad as its manifest's `hold` says, or worse."""

    kind = "unsound"
    advice = "have it mended at its source, exclude it with `accept`, or let it through with another `hold`"


def is_fits(path: str) -> bool:
    """Whether a file of this name should be FITS."""
    return path.lower().endswith(FITS_ENDINGS)


def limits(manifest: Manifest) -> Limits:
    """How far the manifest's `check` goes into a file."""
    whole = manifest.check == "fits"
    # Gzip data under another name are told of and brought over; a chop goes by places in the plain file.
    return Limits(sums=whole, pixels=whole, by_content=manifest.kind != "chop")


def findings(
    manifest: Manifest,
    camera: Camera | None,
    path: str,
    hdus: Sequence[Hdu],
    headers: Sequence[Header],
    siblings: Sequence[Mapping[str, Any]] = (),
) -> list[Finding]:
    """All that is to be said of a file, the worst first; headers are those of its HDUs, parsed."""
    of_fits = [
        Finding(one.code, Severity(one.severity), one.text, (one.hdu,)) for one in integrity.troubles(hdus, path)
    ]
    known = camera is not None and (camera.identify(path) or (camera.input and camera.input.ids(path)))
    of_camera = check(camera, path, headers, manifest.ids, siblings) if camera and known else []
    return merged([*of_fits, *of_camera])


def refused(error: TransferError) -> list[Finding]:
    """The finding that an error stands for: a file that cannot be followed; none for an error of another kind."""
    trouble = integrity.of_error(error)
    return [] if trouble is None else [Finding(trouble.code, Severity.FAIL, trouble.text, (trouble.hdu,))]


def verdict(manifest: Manifest, found: Sequence[Finding], host: str, path: str) -> Unsound | None:
    """Why the item is to be held for what was found, None where it is not."""
    reasons = [one for one in found if one.severity.reaches(manifest.hold)]
    if not reasons:
        return None
    more = f"; and {len(reasons) - MOST_SAID} more" if len(reasons) > MOST_SAID else ""
    text = "; ".join(f"{one} [{one.code}]" for one in reasons[:MOST_SAID]) + more
    return Unsound(text, host=host, path=path, side="source", phase="check")


class Siblings:
    """What other files of the same exposure said of it: those of this run, and those registered at a host before.

    Of each exposure a bounded number is remembered: enough to tell who is the odd one out.
    """

    def __init__(self, database: Database, dataset: str, host: str) -> None:
        self._database = database
        self._dataset = dataset
        self._host = host
        self._known: dict[tuple[str, str], deque[Mapping[str, Any]]] = {}

    def of(self, image: Mapping[str, Any], ids: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """What is known of the exposure that an image (an entry of the registry) is of; none while too few are."""
        known = self._exposure(image, ids)
        return tuple(known) if len(known) >= FEWEST_SIBLINGS else ()

    def add(self, image: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
        """Remember what this image says."""
        known = {"mjd": image["mjd"], "exptime": image["exptime"], "filter": ids.get("filter")}
        self._exposure(image, ids).append(known)

    def _exposure(self, image: Mapping[str, Any], ids: Mapping[str, Any]) -> deque[Mapping[str, Any]]:
        key = (str(image["visit"]), str(ids.get("snap", "")))
        if key not in self._known:
            self._known[key] = deque(self._registered(image["visit"], key[1]), MOST_SIBLINGS)
        return self._known[key]

    def _registered(self, visit: int | None, snap: str) -> list[Mapping[str, Any]]:
        if visit is None:
            return []
        values = {"dataset": self._dataset, "visit": visit, "host": self._host, "snap": snap}
        with self._database.read() as connection:
            query = sa.text(f"""
                SELECT mjd, exptime, ids FROM images WHERE dataset = :dataset AND visit = :visit AND host = :host
                  AND COALESCE({id_of(connection, "snap", "ids")}, '') = :snap LIMIT {MOST_SIBLINGS}""")
            rows = connection.execute(query, values).all()
        return [{"mjd": row.mjd, "exptime": row.exptime, "filter": json.loads(row.ids).get("filter")} for row in rows]
