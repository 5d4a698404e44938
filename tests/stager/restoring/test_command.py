"""`stager restore` as a gate: what it brings, what it proves, and the exit code that a production run relies on."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any

import pytest

from stager import intents
from stager.restoring import gate, proving
from stager.samples import Visit, write_visit
from tests.stager.conftest import Said, Stager
from tests.stager.site import Site

SAID: dict[str, Any] = {"kind": "restore", "source": "mss:raw/**", "destination": "b:raw", "trigger": None}
FILES = ("mss:raw/v1/a", "mss:raw/v1/b", "mss:raw/v2/c")
SMALL = Visit(sensors=("00", "01"), channels=("00", "01"), snaps=(0,))


@pytest.fixture
def site(sqlite_site: Site) -> Site:
    """What follows does not depend on the kind of database; `test_on_both_databases` does it once on each."""
    return sqlite_site


@pytest.fixture
def stored(site: Site) -> Site:
    """Three files at the store, and the manifest m that restores them."""
    site.files(*FILES)
    site.manifest(**SAID)
    return site


def answer(said: Said) -> Any:
    return json.loads(said.out)


def attempts(site: Site) -> int:
    return int(site.value("SELECT count(*) FROM attempts"))


# ------------------------------------------------------------------------------------- all is well


def test_everything_is_brought_and_proven_and_a_second_run_brings_nothing(stored: Site, stager: Stager) -> None:
    said = stager("restore", "m.toml")
    assert said.code == 0, said.out + said.err
    assert "everything is in place and proven: 3 files, 576 B; 3 brought, in" in said.out
    assert stored.path("b:raw/v1/a").read_bytes() == stored.path("mss:raw/v1/a").read_bytes()
    before = attempts(stored)
    said = stager("restore", "m.toml")
    assert said.code == 0
    assert "0 brought, 3 read again, in" in said.out
    assert attempts(stored) == before


def test_what_is_new_at_the_store_is_all_that_the_next_run_brings(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.file("mss:raw/v3/d")
    said = answer(stager("restore", "m.toml", "--json"))
    assert (said["code"], said["brought"]["files"], said["proof"]["read"]["files"]) == (0, 1, 3)


def test_a_group_that_came_is_on_its_queue_when_the_gate_opens(site: Site, stager: Stager) -> None:
    site.files(*FILES)
    site.manifest(**SAID | {"trigger": {"queue": "pipeline"}})
    assert stager("restore", "m.toml").code == 0
    assert [state for *_, state in site.triggers()] == ["ready"]
    assert stager("restore", "m.toml").code == 0
    assert len(site.triggers()) == 1


def test_several_manifests_pass_together_or_not_at_all(stored: Site, stager: Stager) -> None:
    stored.file("mss:calib/flat")
    stored.manifest("n", **SAID | {"source": "mss:calib/**", "destination": "c:calib"})
    stored.manifest("none", **SAID | {"source": "mss:nothing/**", "destination": "c:nothing"})
    assert stager("restore", "m.toml", "n.toml").code == 0
    said = stager("restore", "m.toml", "n.toml", "none.toml")
    assert said.code == 1
    assert "none:\n" in said.out
    assert "0 of 0 files" not in said.out
    assert "mss:nothing/** has no file to restore" in said.out


def test_what_was_lost_or_spoilt_in_place_is_brought_again(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.path("b:raw/v1/a").unlink()
    spoilt = stored.path("b:raw/v1/b")
    times = spoilt.stat()
    spoilt.write_bytes(b"x" * times.st_size)
    os.utime(spoilt, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rot does: neither size nor time tells
    said = answer(stager("restore", "m.toml", "--json"))
    assert (said["code"], said["proof"]["gone"], said["proof"]["corrupt"], said["brought"]["files"]) == (0, 1, 1, 2)
    (aside,) = said["proof"]["aside"]
    assert stored.path(aside).read_bytes() == b"x" * times.st_size
    for name in ("v1/a", "v1/b"):
        assert stored.path(f"b:raw/{name}").read_bytes() == stored.path(f"mss:raw/{name}").read_bytes()


def test_what_was_spoilt_by_a_folder_in_its_place_is_told(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.path("b:raw/v1/a").unlink()
    stored.path("b:raw/v1/a").mkdir()
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "b:raw/v1/a" in said.out


def test_what_was_evicted_is_brought_again(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.path("b:raw/v2/c").unlink()
    stored.change("DELETE FROM copies WHERE path = 'raw/v2/c'")
    stored.change("""
        UPDATE items SET state = 'excluded', kind = 'evicted', reason = 'evicted to make room'
        WHERE destination = 'raw/v2/c'""")
    said = answer(stager("restore", "m.toml", "--json"))
    assert (said["code"], said["brought"]["files"]) == (0, 1)
    assert stored.path("b:raw/v2/c").exists()


def test_what_an_error_held_is_tried_again_and_what_an_operator_held_is_not(stored: Site, stager: Stager) -> None:
    stored.file("b:raw/v1/a", "another file")
    stored.file("b:raw/v2/c", "another file")
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "held: b:raw/v1/a: another file has the name" in said.out
    stored.path("b:raw/v1/a").unlink()
    stored.path("b:raw/v2/c").unlink()
    stored.change("UPDATE items SET kind = 'operator', reason = 'held by an operator' WHERE source = 'raw/v2/c'")
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert stored.states() == {"raw/v1/a": "done", "raw/v1/b": "done", "raw/v2/c": "held"}
    assert "held: b:raw/v2/c: held by an operator" in said.out


def test_what_was_proven_as_it_was_written_alone_is_read_back(stored: Site, stager: Stager) -> None:
    stored.manifest(**SAID | {"proof": "stream"})
    said = answer(stager("restore", "m.toml", "--json"))
    assert (said["code"], said["brought"]["files"], said["proof"]["read"]["files"]) == (0, 3, 3)


def test_what_was_written_alone_and_lately_is_looked_at_too(stored: Site, stager: Stager) -> None:
    stored.manifest(**SAID | {"proof": "stream"})
    assert stager("restore", "m.toml").code == 0
    said = answer(stager("restore", "m.toml", "--trust-within", "3600", "--json"))
    assert (said["code"], said["proof"]["looked"]["files"], said["proof"]["read"]["files"]) == (0, 3, 0)


def test_what_was_proven_lately_is_looked_at_where_that_is_trusted(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.path("b:raw/v1/a").unlink()
    stored.change("UPDATE copies SET proven_at = proven_at - 5000 WHERE path = 'raw/v1/b'")
    said = answer(stager("restore", "m.toml", "--trust-within", "3600", "--json"))
    assert said["code"] == 0
    assert (said["proof"]["looked"]["files"], said["proof"]["read"]["files"], said["proof"]["gone"]) == (1, 1, 1)


# ---------------------------------------------------------------------------------- what is missing


def expecting(site: Site, **more: Any) -> None:
    write_visit(site.path("mss:"), SMALL, shape=(2, 3))
    place = {"visit": SMALL.visit, "snap": 0, "raft": "2,3", "channel": "0,0"}
    expect = [{**place, "sensor": "0,0"}, {**place, "sensor": "2,2"}]
    site.manifest(**SAID | {"destination": "b:ImSim/raw", "camera": "lsst_imsim", "expect": expect} | more)


def test_a_sensor_that_is_expected_and_missing_closes_the_gate(site: Site, stager: Stager) -> None:
    expecting(site)
    said = stager("restore", "m.toml", "--dry-run")
    assert said.code == 1
    assert "1 expected, and not at mss: raw/v85471048-fy/E000/R23/S22/" in said.out
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert f"visit {SMALL.visit}: sensor 2,2: 1 missing" in said.out
    said = answer(stager("restore", "m.toml", "--json"))
    (entry,) = said["manifests"][0]["entries"]
    assert entry["state"] == "missing"
    assert "R23_S22_C00" in entry["location"]


def test_what_is_accepted_as_missing_leaves_the_gate_open(site: Site, stager: Stager) -> None:
    (site.folder / "bad.txt").write_text("sensor=2,2  # no such sensor\n")
    expecting(site, accept={"except": "bad.txt"})
    said = stager("restore", "m.toml")
    assert said.code == 0, said.out


def test_a_file_that_was_missing_and_came_late_is_brought_by_the_next_run(site: Site, stager: Stager) -> None:
    expecting(site)
    assert stager("restore", "m.toml").code == 1
    write_visit(site.path("mss:"), Visit(sensors=("22",), channels=("00",), snaps=(0,)), shape=(2, 3))
    said = stager("restore", "m.toml")
    assert said.code == 0, said.out


def test_an_image_that_the_registry_lacks_is_registered(site: Site, stager: Stager) -> None:
    expecting(site, expect=None)
    assert stager("restore", "m.toml").code == 0
    assert site.change("DELETE FROM images WHERE path LIKE '%R23_S00_C00%'") == 1
    assert stager("restore", "m.toml").code == 0
    assert site.value("SELECT count(*) FROM images") == 4


def test_a_visit_that_has_hardly_a_part_of_its_files_is_remarked_upon_and_no_failure(
    site: Site, stager: Stager
) -> None:
    expecting(site, expect=None)
    other = Visit(visit=SMALL.visit + 1, sensors=("00",), channels=("00", "01"), snaps=(0,))
    write_visit(site.path("mss:"), other, shape=(2, 3))
    said = stager("restore", "m.toml")
    assert said.code == 0
    assert f"remark: visit {other.visit} has 2 files of the 6048 of a whole one" in said.out


# ---------------------------------------------------------------------------------- what is refused


def test_an_empty_listing_is_refused_also_when_everything_was_in_place(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    shutil.rmtree(stored.path("mss:raw"))
    stored.path("mss:raw").mkdir()
    for options in ((), ("--dry-run",)):
        said = stager("restore", "m.toml", *options)
        assert said.code == 1
        assert "mss:raw/** has no file to restore" in said.out


def test_a_list_that_leaves_everything_out_is_no_success(stored: Site, stager: Stager) -> None:
    (stored.folder / "all.txt").write_text("[abc]  # nothing is good\n")
    stored.manifest(**SAID | {"accept": {"except": "all.txt"}})
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "all 3 that it has are left out by the accept list" in said.out


def test_a_store_that_is_away_is_named(stored: Site, stager: Stager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 0.5)
    monkeypatch.setattr(gate, "AGAIN_S", 0.1)
    stored.path("mss:").rename(stored.folder / "away")
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "mss" in said.out
    assert "host down" in said.out
    assert "0 of 0" not in said.out
    said = stager("restore", "m.toml", "--timeout", "0.5", "--json")
    assert said.code == 3
    assert "host down" in said.out
    (stored.folder / "away").rename(stored.path("mss:"))
    assert stager("restore", "m.toml").code == 0
    stored.path("mss:").rename(stored.folder / "away")
    said = stager("restore", "m.toml")
    lines = said.out.splitlines()[-3:]
    assert (said.code, lines[0]) == (1, "m:")
    assert lines[1].endswith("by what was known last, 3 of 3 files are in place")
    assert lines[2].startswith("NOT everything is in place and proven; 0 brought, in ")


@pytest.mark.parametrize("options", [("--timeout", "60"), ()])
def test_a_store_that_comes_back_in_time_is_waited_for(
    stored: Site, stager: Stager, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(gate, "AGAIN_S", 0.1)
    away = stored.folder / "away"
    stored.path("mss:").rename(away)
    looks = []

    def look(hosts: Any, asked: Any) -> None:
        looks.append(asked)
        if len(looks) == 2:
            away.rename(stored.path("mss:"))

    plan = gate.planning.plan
    monkeypatch.setattr(
        gate.planning,
        "plan",
        lambda database, config, hosts, asked: (look(hosts, asked), plan(database, config, hosts, asked))[1],
    )
    assert stager("restore", "m.toml", *options).code == 0
    assert len(looks) >= 2


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--only", "a")])
def test_a_host_that_is_not_configured_is_bad_usage_and_nothing_is_brought(
    stored: Site, stager: Stager, options: tuple[str, ...]
) -> None:
    stored.manifest("n", **SAID | {"source": "ms:raw/**", "destination": "c:raw"})
    said = stager("restore", "m.toml", "n.toml", *options)
    assert said.code == 2
    assert 'n.toml: source: unknown host "ms", did you mean "mss"?' in said.err
    assert not stored.path("b:raw").exists()


def test_a_destination_with_too_little_room_is_refused_before_anything_is_copied(stored: Site, stager: Stager) -> None:
    text = (stored.folder / "stager.toml").read_text()
    (stored.folder / "stager.toml").write_text(
        text.replace(' "kind" = "local"', ' "floor" = 1000000000000000, "kind" = "local"')
    )
    for options in (("--dry-run",), ()):
        said = stager("restore", "m.toml", *options)
        assert said.code == 1, said.out
        assert "b: 576 B are to come and 0 B may be used; make room for 576 B there" in said.out
    assert not stored.path("b:raw").exists()
    assert stored.value("SELECT count(*) FROM items") == 0


def test_where_the_store_lost_files_those_in_place_are_not_told_as_all(sqlite_site: Site, stager: Stager) -> None:
    site = sqlite_site
    site.files("a:raw/a", "a:raw/b", "a:raw/c")
    site.run("in", kind="archive", source="a:raw/**", destination="mss:raw", trigger=None)
    site.path("mss:raw/b").unlink()
    site.manifest(**SAID)
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "m: 2 files in place, 384 B, but:\n  lacking at mss: raw/b: it was proven there" in said.out
    assert re.search(r"NOT everything is in place and proven: 2 files, 384 B, are in place, but see above; ", said.out)


def test_where_too_little_room_ends_it_what_is_in_place_is_told(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.path("b:raw/v1/a").unlink()
    text = (stored.folder / "stager.toml").read_text()
    (stored.folder / "stager.toml").write_text(
        text.replace(' "kind" = "local"', ' "floor" = 1000000000000000, "kind" = "local"')
    )
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "m: 2 of 3 files in place, 384 B (1 waiting)" in said.out
    assert re.search(r"2 of 3 files, 384 B of 576 B, are in place; 0 brought, in \d+ s\n\Z", said.out), said.out
    said = answer(stager("restore", "m.toml", "--json"))
    assert said["manifests"][0]["percent"] == 66.6
    assert said["manifests"][0]["files"] == {
        "total": 3,
        "done": 2,
        "running": 0,
        "waiting": 1,
        "held": 0,
        "missing": 0,
        "excluded": 0,
    }


def test_a_manifest_of_another_kind_a_bad_one_and_two_of_one_name_are_bad_usage(stored: Site, stager: Stager) -> None:
    stored.manifest("copy", source="a:raw", destination="b:x")
    assert stager("restore", "copy.toml").code == 2
    stored.manifest("bad", **SAID | {"trigger": {"queue": "nobody"}})
    assert stager("restore", "m.toml", "bad.toml").code == 2
    (stored.folder / "again.toml").write_text((stored.folder / "m.toml").read_text())
    said = stager("restore", "m.toml", "again.toml")
    assert said.code == 2
    assert '"m" is the name of m.toml too' in said.err
    assert stored.value("SELECT count(*) FROM manifests") == 0


@pytest.mark.parametrize(("intend", "said"), [("hold", "is held"), ("cancel", "is cancelled")])
def test_a_manifest_that_an_operator_stopped_does_not_pass(
    stored: Site, stager: Stager, intend: str, said: str
) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.file("mss:raw/v3/d")
    assert stager("restore", "m.toml", "--timeout", "0").code == 3  # submitted, and nothing of it brought
    getattr(intents, intend)(stored.database, "m")
    told = stager("restore", "m.toml")
    assert told.code == 1
    assert f"it {said} by an operator: `stager release m` lets it go on" in told.out


# -------------------------------------------------------------------------- time, signals, patience


def test_a_time_that_runs_out_says_how_far_it_came_and_that_it_goes_on(stored: Site, stager: Stager) -> None:
    intents.pause(stored.database, "b", "for a look")
    said = stager("restore", "m.toml", "--timeout", "1")
    assert said.code == 3
    assert "the time ran out at 0.0 %: 0 of 3 files" in said.out
    assert "run again, it goes on where it stopped" in said.out
    intents.resume(stored.database, "b")
    assert stager("restore", "m.toml", "--timeout", "60").code == 0


def test_what_hinders_all_that_is_left_is_named_after_a_while(
    stored: Site, stager: Stager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 0.5)
    intents.pause(stored.database, "b", None)
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "b is paused by an operator: `stager hosts resume b` lets it work again" in said.out


def test_what_no_worker_serves_is_told_at_once(stored: Site, stager: Stager) -> None:
    text = (stored.folder / "stager.toml").read_text()
    (stored.folder / "stager.toml").write_text(text.replace('"stager" = { ', '"stager" = { "serves" = ["a", "mss"], '))
    said = stager("restore", "m.toml")
    assert said.code == 1
    assert "3 files, 576 B, have not come yet" in said.out


# ---------------------------------------------------------------------------------------- chosen


def test_some_files_are_restored_to_the_places_that_they_have_by_the_whole_manifest(
    stored: Site, stager: Stager
) -> None:
    said = answer(stager("restore", "m.toml", "--only", "b", "--only", "v2/*", "--json"))
    assert said["code"] == 0
    (manifest,) = said["manifests"]
    assert manifest["name"].startswith("m+only-")
    assert stored.states(manifest["name"]) == {"raw/v1/b": "done", "raw/v2/c": "done"}
    assert not stored.path("b:raw/v1/a").exists()
    assert answer(stager("restore", "m.toml", "--only", "v2/*", "--only", "b", "--json"))["brought"]["files"] == 0
    assert stager("restore", "m.toml").code == 0
    assert stored.path("b:raw/v1/a").exists()


def test_a_visit_is_restored_by_its_number(site: Site, stager: Stager) -> None:
    other = Visit(visit=SMALL.visit + 1, sensors=("00",), channels=("00", "01"), snaps=(0,))
    write_visit(site.path("mss:"), other, shape=(2, 3))
    expecting(site, expect=None, trigger={"queue": "pipeline", "per": ["visit"]})
    said = stager("restore", "m.toml", "--visit", str(other.visit))
    assert said.code == 0, said.out
    assert site.value("SELECT count(*) FROM copies WHERE host = 'b'") == 2
    assert site.triggers() == []


def test_what_is_expected_of_a_chosen_visit_and_missing_closes_the_gate(site: Site, stager: Stager) -> None:
    expecting(site)
    assert stager("restore", "m.toml", "--only", "*S22*").code == 1
    assert stager("restore", "m.toml", "--only", "*S00_C00*").code == 0


def test_a_choice_of_nothing_is_no_success(stored: Site, stager: Stager) -> None:
    said = stager("restore", "m.toml", "--only", "v9/*")
    assert said.code == 1
    assert "--only v9/* chooses none of the files that mss:raw/** has" in said.err
    assert stager("restore", "m.toml", "--visit", "7").code == 2  # it names no camera
    assert stager("restore", "m.toml", "--only", "[").code == 2


def test_a_choice_that_cannot_be_made_is_a_verdict_as_data_too(stored: Site, stager: Stager) -> None:
    keys = list(answer(stager("restore", "m.toml", "--only", "v1/*", "--json")))
    of_plan = list(answer(stager("restore", "m.toml", "--only", "v1/*", "--json", "--dry-run")))
    nothing = stager("restore", "m.toml", "--only", "v9/*", "--json")
    stored.path("mss:").rename(stored.folder / "away")
    away = stager("restore", "m.toml", "--only", "v1/*", "--json", "--timeout", "9")
    for said, words in ((nothing, "--only v9/* chooses none of the files"), (away, "host down")):
        assert (said.code, list(answer(said))) == (1, keys)
        assert (answer(said)["code"], answer(said)["holds"], answer(said)["dry_run"]) == (1, False, False)
        assert words in answer(said)["problems"][0]
        assert words in said.err
    planned = stager("restore", "m.toml", "--only", "v1/*", "--json", "--dry-run")
    assert (planned.code, list(answer(planned)), answer(planned)["code"]) == (1, of_plan, 1)
    assert "host down" in answer(planned)["problems"][0]


# ------------------------------------------------------------------------------------------- dry run


def test_a_dry_run_changes_nothing(stored: Site, stager: Stager) -> None:
    said = stager("restore", "m.toml", "--dry-run")
    assert said.code == 0
    assert "3 files, 576 B to come" in said.out
    assert "likely time: not known yet (nothing was brought by mss > b yet)" in said.out
    assert stored.value("SELECT count(*) FROM manifests") == 0
    assert not stored.path("b:raw").exists()


def test_a_dry_run_leaves_roots_that_were_never_used_as_they_are(stored: Site, stager: Stager) -> None:
    """The disk of the destination is not mounted yet, and the store is known by its marker to others."""
    stored.path("mss:.stager").mkdir()
    stored.path("mss:.stager/marker").write_text("11111111-2222-4333-8444-555555555555\n")
    disk = stored.path("b:").rename(stored.folder / "unmounted")
    stored.path("b:").mkdir()
    for options in ((), ("--only", "a")):
        assert stager("restore", "m.toml", "--dry-run", *options).code == 0
    assert not list(stored.path("b:").iterdir())
    assert stored.rows("SELECT * FROM hosts") == []
    stored.path("b:").rmdir()
    said = stager("restore", "m.toml", "--dry-run")
    assert said.code == 1
    assert "cannot be opened" in said.out + said.err
    disk.rename(stored.path("b:"))
    said = stager("restore", "m.toml")
    assert said.code == 0, said.out + said.err
    marks = dict(stored.rows("SELECT name, marker FROM hosts WHERE name IN ('b', 'mss')"))
    assert marks["mss"] == "11111111-2222-4333-8444-555555555555"
    assert stored.path("b:.stager/marker").read_text().strip() == marks["b"]


def test_quiet_leaves_what_came_of_it_alone(stored: Site, stager: Stager) -> None:
    loud = stager("restore", "m.toml")
    assert "in place: 0.0 %, 0 of 3 files" in loud.err
    said = stager("restore", "m.toml", "--quiet")
    assert (said.code, said.err) == (0, "")
    assert len(said.out.splitlines()) == 2


def test_a_dry_run_says_all_of_it_as_data(stored: Site, stager: Stager) -> None:
    assert stager("restore", "m.toml").code == 0
    stored.path("b:raw/v1/a").unlink()
    stored.file("mss:raw/v3/d")
    said = answer(stager("restore", "m.toml", "--dry-run", "--json"))
    assert (said["dry_run"], said["code"], said["problems"]) == (True, 0, [])
    assert said["sum"] == {
        "in_place": {"files": 2, "bytes": 384},
        "there": {"files": 0, "bytes": 0},
        "to_come": {"files": 2, "bytes": 384},
        "lost": {"files": 1, "bytes": 192},
    }
    (room,) = said["rooms"]
    assert (room["needed"], room["short"], room["hosts"]) == (384, 0, ["b"])
    assert said["time"]["whole"]["seconds"] is not None
    assert stored.states() == {name.removeprefix("mss:"): "done" for name in FILES}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_what_is_in_place_is_proven_page_by_page(
    stored: Site, stager: Stager, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(proving, "ROWS", rows)
    assert stager("restore", "m.toml").code == 0
    said = stager("restore", "m.toml")
    assert said.code == 0
    assert "0 brought, 3 read again" in said.out
    assert "3 looked at" in stager("restore", "m.toml", "--trust-within", "3600").out
