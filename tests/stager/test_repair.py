"""The accident of 2010: focal planes cut with the wrong sign in CRPIX1, landed, archived, and mended by revision."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from astropy.io import fits

from manifests import cameras
from stager.samples import Exposure, write_focal_plane
from tests.stager.site import Site

VISITS = (1038843, 1038844)


def wrong_camera(site: Site, shift: int) -> None:
    """A camera of the site's own, whose historic shift is as given: +1024 is what was done in April 2010."""
    text = (cameras.OWN / "cfht_megacam.toml").read_text()
    changed = re.sub(r"historic = -?[0-9]+", f"historic = {shift}", text)
    assert changed != text or shift == -1024
    folder = site.folder / "cameras"
    folder.mkdir(exist_ok=True)
    (folder / "cfht_megacam.toml").write_text(changed)


def chop(site: Site, **said: object) -> None:
    site.run(
        "chop",
        kind="chop",
        dataset="CFHTLS D3 raw",
        source="a:in/*o.fits",
        destination="a:CFHTDeep",
        camera="cfht_megacam",
        **{"chop": {"crpix": "historic"}, "trigger": {"queue": "pipeline", "per": ["visit"]}, **said},
    )


def archive(site: Site, **said: object) -> None:
    site.run(
        "archive",
        kind="archive",
        dataset="CFHTLS D3 on the store",
        source="a:CFHTDeep/D3/**",
        destination="mss:obs/D3",
        camera="cfht_megacam",
        **said,
    )


def planes(site: Site) -> None:
    site.path("a:in").mkdir(parents=True)
    for visit in VISITS:
        write_focal_plane(site.path(f"a:in/{visit}o.fits"), Exposure(obsid=visit), rows=3)


def shift_of(path: Path, source: Path, ccd: int) -> float:
    with fits.open(source) as plane:
        return round(float(fits.getval(path, "CRPIX1")) - float(plane[ccd + 1].header["CRPIX1"]), 6)


def piece(site: Site, visit: int, ccd: int, amp: int, place: str = "a:CFHTDeep") -> Path:
    (found,) = site.path(place).glob(f"**/v{visit}-f*/s00/c{ccd:02d}-a{amp}.fits")
    return found


def accident(site: Site) -> None:
    """Cut with the wrong sign, landed and archived."""
    planes(site)
    wrong_camera(site, 1024)
    chop(site)
    archive(site)
    assert shift_of(piece(site, VISITS[0], 17, 1), site.path(f"a:in/{VISITS[0]}o.fits"), 17) == 1024
    assert len(site.triggers()) == 3


def mend(site: Site) -> None:
    """The rule put right, both manifests submitted again with `replace`."""
    wrong_camera(site, -1024)
    chop(site, replace=True)
    archive(site, replace=True)


@pytest.fixture
def mended(site: Site) -> Site:
    """After the accident and its mending."""
    accident(site)
    mend(site)
    return site


def test_every_file_of_the_second_amplifier_is_made_again_and_no_other(mended: Site) -> None:
    for visit in VISITS:
        source = mended.path(f"a:in/{visit}o.fits")
        for ccd in (0, 17, 35):
            for place in ("a:CFHTDeep", "mss:obs"):
                assert shift_of(piece(mended, visit, ccd, 0, place), source, ccd) == 0
                assert shift_of(piece(mended, visit, ccd, 1, place), source, ccd) == -1024


def test_what_was_there_is_set_aside_and_not_overwritten(mended: Site) -> None:
    for place in ("a:.stager/quarantine", "mss:.stager/quarantine"):
        aside = [path for path in mended.path(place).rglob("*") if path.is_file()]
        assert len(aside) == 72
        assert all("-a1.fits" in path.name for path in aside)
        for path in aside:
            visit, ccd = (int(found) for found in re.findall(r"v(\d+)-f.*c(\d+)-a1", str(path))[0])
            assert shift_of(path, mended.path(f"a:in/{visit}o.fits"), ccd) == 1024


