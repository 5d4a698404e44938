"""How complete visits are: what is expected, found, proven and registered; strays, and visits that are absent."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import InputError
from stager.completeness.by_visit import Measure, Visit, completeness, judge, natural
from stager.completeness.visits import Key
from stager.intents import UnknownName
from stager.samples import Exposure, write_focal_plane, write_visit
from stager.samples import Visit as Sample
from tests.stager.conftest import Stager
from tests.stager.site import Site

SMALL = Sample(sensors=("00", "01"), channels=("00", "01"), snaps=(0, 1))
OTHER = Sample(visit=85471049, sensors=("00", "01"), channels=("00", "01"), snaps=(0, 1))
ROW = Sample(visit=85400000, sensors=("00",), channels=("00",), snaps=(0,))
IMSIM = {"source": "a:raw/**", "destination": "b:ImSim/raw", "camera": "lsst_imsim"}
WHERE = Key("m data", "b", "1")


def write(site: Site, *samples: Sample) -> None:
    for sample in samples:
        write_visit(site.path("a:"), sample, shape=(2, 3))


def expecting(*samples: Sample) -> list[dict[str, object]]:
    """What a manifest's `expect` says for these samples."""
    return [
        {"visit": one.visit, "snap": snap, "raft": raft, "sensor": f"{sensor[0]},{sensor[1]}", "channel": channel}
        for one in samples
        for snap in one.snaps
        for raft in (f"{name[0]},{name[1]}" for name in one.rafts)
        for sensor in one.sensors
        for channel in (f"{name[0]},{name[1]}" for name in one.channels)
    ]


def by_visit(site: Site, dataset: str | None = None) -> dict[str | None, Visit]:
    return {visit.visit: visit for visit in completeness(site.database, dataset)}


def judged(counts: Mapping[str, int], measure: Measure, images: int = 0, visit: str = "1") -> Visit:
    return judge(Key("m data", "b", visit), dict(counts), images, 0, measure)


def test_what_is_missing_held_and_excluded_is_counted_by_visit(site: Site) -> None:
    (site.folder / "bad.txt").write_text(f"visit={SMALL.visit} snap=1 sensor=0,1  # shutter\n")
    write(site, SMALL)
    sensor = {"raft": "2,3", "sensor": "0,0"}
    site.run(
        **IMSIM,
        accept={"except": "bad.txt"},
        expect=[{"visit": SMALL.visit, **sensor}, {"visit": 99, "snap": 0, **sensor}],
    )
    partial, absent = by_visit(site)[str(SMALL.visit)], by_visit(site)["99"]
    assert (partial.found, partial.proven, partial.registered) == (6, 6, 6)
    assert (partial.missing, partial.excluded, partial.basis) == (28, 2, "expect")
    assert partial.flags == ("missing",)
    assert (absent.expected, absent.found, absent.proven, absent.missing, absent.registered) == (16, 0, 0, 16, 0)
    assert absent.flags == ("absent",)
    assert absent.lacking == ("nothing of it is there: all 16 missing",)


def test_a_visit_with_all_that_is_expected_is_whole(site: Site) -> None:
    write(site, SMALL)
    site.run(**IMSIM, expect=expecting(SMALL))
    (visit,) = completeness(site.database, "m data")
    assert visit.whole
    assert visit.state == "whole"
    assert (visit.expected, visit.found, visit.proven, visit.registered) == (8, 8, 8, 8)
    assert (visit.dataset, visit.host, visit.full) == ("m data", "b", 6048)


def test_what_is_missing_is_told_in_few_words(site: Site) -> None:
    write(site, Sample(sensors=("00", "01", "02"), missing=(("23", "01"),)))
    sensors = [{"visit": SMALL.visit, "raft": "2,3", "sensor": sensor} for sensor in ("0,0", "0,1", "0,2")]
    site.run(**IMSIM, expect=sensors)
    (visit,) = completeness(site.database)
    assert (visit.expected, visit.found, visit.missing) == (96, 64, 32)
    assert visit.lacking == ("sensor 0,1: all 32 missing",)


def test_files_for_which_nobody_asked_do_not_make_a_visit_look_whole(site: Site) -> None:
    write(site, Sample(sensors=("00", "01"), channels=("00",), snaps=(0,)))
    wanted = {"visit": SMALL.visit, "snap": 0, "raft": "2,3", "channel": "0,0"}
    site.run(**IMSIM, expect=[{**wanted, "sensor": "0,0"}, {**wanted, "sensor": "2,2"}])
    (visit,) = completeness(site.database)
    assert (visit.expected, visit.found, visit.proven, visit.missing) == (2, 2, 2, 1)
    assert not visit.whole


