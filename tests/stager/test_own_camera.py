"""A camera of one's own, beside stager.toml: found, before a shipped one, and its errors told when it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.cameras import names
from tests.stager.conftest import Stager
from tests.stager.site import Site

FOUR = """
title = "A camera of four CCDs"
raw_layout = "raw"

[ids]
visit = { kind = "int" }
filter = { kind = "text", pattern = "[ugriz]" }
ccd = { kind = "int" }

[layouts.raw]
templates = ["night/v{visit}-f{filter}/c{ccd:02d}-v{visit}.fits"]
science = true

[expected]
ccd = { first = 0, last = 3 }
"""


def camera(site: Site, text: str, name: str = "four", folder: str = "cameras") -> Path:
    path = site.folder / folder / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_it_is_found_beside_stager_toml_and_says_what_is_missing(site: Site, stager: Stager) -> None:
    camera(site, FOUR)
    site.files(*(f"a:raw/night/v7-fr/c{ccd:02d}-v7.fits" for ccd in (0, 1, 3)))
    site.manifest(camera="four", expect=[7], check="none")
    said = stager("submit", "m.toml", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)[0]["items"] == 4
    [missing] = site.rows("SELECT source, ids FROM items WHERE missing")
    assert missing.source == "raw/night/v7-fr/c02-v7.fits"
    assert json.loads(missing.ids) == {"visit": 7, "filter": "r", "ccd": 2}


def test_the_folder_may_have_another_name(site: Site, stager: Stager) -> None:
    camera(site, FOUR, folder="instruments")
    config = (site.folder / "stager.toml").read_text()
    (site.folder / "stager.toml").write_text(
        config.replace('"stager" = { ', '"stager" = { "cameras" = "instruments", ')
    )
    site.files("a:raw/night/v7-fr/c00-v7.fits")
    site.manifest(camera="four", check="none")
    assert stager("submit", "m.toml").code == 0


def test_it_goes_before_a_shipped_camera_of_the_same_name(site: Site, stager: Stager) -> None:
    site.files(*(f"a:raw/D1/raw/v5-fr/s00/c{ccd:02d}-a{amp}.fits" for ccd in range(36) for amp in range(2)))
    site.manifest(camera="cfht_megacam", expect=[5], check="none")
    assert json.loads(stager("submit", "m.toml", "--dry-run", "--json").out)[0]["items"] == 72
    camera(site, names()["cfht_megacam"].read_text().replace("last = 35", "last = 36", 1), "cfht_megacam")
    assert "lacks" not in stager("submit", "m.toml", "--dry-run").err
    assert json.loads(stager("submit", "m.toml", "--dry-run", "--json").out)[0]["items"] == 74


def test_all_its_errors_are_told_at_once_with_their_places_and_nothing_changes(site: Site, stager: Stager) -> None:
    bad = FOUR.replace('raw_layout = "raw"', 'raw_layout = "rawe"').replace("c{ccd:02d}", "c{chip:02d}")
    bad = bad.replace('title = "A camera of four CCDs"', "titel = 3").replace("last = 3", "last = -1")
    bad += '\n[header.vist]\nkeywords = ["OBSID"]\n[header.filter]\nkeywords = ["filter"]\n'
    path = camera(site, bad)
    site.files("a:raw/night/v7-fr/c00-v7.fits")
    site.manifest(camera="four", check="none")
    said = stager("submit", "m.toml")
    assert said.code == 2
    assert site.value("SELECT count(*) FROM items") == 0
    for place, text in [
        ("titel", 'did you mean "title"?'),
        ("title", "missing"),
        ("raw_layout", 'did you mean "raw"?'),
        ("layouts.raw.templates[0]", "the id chip"),
        ("expected.ccd", "found 0 to -1"),
        ("header.vist", 'did you mean "visit"?'),
        ("header.filter.keywords[0]", "a FITS keyword"),
    ]:
        [line] = [line for line in said.err.splitlines() if f"{path}: {place}: " in line]
        assert text in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"title = [", "not TOML"),
        (b"title = 'a'\ntitle = 'b'\n", "line 2"),
        (b"title = '\xff'\n", "not TOML"),
        (b"x = " + b"[" * 5000, "not TOML"),
        (b"", "title: missing"),
        (b"#" * (1 << 20) + b"\n", "larger than"),
    ],
)
def test_a_file_that_is_no_camera_is_a_sentence(site: Site, stager: Stager, content: bytes, said: str) -> None:
    camera(site, "").write_bytes(content)
    site.files("a:raw/night/v7-fr/c00-v7.fits")
    site.manifest(camera="four", check="none")
    answer = stager("submit", "m.toml")
    assert answer.code == 2
    assert said in answer.err
    assert "four.toml" in answer.err


def test_a_broken_file_of_a_shipped_name_is_not_passed_over(site: Site, stager: Stager) -> None:
    camera(site, "title = [", "cfht_megacam")
    site.files("a:raw/x")
    site.manifest(camera="cfht_megacam", check="none")
    assert "not TOML" in stager("submit", "m.toml").err
    (site.folder / "cameras/cfht_megacam.toml").unlink()
    (site.folder / "cameras/cfht_megacam.toml").mkdir()
    answer = stager("submit", "m.toml")
    assert answer.code == 2
    assert "cfht_megacam.toml" in answer.err
    assert "must be readable" in answer.err


def test_an_unknown_camera_is_told_with_all_there_are(site: Site, stager: Stager) -> None:
    camera(site, FOUR)
    site.files("a:raw/x")
    site.manifest(camera="fours", check="none")
    said = stager("submit", "m.toml").err
    assert 'unknown camera "fours", did you mean "four"?' in said
    assert "cameras: cfht_megacam, decam, four, lsst_imsim" in said


def test_a_value_that_no_path_may_have_is_refused_when_the_manifest_is_read(site: Site, stager: Stager) -> None:
    camera(site, FOUR)
    site.files("a:raw/x")
    site.manifest(camera="four", expect=[{"visit": 7, "ccd": 4}, {"visit": 8, "filter": "y"}], check="none")
    said = stager("submit", "m.toml").err
    assert "four has no ccd 4; its ccds: 0, 1, 2, 3" in said
    assert "expect[1].filter" in said


def test_a_path_that_contradicts_itself_is_told_when_it_is_submitted(sqlite_site: Site) -> None:
    sqlite_site.files("a:raw/v5-fr/E000/R23/S11/imsim_5_R22_S11_C00_E000.fits.gz", "a:raw/notes.txt")
    submitted = sqlite_site.submit(source="a:raw/**", destination="b:raw", camera="lsst_imsim")
    (note,) = submitted.notes
    assert "R22" in note or "2,2" in note
    assert "imsim_5_R22" in note


def test_a_product_with_the_same_ids_is_not_taken_for_the_raw_file(sqlite_site: Site) -> None:
    sqlite_site.files("a:all/postISR/v5-fr/s0/R23/S11/C00.fits")
    expect = [{"visit": 5, "snap": 0, "raft": "2,3", "sensor": "1,1", "channel": "0,0"}]
    submitted = sqlite_site.submit(source="a:all/**", destination="b:all", camera="lsst_imsim", expect=expect)
    assert submitted.states == {"waiting": 1, "missing": 1}