def test_each_changed_group_gives_one_new_trigger_whose_inventory_is_of_the_new_files(mended: Site) -> None:
    chops = [one for one in mended.triggers() if one[0] == "CFHTLS D3 raw"]
    assert [(revision, group) for _, revision, group, _ in chops] == [
        (1, f"visit={VISITS[0]}"), (1, f"visit={VISITS[1]}"),
        (2, f"visit={VISITS[0]}"), (2, f"visit={VISITS[1]}"),
    ]  # fmt: skip
    (inventory,) = mended.rows(
        f"SELECT inventory FROM triggers WHERE revision = 2 AND group_label = 'visit={VISITS[0]}'"
    )
    lines = mended.path(inventory[0]).read_text().splitlines()
    digests = {path.rpartition("/")[2]: digest for digest, _, path in (line.partition("  ") for line in lines)}
    assert len(digests) == 72
    known = mended.rows("SELECT path, digest FROM copies WHERE host = 'a' AND path LIKE :path", path=f"%v{VISITS[0]}-%")
    assert {path.rpartition("/")[2]: digest.partition(":")[2] for path, digest in known} == digests


def test_how_the_pieces_were_made_is_known_of_either_revision(mended: Site) -> None:
    rows = mended.rows("""
        SELECT m.revision, k.path, k.digest, k.camera, k.readout, k.crpix, k.shift FROM makings k
        JOIN items i ON i.id = k.item_id JOIN manifests m ON m.id = i.manifest_id ORDER BY m.revision, k.path""")
    assert [(row[0], row[3], row[4], row[5], row[6]) for row in rows] == [
        (1, "cfht_megacam", "spliced", "historic", 1024), (1, "cfht_megacam", "spliced", "historic", 1024),
        (2, "cfht_megacam", "spliced", "historic", -1024), (2, "cfht_megacam", "spliced", "historic", -1024),
    ]  # fmt: skip
    source = mended.path(f"a:{rows[0][1]}")
    assert rows[0][2] == f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}" == rows[2][2]


def test_the_mending_done_again_changes_nothing(mended: Site) -> None:
    before = (mended.triggers(), mended.rows("SELECT host, path, digest FROM copies ORDER BY 1, 2"))
    aside = len(list(mended.path("a:.stager/quarantine").rglob("*")))
    chop(mended, replace=True)
    archive(mended, replace=True)
    assert (mended.triggers(), mended.rows("SELECT host, path, digest FROM copies ORDER BY 1, 2")) == before
    assert len(list(mended.path("a:.stager/quarantine").rglob("*"))) == aside
    assert mended.value("SELECT max(revision) FROM manifests") == 2


def test_the_registry_follows(site: Site) -> None:
    accident(site)
    last = site.value("SELECT max(registered_at) FROM images")
    mend(site)
    rows = site.rows(
        "SELECT host, count(*), count(CASE WHEN registered_at > :last THEN 1 END) FROM images "
        "WHERE path LIKE '%-a1.fits' GROUP BY host ORDER BY host",
        last=last,
    )
    assert [tuple(row) for row in rows] == [("a", 72, 72), ("mss", 72, 72)]
    assert site.value("SELECT count(*) FROM images") == 2 * 144


def test_a_corrected_camera_alone_makes_the_next_revision(sqlite_site: Site) -> None:
    accident(sqlite_site)
    wrong_camera(sqlite_site, -1024)
    chop(sqlite_site)  # the same document, but for nothing: the rule alone changed
    assert sqlite_site.value("SELECT max(revision) FROM manifests WHERE name = 'chop'") == 2
    reasons = sqlite_site.rows("SELECT reason FROM items WHERE state = 'held'")
    assert len(reasons) == 2
    assert all("replace" in reason[0] for reason in reasons)  # and nothing was overwritten


def test_a_revision_that_makes_the_same_files_again_gives_no_second_trigger(sqlite_site: Site) -> None:
    planes(sqlite_site)
    chop(sqlite_site)
    assert len(sqlite_site.triggers()) == 2
    # Another mode that comes to the same shift: all is made again, and found to be as it was.
    text = (cameras.OWN / "cfht_megacam.toml").read_text()
    (sqlite_site.folder / "cameras").mkdir()
    (sqlite_site.folder / "cameras" / "cfht_megacam.toml").write_text(text.replace('exact = "width"', "exact = -1024"))
    chop(sqlite_site, chop={"crpix": "exact"})
    assert set(sqlite_site.states("chop").values()) == {"done"}
    assert [one[1] for one in sqlite_site.triggers()] == [1, 1]
    documents = [json.loads(row[0]) for row in sqlite_site.rows("SELECT document FROM manifests ORDER BY revision")]
    assert [one["chop"]["crpix"] for one in documents] == ["historic", "exact"]
