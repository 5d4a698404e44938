"""A manifest against the configuration and its camera, and what it excludes."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import PathError
from manifests.manifest import Exclusion, Location, Manifest
from manifests.problems import problems

HOSTS = {"lsst10": "local", "lsst": "local", "abe": "ssh", "mss": "store", "tape": "store"}


def manifest(**keys: object) -> Manifest:
    base = {"name": "a", "kind": "copy", "dataset": "d", "source": "lsst10:raw/**", "destination": "lsst:new"}
    return Manifest.model_validate({**base, **keys})


def said(**keys: object) -> dict[str, str]:
    return {one.place: one.text for one in problems(manifest(**keys), HOSTS, ["pipeline"])}


@pytest.mark.parametrize(
    ("kind", "source", "destination", "wrong"),
    [
        ("copy", "lsst10", "abe", {}),
        ("copy", "lsst10", "mss", {"destination": 'kind = "archive"'}),
        ("copy", "mss", "lsst", {"source": 'kind = "restore"'}),
        ("copy", "mss", "tape", {"source": "no mass store", "destination": "no mass store"}),
        ("archive", "lsst10", "mss", {}),
        ("archive", "lsst10", "lsst", {"destination": "name a store, one of mss, tape"}),
        ("archive", "mss", "tape", {"source": "one of abe, lsst, lsst10"}),
        ("restore", "mss", "abe", {}),
        ("restore", "lsst10", "lsst", {"source": "a mass store"}),
        ("restore", "mss", "tape", {"destination": "no mass store"}),
        ("chop", "lsst10", "lsst", {}),
        ("chop", "mss", "lsst", {"source": "restore the focal planes"}),
        ("chop", "lsst10", "mss", {"destination": "archive what was chopped"}),
        (
            "copy",
            "lsst1",
            "nowhere",
            {"source": 'did you mean "lsst10"?', "destination": "hosts in stager.toml: abe"},
        ),
    ],
)
def test_each_kind_has_its_kinds_of_hosts(kind: str, source: str, destination: str, wrong: dict[str, str]) -> None:
    found = said(kind=kind, source=f"{source}:a/**", destination=f"{destination}:b", camera="cfht_megacam")
    assert found.keys() == wrong.keys()
    assert all(text in found[place] for place, text in wrong.items())


def test_an_unknown_queue_is_a_problem() -> None:
    assert 'did you mean "pipeline"?' in said(trigger={"queue": "pipelin"})["trigger.queue"]
    assert said(trigger={"queue": "pipeline"}) == {}


def test_ids_that_the_camera_lacks_are_problems() -> None:
    found = said(
        camera="lsst_imsim",
        ids={"field": "D3", "visit": "abc"},
        trigger={"queue": "pipeline", "per": ["vist"]},
        expect=[{"visit": 1, "raft": "0,0"}, {"vissit": 3}, {"visit": "x"}],
        exclusions=[{"ids": {"ccd": "3"}}],
    )
    assert found.keys() == {
        "ids",
        "ids.visit",
        "trigger.per",
        "expect[0]",
        "expect[1]",
        "expect[2].visit",
        "accept.except, entry 1",
    }
    assert 'did you mean "visit"?' in found["trigger.per"]
    assert "has no raft 0,0" in found["expect[0]"]


def test_a_camera_must_be_there_and_know_how_to_chop() -> None:
    assert 'did you mean "cfht_megacam"?' in said(camera="cfht_megacan")["camera"]
    assert "needs a table [chop]" in said(kind="chop", camera="lsst_imsim")["camera"]
    assert "only a camera knows" in said(exclusions=[{"ids": {"ccd": "3"}}])["accept.except, entry 1"]


def test_a_camera_of_ones_own_is_found_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'title = "Own"\nraw_layout = "raw"\n[ids]\nnight = {kind = "int"}\n'
        '[layouts.raw]\ntemplates = ["n{night}.fits"]\n'
    )
    own = manifest(camera="own", trigger={"queue": "pipeline", "per": ["night"]})
    assert problems(own, HOSTS, ["pipeline"], [tmp_path]) == []
    assert [one.place for one in problems(own, HOSTS, ["pipeline"])] == ["camera"]


@pytest.mark.parametrize(
    ("exclusion", "excluded"),
    [
        (Exclusion(ids={"visit": "5"}), True),
        (Exclusion(ids={"visit": "05"}), True),
        (Exclusion(ids={"visit": "5", "raft": "2,3"}), True),
        (Exclusion(ids={"visit": "5", "raft": "23"}), True),
        (Exclusion(ids={"visit": "6"}), False),
        (Exclusion(ids={"visit": "5", "ccd": "1"}), False),
        (Exclusion(glob="c05-a?.fits"), True),
        (Exclusion(glob="*c05-a?.fits"), True),
        (Exclusion(glob="s00/c05-*"), True),
        (Exclusion(glob="v5-fr/**"), True),
        (Exclusion(glob="c06*"), False),
        (Exclusion(glob="v5-fr"), False),
        (Exclusion(ids={"visit": "6"}, glob="c05-a?.fits"), False),
    ],
)
def test_an_exclusion_names_files_by_ids_and_by_name(exclusion: Exclusion, excluded: bool) -> None:
    path = "D1/raw/v5-fr/s00/c05-a1.fits"
    ids: dict[str, int | str] = {"visit": 5, "raft": "2,3"}
    assert exclusion.excludes(path, ids) is excluded
    one = manifest(exclusions=[exclusion.model_dump()])
    assert one.exclusion(path, ids) == (exclusion if excluded else None)


def test_a_location_is_read_and_written() -> None:
    assert Location.parse("abe:CFHTDeep/D1/") == Location("abe", "CFHTDeep/D1")
    assert str(Location("abe", "CFHTDeep")) == "abe:CFHTDeep"
    assert Location.parse("a:x:y").path == "x:y"
    for text in ("x", ":x", "a:/", "a://", "a:b//", "a:..", "-a:x", "a\n:x", "a: x/../y"):
        with pytest.raises(PathError):
            Location.parse(text)


def test_a_manifest_built_in_code_keeps_the_rules() -> None:
    with pytest.raises(ValueError, match="within the source"):
        manifest(destination="lsst10:raw/new")
    with pytest.raises(ValueError, match="frozen"):
        manifest().name = "b"


@pytest.mark.parametrize(
    ("source", "destination", "apart"),
    [
        ("lsst10:raw/**", "lsst10:raw2", True),
        ("lsst10:raw/*.fits", "lsst10:raw/new", True),
        ("lsst10:raw/*.fits", "lsst10:raw", False),
        ("lsst10:raw", "lsst10:raw/new", False),
        ("lsst10:D{1..4}/raw", "lsst10:D5/raw", True),
        ("lsst10:D{1..4}/raw", "lsst10:D2/raw", False),
        ("lsst10:**", "lsst10:new", False),
        ("lsst10:raw/**", "lsst:raw", True),
    ],
)
def test_a_copy_does_not_find_its_own_products(source: str, destination: str, apart: bool) -> None:
    if apart:
        manifest(source=source, destination=destination)
    else:
        with pytest.raises(ValueError, match="within the source"):
            manifest(source=source, destination=destination)
