"""What was found in files: kept with their items, told by visit and fault, holding what the manifest says it holds."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from astropy.io import fits

from stager import findings, intents, showing
from stager.samples import Exposure, Visit, write_focal_plane, write_visit
from tests.stager.conftest import Stager
from tests.stager.site import Site

FEW = Visit(sensors=("00", "01"), channels=("00", "01"), snaps=(0,))


def landed(site: Site, visit: Visit = FEW, **said: object) -> None:
    write_visit(site.path("a:"), visit, shape=(2, 3))
    site.run(source="a:raw/**", destination="b:ImSim/raw", camera="lsst_imsim", **said)


def change(path: Path, pixels: object = None, **cards: object) -> None:
    """Write other values into the header of a .fits.gz, or other pixels."""
    with fits.open(path) as hdus:
        if pixels is not None:
            hdus[0].data = pixels
        for keyword, value in cards.items():
            hdus[0].header[keyword] = value
        plain = path.with_suffix("")
        hdus.writeto(plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()


def files(site: Site, place: str = "a:raw") -> list[Path]:
    return sorted(site.path(place).rglob("*.fits.gz"))


def test_a_sensor_with_bad_times_is_brought_over_and_reported(site: Site) -> None:
    landed(site, Visit(sensors=("00", "01"), channels=("00",), snaps=(0,), bad_times=(("23", "01"),)))
    assert set(site.states().values()) == {"done"}
    found = findings.findings(site.database)
    assert {one.code for one in found} == {"mjd-zero"}
    assert all("S01" in one.location and one.ids["sensor"] == "0,1" for one in found)
    assert findings.findings(site.database, "another dataset") == []
    assert site.value("SELECT count(*) FROM images") == 2


def test_a_header_that_says_other_ids_than_the_path_holds_the_file(site: Site) -> None:
    (name,) = write_visit(site.path("a:"), Visit(sensors=("00",), channels=("00",), snaps=(0,)), shape=(2, 3))
    wrong = site.path("a:") / str(name).replace("S00", "S11")
    wrong.parent.mkdir(parents=True)
    site.path(f"a:{name}").rename(wrong)
    said = {"source": "a:raw/**", "destination": "b:ImSim/raw", "camera": "lsst_imsim"}
    site.run(**said)
    assert set(site.states().values()) == {"held"}
    assert not list(site.path("b:").rglob("*.fits.gz"))
    reason = site.value("SELECT reason FROM items")
    assert "ids-differ" in reason
    assert "0,0" in reason
    assert "1,1" in reason
    site.run(**said, hold="none")
    assert set(site.states().values()) == {"done"}
    found = findings.findings(site.database, least="fail")
    assert {(one.code, one.state) for one in found} == {("ids-differ", "done")}, found


def test_the_manifest_says_which_severity_holds_a_file(sqlite_site: Site) -> None:
    visit = Visit(sensors=("00", "01"), channels=("00",), snaps=(0,), bad_times=(("23", "01"),))
    landed(sqlite_site, visit, hold="warn")
    assert sorted(sqlite_site.states().values()) == ["done", "held"]
    (kind,) = {row[0] for row in sqlite_site.rows("SELECT kind FROM items WHERE state = 'held'")}
    assert kind == "unsound"


def test_a_file_that_was_mended_loses_its_findings(sqlite_site: Site) -> None:
    site = sqlite_site
    landed(site, Visit(sensors=("00",), channels=("00",), snaps=(0,), bad_times=(("23", "00"),)), hold="warn")
    (path,) = files(site)
    assert findings.findings(site.database)
    change(path, **{"MJD-OBS": 49552.28496, "TAI": 49552.28496})
    intents.retry(site.database, "m", None)
    site.work()  # sees that the source changed
    site.change("UPDATE items SET not_before = 0")
    site.work()
    assert findings.findings(site.database) == []
    assert set(site.states().values()) == {"done"}


def test_findings_go_on_with_what_a_revision_carries_over(site: Site) -> None:
    bad = Visit(sensors=("00", "01"), channels=("00",), snaps=(0,), bad_times=(("23", "01"),))
    landed(site, bad)
    before = findings.findings(site.database)
    site.run(source="a:raw/**", destination="b:ImSim/raw", camera="lsst_imsim", lead="AC+")
    assert site.value("SELECT max(revision) FROM manifests") == 2
    assert findings.findings(site.database) == before != []


def test_one_image_whose_time_differs_from_its_exposures_is_found_whichever_came_first(site: Site) -> None:
    write_visit(site.path("a:"), Visit(sensors=("00", "01", "02"), channels=("00", "01"), snaps=(0,)), shape=(2, 3))
    first, *_, last = files(site)
    for path, mjd in ((first, 49552.5), (last, 49552.6)):
        change(path, **{"MJD-OBS": mjd, "TAI": mjd})
    site.run(source="a:raw/**", destination="b:ImSim/raw", camera="lsst_imsim")
    found = findings.findings(site.database)
    assert {one.code for one in found} == {"sibling-mjd"}
    assert sorted(one.location.rpartition("/")[2] for one in found) == sorted([first.name, last.name])


def test_a_bad_sensor_is_one_sentence(sqlite_site: Site) -> None:
    visit = Visit(sensors=("00", "01"), channels=("00", "01", "02"), snaps=(0, 1), bad_times=(("23", "01"),))
    landed(sqlite_site, visit)
    told = list(findings.summaries(findings.findings(sqlite_site.database)))
    assert [(severity, code) for severity, code, _ in told] == [("warn", "mjd-zero")]
    (sentence,) = [one for _, _, one in told]
    assert "6 files" in sentence
    assert "sensor 0,1" in sentence


def test_status_and_show_tell_of_findings(site: Site, stager: Stager) -> None:
    landed(site, Visit(sensors=("00", "01"), channels=("00",), snaps=(0,), bad_times=(("23", "01"),)))
    status = stager("status")
    assert "1 warning" in status.out
    assert "registry check" in status.out
    assert '"warn": 1' in stager("status", "--json").out
    shown = showing.show(site.database, "m", None, 10, False)
    (bad,) = [item for item in shown.items if item.findings]
    assert bad.findings[0]["code"] == "mjd-zero"
    assert "zero" in stager("show", "m").out


def test_without_a_check_nothing_is_looked_into(sqlite_site: Site) -> None:
    landed(sqlite_site, Visit(sensors=("00",), channels=("00",), snaps=(0,), bad_times=(("23", "00"),)), check="none")
    assert sqlite_site.value("SELECT count(*) FROM findings") == 0
    assert set(sqlite_site.states().values()) == {"done"}


def test_a_check_of_headers_alone_finds_bad_times_and_no_damage_of_pixels(sqlite_site: Site) -> None:
    site = sqlite_site
    write_visit(site.path("a:"), FEW, shape=(2, 3))
    damaged, *others = files(site)
    change(damaged, np.random.default_rng(4).integers(0, 65535, (400, 400), np.uint16))
    data = bytearray(damaged.read_bytes())
    data[-6] ^= 0xFF  # in the CRC of the gzip trailer
    damaged.write_bytes(bytes(data))
    site.run(source="a:raw/**", destination="b:quick", camera="lsst_imsim", check="headers")
    assert set(site.states().values()) == {"done"}
    site.run("full", source="a:raw/**", destination="b:full", camera="lsst_imsim")
    assert sorted(site.states("full").values()) == ["done"] * len(others) + ["held"]


def test_a_plane_with_wrong_sums_is_held_and_nothing_of_it_lands(sqlite_site: Site) -> None:
    site = sqlite_site
    plane = site.path("a:in/1038843o.fits")
    plane.parent.mkdir(parents=True)
    write_focal_plane(plane, Exposure(), rows=33)
    with fits.open(plane, mode="update") as hdus:
        hdus[18].add_checksum()
        hdus[18].header["DATASUM"] = "1"
    site.run(kind="chop", source="a:in/*.fits", destination="b:out", camera="cfht_megacam", trigger=None)
    assert set(site.states().values()) == {"held"}
    reason = site.value("SELECT reason FROM items")
    assert "HDU 18" in reason
    assert "DATASUM" in reason
    assert not list(site.path("b:out").rglob("*.fits"))