def test_a_visit_that_nobody_expects_is_a_stray(site: Site) -> None:
    write(site, SMALL, OTHER)
    site.run(**IMSIM, expect=expecting(SMALL))
    visits = by_visit(site)
    assert visits[str(SMALL.visit)].whole
    assert visits[str(OTHER.visit)].flags == ("stray",)
    assert visits[str(OTHER.visit)].basis == "found"


def test_images_of_a_visit_that_no_manifest_has_any_more_are_a_stray(site: Site) -> None:
    write(site, SMALL, OTHER)
    site.run(**IMSIM, expect=expecting(SMALL, OTHER))
    shutil.rmtree(site.path(f"a:raw/v{OTHER.visit}-fy"))
    site.run(**IMSIM, expect=expecting(SMALL))
    stray = by_visit(site)[str(OTHER.visit)]
    assert stray.flags == ("stray",)
    assert (stray.expected, stray.found, stray.registered) == (0, 0, 8)


def test_an_expectation_is_of_the_dataset_and_so_of_its_other_hosts_too(site: Site) -> None:
    write(site, SMALL, OTHER)
    site.run("one", dataset="ImSim", **IMSIM, expect=expecting(SMALL))
    site.run("two", dataset="ImSim", **{**IMSIM, "destination": "c:raw"})
    flags = {(visit.host, visit.visit): visit.flags for visit in completeness(site.database, "ImSim")}
    assert flags[("c", str(SMALL.visit))] == ()
    assert flags[("c", str(OTHER.visit))] == ("stray",)


def test_where_nothing_is_expected_what_was_found_is_said_and_a_test_visit_still_stands_out(site: Site) -> None:
    many = Sample(channels=("00", "01", "02", "03"), snaps=(0, 1))
    write(site, many, ROW)
    site.run(**IMSIM)
    visits = by_visit(site)
    whole, row = visits[str(many.visit)], visits[str(ROW.visit)]
    assert (whole.basis, whole.expected, whole.found) == ("found", 24, 24)
    assert whole.whole
    assert row.flags == ("stray", "partial")


def test_a_visit_with_fewer_files_than_others_is_partial_where_nothing_is_expected(site: Site) -> None:
    write(site, SMALL, Sample(visit=OTHER.visit, sensors=("00",), channels=("00", "01"), snaps=(0, 1)))
    site.run(**IMSIM)
    assert by_visit(site)[str(SMALL.visit)].whole
    assert by_visit(site)[str(OTHER.visit)].flags == ("partial",)


def test_a_mosaic_with_more_ccds_does_not_make_the_usual_one_partial() -> None:
    measure = Measure(fullest=80, full=72, registers=True)
    assert judged({"done": 72}, measure, images=72).whole
    assert judged({"done": 80}, measure, images=80).whole
    assert judged({"done": 70}, measure, images=70).flags == ("partial",)


def test_a_visit_is_found_and_not_proven_until_it_landed(site: Site) -> None:
    write(site, SMALL)
    site.submit(**IMSIM, expect=expecting(SMALL))
    (visit,) = completeness(site.database)
    assert (visit.found, visit.proven, visit.flags) == (8, 0, ("unproven",))


def test_files_that_are_held_are_told_apart_from_those_that_wait(site: Site) -> None:
    write(site, SMALL)
    site.submit(**IMSIM)
    site.change("UPDATE items SET state = 'held' WHERE ids LIKE '%\"channel\": \"0,1\"%'")
    (visit,) = completeness(site.database)
    assert (visit.held, visit.flags) == (4, ("held", "unproven"))


def test_what_is_proven_and_not_registered_is_said(site: Site) -> None:
    write(site, SMALL)
    site.run(**IMSIM, expect=expecting(SMALL))
    site.change("DELETE FROM images WHERE path LIKE '%_C01_E000%'")
    (visit,) = completeness(site.database)
    assert (visit.proven, visit.registered, visit.flags) == (8, 6, ("no image",))


def test_a_manifest_that_looks_into_no_header_registers_nothing_and_may(site: Site) -> None:
    write(site, SMALL)
    site.run(**IMSIM, check="none", expect=expecting(SMALL))
    (visit,) = completeness(site.database)
    assert visit.whole
    assert visit.registered == 0


