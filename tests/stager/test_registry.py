"""The registry: what landed, by its header; what has bad headers."""

from __future__ import annotations

import json

from stager.samples import Exposure, Visit, write_focal_plane, write_visit
from tests.stager.site import Site

SMALL = Visit(sensors=("00", "01"), channels=("00", "01"), snaps=(0, 1))


def landed(site: Site, visit: Visit, **said: object) -> None:
    write_visit(site.path("a:"), visit, shape=(2, 3))
    site.run(source="a:raw/**", destination="b:ImSim/raw", camera="lsst_imsim", **said)
    assert set(site.states().values()) <= {"done", "missing", "excluded"}


def test_every_image_that_landed_is_registered_by_its_header(site: Site) -> None:
    landed(site, SMALL)
    rows = site.rows("SELECT dataset, host, path, layout, visit, ids, mjd, scale, exptime FROM images ORDER BY path")
    assert len(rows) == 2 * 2 * 2
    first = rows[0]
    assert first[:5] == (
        "m data",
        "b",
        f"ImSim/raw/v{SMALL.visit}-fy/E000/R23/S00/imsim_{SMALL.visit}_R23_S00_C00_E000.fits.gz",
        "raw",
        SMALL.visit,
    )
    assert json.loads(first[5])["sensor"] == "0,0"
    assert first[6:] == (49552.28496, "tai", 15.0)


def test_the_pieces_of_a_focal_plane_are_registered_with_their_ids(sqlite_site: Site) -> None:
    site = sqlite_site
    site.path("a:in").mkdir()
    write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(), rows=33)
    site.run(kind="chop", source="a:in/*.fits", destination="b:out", camera="cfht_megacam")
    rows = site.rows("SELECT visit, ids, mjd, scale FROM images ORDER BY path")
    assert len(rows) == 72
    ids = json.loads(rows[-1][1])
    assert {name: ids[name] for name in ("field", "visit", "filter", "ccd", "amp")} == {
        "field": "D3", "visit": 1038843, "filter": "r", "ccd": 35, "amp": 1,
    }  # fmt: skip
    assert rows[0][2:] == (54771.1929897, "utc")
