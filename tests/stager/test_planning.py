"""Planning is pure: a manifest, a listing and a camera give items, and nothing that should exist is forgotten."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.cameras import load
from manifests.manifest import Manifest
from manifests.parts import Exclusion
from manifests.reading import read_text
from stager.expecting import Expectation
from stager.focal_planes import Look
from stager.planning import (
    Planned,
    check_ids,
    finder,
    group_of,
    plan_files,
    plan_focal_planes,
    plan_listed,
)
from tests.stager.site import document
from transfers.hosts import FileInfo

CFHT = load("cfht_megacam")
IMSIM = load("lsst_imsim")


def manifest(exclusions: tuple[Exclusion, ...] = (), **said: Any) -> Manifest:
    facts: dict[str, Any] = {"name": "m", "kind": "copy", "dataset": "d", "source": "a:raw/**", "destination": "b:new"}
    read = read_text(document(facts | said))
    return read.model_copy(update={"exclusions": exclusions})


def infos(*paths: str) -> list[FileInfo]:
    return [FileInfo(path, len(path), 7) for path in paths]


def destinations(planned: Any) -> dict[str, str | None]:
    return {one.source: one.destination for one in planned}


@pytest.mark.parametrize(
    ("source", "path", "destination"),
    [
        ("a:raw/**", "raw/v1/a.fits", "new/v1/a.fits"),
        ("a:raw", "raw/v1/a.fits", "new/v1/a.fits"),
        ("a:raw/v1/a.fits", "raw/v1/a.fits", "new/a.fits"),
        ("a:r*/**", "raw/v1/a.fits", "new/raw/v1/a.fits"),
        ("a:CFHTDeep/D{1..4}/raw", "CFHTDeep/D2/raw/x", "new/D2/raw/x"),
        ("a:calib/{bias,flat}/**", "calib/flat/x", "new/flat/x"),
        ("a:raw/s[01]/*.fits", "raw/s1/x.fits", "new/s1/x.fits"),
    ],
)
def test_the_fixed_part_is_cut_off_and_the_rest_kept(source: str, path: str, destination: str) -> None:
    assert destinations(plan_files(manifest(source=source), infos(path, "elsewhere/x"), None)) == {path: destination}


@given(st.lists(st.text("ab/.é\udce9 ", min_size=1, max_size=8).filter(lambda p: "//" not in p), unique=True))
def test_every_file_below_has_a_destination_of_its_own(names: list[str]) -> None:
    listing = infos(*(f"raw/{name.strip('/')}" for name in names if name.strip("/")))
    planned = list(plan_files(manifest(), dict.fromkeys(listing), None))
    assert len({one.destination for one in planned}) == len(planned)
    assert all(one.destination and one.destination.startswith("new/") for one in planned)
    assert all(one.destination.removeprefix("new/") == one.source.removeprefix("raw/") for one in planned)


def test_a_plain_file_is_waiting_with_its_size_and_time() -> None:
    assert list(plan_files(manifest(), [FileInfo("raw/x", 12, 34)], None)) == [
        Planned("raw/x", "new/x", 12, 34, None, 1, 12)
    ]


def test_a_list_gives_digests_and_what_the_source_lacks_is_missing() -> None:
    listed = [("x", "md5:" + "0" * 32, FileInfo("raw/x", 5, 6)), ("gone", None, None)]
    first, second = plan_listed(manifest(source="a:raw/"), listed, None)
    assert (first.source, first.destination, first.digest, first.bytes) == ("raw/x", "new/x", "md5:" + "0" * 32, 5)
    assert (second.source, second.missing, second.bytes, second.state) == ("raw/gone", True, None, "waiting")


def test_exclusions_by_name_and_by_ids_keep_their_reasons() -> None:
    left_out = (
        Exclusion(ids={"visit": "2"}, reason="clouds"),
        Exclusion(ids={"ccd": "5"}, glob="*a1.fits", reason="dead amplifier"),
    )
    said = manifest(left_out, camera="cfht_megacam", source="a:D1/**")
    paths = [f"D1/raw/v{v}-fr/s00/c{c:02d}-a{a}.fits" for v in (1, 2) for c in (4, 5) for a in (0, 1)]
    planned = {one.source: (str(one.state), one.reason) for one in plan_files(said, infos(*paths), CFHT)}
    assert Counter(planned.values()) == {
        ("waiting", None): 3, ("excluded", "clouds"): 4, ("excluded", "dead amplifier"): 1,
    }  # fmt: skip
    assert planned["D1/raw/v1-fr/s00/c05-a1.fits"] == ("excluded", "dead amplifier")


def test_ids_come_from_paths_and_the_manifest_gives_the_others() -> None:
    said = manifest(camera="cfht_megacam", source="a:D1/**", ids={"field": "D1"})
    (one,) = plan_files(said, infos("D1/raw/v1038843-fr/s00/c03-a1.fits"), CFHT)
    assert one.ids is not None
    assert {name: one.ids[name] for name in ("field", "visit", "filter", "ccd", "amp")} == {
        "field": "D1", "visit": 1038843, "filter": "r", "ccd": 3, "amp": 1,
    }  # fmt: skip
    (stray,) = plan_files(said, infos("D1/README"), CFHT)
    assert stray.ids == {"field": "D1"}


def expected(said: Manifest, found: list[str], camera: Any = CFHT) -> tuple[list[Planned], list[Planned]]:
    expectation = Expectation(said, camera)
    planned = list(expectation.tick(plan_files(said, infos(*found), camera)))
    return planned, list(expectation.missing())


def test_what_is_not_at_the_source_of_an_expected_visit_is_missing() -> None:
    said = manifest(camera="cfht_megacam", source="a:CFHTDeep/D1/**", expect=[1038843])
    found = [f"CFHTDeep/D1/raw/v1038843-fr/s00/c{ccd:02d}-a0.fits" for ccd in range(36)]
    planned, missing = expected(said, found)
    assert (len(planned), len(missing)) == (36, 36)
    assert {one.source for one in missing} == {path.replace("-a0", "-a1") for path in found}
    assert {one.destination for one in missing} == {f"new/raw/v1038843-fr/s00/c{ccd:02d}-a1.fits" for ccd in range(36)}
    assert all(one.missing and one.reason == "missing at the source" and one.bytes is None for one in missing)


def test_a_visit_of_which_nothing_is_there_is_missing_with_what_is_unknown_as_a_star() -> None:
    said = manifest(camera="lsst_imsim", source="a:ImSim/**", expect=[{"visit": 85770111, "raft": "2,3"}])
    _, missing = expected(said, [], IMSIM)
    assert len(missing) == 2 * 9 * 16
    one = missing[0]
    assert one.source.startswith("ImSim/raw/v85770111-f*/E000/R23/S00/imsim_85770111_R23_S00_C00_E000.fits")
    assert finder(one.source)(one.source.replace("*", "r"))
    assert not finder(one.source)(one.source.replace("C00", "C01").replace("*", "r"))


def test_a_missing_file_that_is_excluded_is_not_waited_for() -> None:
    left_out = (Exclusion(ids={"ccd": "35"}, reason="dead"),)
    said = manifest(left_out, camera="cfht_megacam", source="a:D1/**", expect=[1])
    _, missing = expected(said, [])
    assert Counter((one.missing, str(one.state)) for one in missing) == {(True, "waiting"): 70, (False, "excluded"): 2}


@given(st.sets(st.tuples(st.integers(1, 2), st.integers(0, 35), st.integers(0, 1)), max_size=40))
def test_found_and_missing_are_exactly_what_was_expected(there: set[tuple[int, int, int]]) -> None:
    said = manifest(camera="cfht_megacam", source="a:D1/**", expect=[1])
    found = [f"D1/raw/v{v}-fr/s00/c{c:02d}-a{a}.fits" for v, c, a in there]
    planned, missing = expected(said, found)
    assert len(planned) == len(there)
    assert len(missing) == 72 - sum(visit == 1 for visit, *_ in there)
    members = [(one.ids or {}) for one in (*planned, *missing)]
    of_one = [(ids["ccd"], ids["amp"]) for ids in members if ids["visit"] == 1]
    assert sorted(of_one) == [(ccd, amp) for ccd in range(36) for amp in (0, 1)]


def test_focal_planes_go_to_the_folder_of_their_layout_and_bad_ones_are_held() -> None:
    said = manifest(
        (Exclusion(glob="3p.fits", reason="test image"),),
        kind="chop", camera="cfht_megacam", source="a:in/*.fits", destination="b:CFHTDeep",
    )  # fmt: skip
    ids = {"obstype": "raw", "field": "D3", "visit": 1, "filter": "r", "snap": 0}
    looks = [
        Look(FileInfo("in/1o.fits", 5, 6), ids, 72),
        Look(FileInfo("in/2o.fits", 5, 6), {}, 1, "OBJECT is 'zenith'"),
        Look(FileInfo("in/3p.fits", 5, 6), ids, 72),
    ]
    good, bad, left_out = plan_focal_planes(said, looks, CFHT)
    assert (good.destination, good.files, good.bytes, good.size) == ("CFHTDeep/D3/raw/v1-fr/s00", 72, None, 5)
    assert (bad.state, bad.reason, bad.destination) == ("held", "OBJECT is 'zenith'", None)
    assert (left_out.state, left_out.reason) == ("excluded", "test image")


def test_an_expected_focal_plane_that_is_not_there_is_one_item_of_72_files() -> None:
    said = manifest(kind="chop", camera="cfht_megacam", source="a:in/*.fits", expect=[1038843])
    expectation = Expectation(said, CFHT)
    (one,) = expectation.missing()
    assert (one.files, one.missing, one.destination) == (72, True, None)
    assert finder(one.source)("in/1038843o.fits.fz")


def test_another_focal_plane_of_the_camera_is_expected_where_the_manifest_names_it() -> None:
    said = manifest(
        camera="cfht_megacam", source="a:D1/**", expect=[1, {"visit": 2, "ccd": 39}], focal_plane="spliced40"
    )
    _, missing = expected(said, [f"D1/raw/v1-fr/s00/c{ccd:02d}-a1.fits" for ccd in range(40)])
    assert Counter((one.ids or {})["visit"] for one in missing) == {1: 40, 2: 2}
    assert missing[-1].source == "D1/raw/v2-f*/s00/c39-a1.fits"
    (plane,) = Expectation(said.model_copy(update={"kind": "chop", "expect": ({"visit": 1},)}), CFHT).missing()
    assert plane.files == 80


def rows(*some: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(("field", "visit", "filter", "ccd", "amp"), row, strict=True)) for row in some]


def test_a_registrys_rows_are_the_files_that_should_exist() -> None:
    said = manifest(camera="cfht_megacam", source="a:CFHTLS/**")
    expectation = Expectation(said, CFHT, rows(("D2", 1, "r", 0, 0), ("D2", 1, "r", 0, 1), ("D3", 2, "i2", 5, 1)))
    list(expectation.tick(plan_files(said, infos("CFHTLS/D2/raw/v1-fr/s00/c00-a1.fits"), CFHT)))
    assert destinations(expectation.missing()) == {
        "CFHTLS/D2/raw/v1-fr/s00/c00-a0.fits": "new/D2/raw/v1-fr/s00/c00-a0.fits",
        "CFHTLS/D3/raw/v2-fi2/s00/c05-a1.fits": "new/D3/raw/v2-fi2/s00/c05-a1.fits",
    }


def test_rows_and_visits_that_say_the_same_are_expected_once() -> None:
    said = manifest(camera="cfht_megacam", source="a:CFHTLS/**", expect=[1, {"visit": 2, "ccd": 5}])
    some = rows(("D2", 1, "r", 0, 0), ("D2", 1, "r", 0, 0), ("D2", 2, "r", 5, 0), ("D2", 2, "r", 6, 0))
    missing = list(Expectation(said, CFHT, some).missing())
    assert Counter((one.ids or {})["visit"] for one in missing) == {1: 72, 2: 3}
    assert {(one.ids or {})["filter"] for one in missing} == {"r"}


def test_rows_of_a_visit_that_disagree_are_each_expected_as_they_stand() -> None:
    said = manifest(camera="cfht_megacam", source="a:CFHTLS/**")
    expectation = Expectation(said, CFHT, rows(("D2", 1, "r", 0, 0), ("D2", 1, "i", 0, 0)))
    found = infos("CFHTLS/D2/raw/v1-fi/s00/c00-a0.fits")
    assert len(list(expectation.tick(plan_files(said, found, CFHT)))) == 1
    assert [one.source for one in expectation.missing()] == ["CFHTLS/D2/raw/v1-fr/s00/c00-a0.fits"]


def test_a_manifests_own_ids_choose_among_the_rows() -> None:
    said = manifest(camera="cfht_megacam", source="a:CFHTLS/**", ids={"field": "D3"})
    expectation = Expectation(said, CFHT, rows(("D2", 1, "r", 0, 0), ("D3", 2, "r", 0, 0)))
    assert [(one.ids or {})["visit"] for one in expectation.missing()] == [2]


def test_each_visit_of_a_registry_is_one_focal_plane_to_chop() -> None:
    said = manifest(kind="chop", camera="cfht_megacam", source="a:in/*.fits")
    some = [*rows(("D2", 1, "r", 0, 0), ("D2", 1, "r", 0, 1)), {"visit": 2}]
    expectation = Expectation(said, CFHT, some)
    looks = [Look(FileInfo("in/1o.fits", 5, 6), {"obstype": "raw", "field": "D2", "visit": 1, "filter": "i"}, 72)]
    list(expectation.tick(plan_focal_planes(said, looks, CFHT)))
    assert [(one.source, one.files) for one in expectation.missing()] == [("in/2*.fits*", 72)]


@given(st.lists(st.tuples(st.just("D1"), st.integers(1, 2), st.just("r"), st.integers(0, 35), st.integers(0, 1))))
def test_rows_are_missing_but_for_what_is_found(some: list[tuple[Any, ...]]) -> None:
    said = manifest(camera="cfht_megacam", source="a:D1/**")
    paths = {f"D1/raw/v{v}-fr/s00/c{c:02d}-a{a}.fits" for _, v, _, c, a in some}
    found = sorted(paths)[::2]
    expectation = Expectation(said, CFHT, rows(*some))
    assert len(list(expectation.tick(plan_files(said, infos(*found), CFHT)))) == len(found)
    assert sorted(one.source for one in expectation.missing()) == sorted(paths - set(found))


def test_the_excluded_files_of_a_focal_plane_are_items_of_their_own_in_its_group() -> None:
    left_out = (
        Exclusion(ids={"visit": "1", "ccd": "5"}, reason="dead"),
        Exclusion(glob="*c07-a1.fits", reason="noisy"),
    )
    said = manifest(left_out, kind="chop", camera="cfht_megacam", source="a:in/*.fits", destination="b:out")
    ids = {"obstype": "raw", "field": "D3", "visit": 1, "filter": "r", "snap": 0}
    looks = [Look(FileInfo("in/1o.fits", 5, 6), ids, 72), Look(FileInfo("in/2o.fits", 5, 6), {**ids, "visit": 2}, 80)]
    one, *pieces, other, last = plan_focal_planes(said, looks, CFHT)
    assert (one.files, other.files) == (69, 79)
    assert [(piece.destination, piece.state, piece.reason) for piece in pieces] == [
        ("out/D3/raw/v1-fr/s00/c05-a0.fits", "excluded", "dead"),
        ("out/D3/raw/v1-fr/s00/c05-a1.fits", "excluded", "dead"),
        ("out/D3/raw/v1-fr/s00/c07-a1.fits", "excluded", "noisy"),
    ]
    assert all(group_of(("visit", "ccd"), piece, chop=True) == {"visit": 1} for piece in (one, *pieces))
    assert last.destination == "out/D3/raw/v2-fr/s00/c07-a1.fits"


def test_a_detrend_of_eighteen_ccds_lacks_only_those_that_it_has() -> None:
    said = manifest(
        (Exclusion(ids={"ccd": "5"}, reason="dead"), Exclusion(ids={"ccd": "30"})),
        kind="chop", camera="cfht_megacam", source="a:in/*.fits",
    )  # fmt: skip
    look = Look(FileInfo("in/x.fits", 5, 6), {"obstype": "bias", "run": "03Am04n"}, 36)
    plane, *pieces = plan_focal_planes(said, [look], CFHT)
    assert (plane.files, [(piece.ids or {})["ccd"] for piece in pieces]) == (34, [5, 5])


def test_groups_are_made_of_the_ids_that_a_trigger_is_per() -> None:
    ids = {"visit": 3, "ccd": 1, "amp": 0}
    one = Planned("x", "y", ids=ids)
    assert group_of((), one, chop=False) == {}
    assert group_of(("visit",), one, chop=False) == {"visit": 3}
    assert group_of(("visit", "ccd"), one, chop=False) == {"visit": 3, "ccd": 1}
    assert group_of(("visit", "raft"), one, chop=False) is None
    assert group_of(("visit", "raft"), one, chop=True) == {"visit": 3}
    assert group_of(("visit",), Planned("x", "y"), chop=True) is None


def test_ids_that_the_camera_cannot_have_are_said_before_anything_is_planned() -> None:
    assert check_ids(IMSIM, manifest(camera="lsst_imsim", expect=[1])) is None
    said = check_ids(IMSIM, manifest(camera="lsst_imsim", expect=[{"visit": 1, "raft": "0,0"}]))
    assert said is not None
    assert "no raft 0,0" in said
