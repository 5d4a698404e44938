"""Columns of a camera's registry, and what the Butler calls its ids: from its file, or from what is in it anyway."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.cameras import Camera, load
from manifests.errors import CameraError, CameraFileError

CAMERA = """
title = "test"
raw_layout = "raw"
[ids]
visit = { kind = "int" }
filter = { kind = "text" }
raft = { kind = "pair" }
ccd = { kind = "int" }
exptime = { kind = "int" }
run = { kind = "text" }
[layouts.raw]
templates = ["{filter}/v{visit}-e{exptime}/R{raft}/c{ccd:02d}.fits"]
[expected]
raft = ["0,1", "2,4"]
ccd = { first = 1, last = 4 }
"""


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    return tmp_path / "odd.toml"


def made(camera: Path, more: str = "", base: str = CAMERA) -> Camera:
    camera.write_text(base + more)
    return load("odd", [camera.parent])


def test_columns_follow_from_the_raw_layout_and_what_a_visit_has(camera: Path) -> None:
    rule = made(camera).registry_rule
    assert rule is not None
    assert rule.columns == {"filter": "text", "visit": "int", "raft": "text", "ccd": "int"}  # expTime has exptime
    assert (rule.key, rule.of_visit, rule.in_table) == (("visit", "raft", "ccd"), ("visit", "filter"), False)


def test_columns_may_be_said_otherwise(camera: Path) -> None:
    rule = made(camera, '[registry]\ncolumns = ["visit", "ccd"]\nunique = "table"').registry_rule
    assert rule is not None
    assert (rule.key, rule.of_visit, rule.in_table) == (("visit", "ccd"), ("visit",), True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('columns = ["visit", "run"]', 'columns has "run"; expected ids of raw files'),
        ('columns = ["visit", "exptime"]', 'columns has "exptime"'),
        ('columns = ["visit", "ccd", "ccd"]', "each once"),
        ('columns = ["ccd"]', "columns lacks visit"),
        ('unique = "both"', "registry.unique"),
        ("columns = []", "registry.columns"),
        ('table = "raw"', "registry.table"),
    ],
)
def test_what_no_registry_can_have_is_said_with_its_place(camera: Path, said: str, expected: str) -> None:
    with pytest.raises(CameraFileError) as refused:
        made(camera, f"[registry]\n{said}")
    assert "registry" in str(refused.value)
    assert expected in str(refused.value)


def test_a_camera_whose_visits_are_no_numbers_has_no_registry_unless_it_asks_for_one(camera: Path) -> None:
    text = CAMERA.replace('visit = { kind = "int" }', 'visit = { kind = "text" }')
    assert made(camera, base=text).registry_rule is None
    with pytest.raises(CameraFileError, match="whole number"):
        made(camera, '[registry]\nunique = "index"', base=text)


def test_a_dimension_of_several_ids_is_a_number_the_last_the_fastest(camera: Path) -> None:
    rule = made(camera).butler_rule
    assert rule is not None
    assert rule.instrument == "odd"
    assert rule.dimensions == {"exposure": ("visit",), "detector": ("raft", "ccd")}
    assert rule.value("exposure", {"visit": 7}) == 7
    numbers = [rule.value("detector", {"raft": raft, "ccd": ccd}) for raft in ("0,1", "2,4") for ccd in range(1, 5)]
    assert numbers == [1 * 5 + ccd for ccd in range(1, 5)] + [14 * 5 + ccd for ccd in range(1, 5)]


def test_every_file_of_a_whole_visit_has_a_number_of_its_own() -> None:
    for name, files in (("cfht_megacam", 72), ("lsst_imsim", 6048), ("decam", 62)):
        camera = load(name)
        assert camera.butler_rule is not None
        found = {
            tuple(camera.butler_rule.value(one, ids) for one in ("exposure", "detector"))
            for ids in camera.expected({"visit": 85471048})
        }
        assert len(found) == files


def test_numbers_of_the_shipped_cameras_are_the_low_bits_of_the_mappers_amplifier_ids() -> None:
    imsim, cfht = load("lsst_imsim").butler_rule, load("cfht_megacam").butler_rule
    assert imsim is not None
    assert cfht is not None
    ids = {"raft": "4,3", "sensor": "2,1", "channel": "1,6"}
    assert imsim.value("detector", ids) == (4 * 5 + 3) * 160 + (2 * 3 + 1) * 16 + (1 * 8 + 6)
    assert cfht.value("detector", {"ccd": 35, "amp": 1}) == (35 << 1) + 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('instrument = "a b"', "butler.instrument"),
        ('dimensions = { detector = ["cdd"] }', 'did you mean "ccd"?'),
        ('dimensions = { detector = ["ccd", "filter"] }', "cannot be numbered by filter"),
        ("dimensions = { detector = [] }", "butler.dimensions.detector"),
        ("sizes = { cdd = 3 }", 'did you mean "ccd"?'),
        ("sizes = { ccd = 0 }", "butler.sizes.ccd"),
    ],
)
def test_what_no_butler_has_is_said_with_its_place(camera: Path, said: str, expected: str) -> None:
    with pytest.raises(CameraFileError) as refused:
        made(camera, f"[butler]\n{said}")
    assert "butler" in str(refused.value)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"raft": "0,1", "ccd": 5}, "say more in `sizes`"),
        ({"raft": "0,5", "ccd": 1}, "no pair of digits"),
        ({"raft": "0,1"}, "made of ccd"),
    ],
)
def test_a_file_that_cannot_be_counted_is_said(camera: Path, ids: dict[str, int | str], expected: str) -> None:
    rule = made(camera).butler_rule
    assert rule is not None
    with pytest.raises(CameraError, match=expected):
        rule.value("detector", ids)


def test_sizes_make_room_for_more(camera: Path) -> None:
    rule = made(camera, "[butler]\nsizes = { ccd = 100 }").butler_rule
    assert rule is not None
    assert rule.value("detector", {"raft": "0,1", "ccd": 99}) == 199


def test_other_focal_planes_count_too(camera: Path) -> None:
    rule = made(camera, "[focal_planes.more]\nccd = { first = 0, last = 9 }").butler_rule
    assert rule is not None
    assert rule.value("detector", {"raft": "0,1", "ccd": 9}) == 19