def test_files_with_findings_are_counted_and_notes_are_none(site: Site) -> None:
    write(site, SMALL)
    site.run(**IMSIM, expect=expecting(SMALL))
    site.change("DELETE FROM findings")
    insert = """INSERT INTO findings (item_id, manifest_id, host, path, code, severity, hdus, text)
                SELECT id, manifest_id, 'a', source, :code, :severity, '[]', 'something' FROM items WHERE {}"""
    site.change(insert.format("ids LIKE '%\"snap\": 1%'"), code="mjd-zero", severity="fail")
    site.change(insert.format("ids LIKE '%\"snap\": 1%'"), code="odd", severity="warn")
    site.change(insert.format("1 = 1"), code="no-zeros", severity="note")
    (visit,) = completeness(site.database)
    assert visit.findings == 4


def test_a_focal_plane_counts_as_the_files_it_is_chopped_into(site: Site) -> None:
    site.path("a:in").mkdir()
    write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(), rows=3)
    chop = {"kind": "chop", "source": "a:in/*.fits", "destination": "b:out", "camera": "cfht_megacam"}
    site.run(**chop, expect=[1038843, 1038844])
    visits = by_visit(site)
    there, absent = visits["1038843"], visits["1038844"]
    assert (there.expected, there.proven, there.registered, there.whole) == (72, 72, 72, True)
    assert (absent.expected, absent.found, absent.missing) == (72, 0, 72)


def test_ccds_that_are_left_out_of_a_focal_plane_are_excluded_and_the_rest_is_whole(site: Site) -> None:
    site.path("a:in").mkdir()
    write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(), rows=3)
    (site.folder / "bad.txt").write_text("visit=1038843 ccd=5  # light leak\n")
    chop = {"kind": "chop", "source": "a:in/*.fits", "destination": "b:out", "camera": "cfht_megacam"}
    site.run(**chop, expect=[1038843], accept={"except": "bad.txt"})
    (visit,) = completeness(site.database)
    assert (visit.expected, visit.proven, visit.registered, visit.excluded) == (70, 70, 70, 2)
    assert visit.whole


def test_a_file_that_two_manifests_bring_to_one_place_is_counted_once(site: Site) -> None:
    write(site, SMALL)
    site.run("one", dataset="ImSim", **IMSIM)
    site.run("two", dataset="ImSim", **IMSIM, expect=[{"visit": SMALL.visit, "snap": 0, "raft": "2,3"}])
    (visit,) = completeness(site.database, "ImSim")
    assert (visit.found, visit.proven, visit.missing) == (8, 8, 9 * 16 - 4)


def test_what_one_manifest_misses_and_another_brings_is_not_missing(site: Site) -> None:
    write(site, SMALL)
    shutil.copytree(site.path("a:raw"), site.path("c:raw"))
    shutil.rmtree(site.path(f"a:raw/v{SMALL.visit}-fy/E001"))
    said = {"dataset": "ImSim", "expect": expecting(SMALL), **IMSIM}
    site.run("one", **said)
    assert [visit.missing for visit in completeness(site.database)] == [4]
    site.run("two", **{**said, "source": "c:raw/**"})
    (visit,) = completeness(site.database, "ImSim")
    assert (visit.missing, visit.proven, visit.lacking, visit.whole) == (0, 8, (), True)


def test_files_that_belong_to_no_visit_have_a_row_of_their_own(site: Site) -> None:
    site.files("a:calib/flat/v08Bm04-fr/c00-a0.fits")
    site.run(source="a:calib/**", destination="b:calib", camera="cfht_megacam", check="none")
    (row,) = completeness(site.database)
    assert (row.visit, row.found, row.proven, row.whole) == (None, 1, 1, True)


def test_what_is_not_whole_goes_first_and_then_it_is_by_number(site: Site) -> None:
    samples = [Sample(visit=visit, sensors=("00",), channels=("00",), snaps=(0,)) for visit in (9, 10, 100)]
    write(site, *samples)
    site.run(**IMSIM, expect=[*expecting(*samples), {"visit": 20, "snap": 0, "raft": "2,3", "sensor": "0,0"}])
    assert [visit.visit for visit in completeness(site.database)] == ["20", "9", "10", "100"]


def test_a_manifest_s_name_stands_for_its_dataset(site: Site) -> None:
    write(site, SMALL)
    site.run("one", dataset="ImSim", **IMSIM)
    assert completeness(site.database, "one") == completeness(site.database, "ImSim") != []


def test_a_name_that_nobody_submitted_is_said_with_the_nearest(site: Site) -> None:
    write(site, SMALL)
    site.run("one", dataset="ImSim PT1", **IMSIM)
    with pytest.raises(UnknownName, match='no dataset or manifest "ImSim PT2", did you mean "ImSim PT1"'):
        completeness(site.database, "ImSim PT2")


def test_a_dataset_without_a_camera_has_no_visits(site: Site) -> None:
    site.files("a:raw/x")
    site.run()
    assert completeness(site.database) == []
    with pytest.raises(InputError, match="names a camera"):
        completeness(site.database, "m data")


def test_a_registry_that_the_manifest_names_says_what_is_expected(site: Site) -> None:
    write(site, SMALL, OTHER)
    with closing(sqlite3.connect(site.folder / "registry.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE raw (visit INT, filter TEXT, snap INT, raft TEXT, sensor TEXT, channel TEXT)")
        rows = [
            (one["visit"], "y", *(one[name] for name in ("snap", "raft", "sensor", "channel")))
            for one in expecting(SMALL)
        ]
        lost = (SMALL.visit, "y", 0, "2,3", "2,2", "0,0")
        connection.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?, ?)", [*rows, lost, (7, *lost[1:])])
    site.run(**IMSIM, expect="registry.sqlite3")
    visits = by_visit(site)
    partly, absent, stray = (visits[str(visit)] for visit in (SMALL.visit, 7, OTHER.visit))
    assert (partly.basis, partly.expected, partly.proven, partly.flags) == ("registry", 9, 8, ("missing",))
    assert partly.lacking == ("raft 2,3 sensor 2,2: 1 of 32 missing (snap 0, channel 0,0)",)
    assert (absent.basis, absent.expected, absent.flags) == ("registry", 1, ("absent",))
    assert stray.flags == ("stray",)


counts = st.dictionaries(
    st.sampled_from(["done", "running", "waiting", "held", "missing", "excluded"]), st.integers(1, 100)
)


@given(counts, st.integers(0, 300), st.integers(0, 100), st.sampled_from([None, frozenset({"1"}), frozenset({"2"})]))
def test_a_whole_visit_has_nothing_missing_held_or_unproven(
    files: dict[str, int], images: int, fullest: int, named: frozenset[str] | None
) -> None:
    visit = judged(files, Measure(named=named, fullest=fullest, registers=True), images)
    unwell = {"running", "waiting", "held", "missing"} & files.keys()
    assert not (visit.whole and unwell)
    if named == {"1"} and not unwell and images >= visit.proven:
        assert visit.whole
    assert ("stray" in visit.flags) >= (named == {"2"})
    assert visit.found + visit.missing + visit.excluded == sum(files.values())


@given(st.lists(st.integers(0, 10**20)))
def test_numbers_in_names_sort_by_their_size(numbers: list[int]) -> None:
    assert sorted(map(str, numbers), key=natural) == [str(number) for number in sorted(numbers)]


# ------------------------------------------------------------------------------------- the command


def test_the_table_fits_80_columns_and_says_found_where_nothing_is_expected(
    site: Site, stager: Stager, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(site, SMALL, OTHER)
    site.run(**IMSIM)
    monkeypatch.setenv("COLUMNS", "80")
    said = stager("registry", "check")
    assert said.code == 0, said.out
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.out.count(" found ") == 2
    assert "no manifest says which visits there should be" in said.out


def test_the_command_fails_for_a_stray_and_tells_what_is_missing(site: Site, stager: Stager) -> None:
    write(site, SMALL, OTHER)
    site.run(**IMSIM, expect=[{"visit": SMALL.visit, "snap": 0, "raft": "2,3", "sensor": "0,0"}])
    said = stager("registry", "check", "m data")
    assert said.code == 1
    assert f"m data at b, visit {SMALL.visit}: 14 of 16 missing (every channel but 0,0 0,1)" in said.out
    assert "stray" in said.out


def test_the_command_succeeds_when_every_expected_visit_is_whole(site: Site, stager: Stager) -> None:
    write(site, SMALL)
    site.run(**IMSIM, expect=expecting(SMALL))
    said = stager("registry", "check", "--json")
    assert said.code == 0
    (visit,) = json.loads(said.out)["visits"]
    assert visit["state"] == "whole"
    assert visit["whole"] is True


def test_the_command_says_in_one_line_what_was_typed_wrong(site: Site, stager: Stager) -> None:
    assert stager("registry", "check").code == 3
    site.files("a:raw/x")
    site.run()
    for words, told in (
        (("nothing",), 'there is no dataset or manifest "nothing"'),
        (("m data",), "no manifest of m data names a camera"),
        (("\x1b[31m",), "there is no dataset or manifest"),
    ):
        said = stager("registry", "check", *words)
        assert said.code == 2
        assert told in said.err
        assert "\x1b" not in said.err
        assert said.err.count("\n") == 1


def test_a_dataset_s_name_cannot_draw_on_the_terminal(site: Site, stager: Stager) -> None:
    write(site, SMALL)
    site.run(dataset="[red]x[/red]", **IMSIM)
    said = stager("registry", "check")
    assert "[red]x[/red]" in said.out
