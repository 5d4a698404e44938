"""What restores come to before anything is done: places, tapes, room, time; nothing is read and nothing written."""

from __future__ import annotations

import os
from typing import Any

import pytest

from manifests.errors import ManifestError
from stager import reserving
from stager.planning import Planned
from stager.restoring import pace, planning
from stager.restoring.amounts import Amount
from stager.restoring.asked import Asked
from stager.restoring.places import Copy, Found, judge
from stager.restoring.planning import Plans
from tests.stager.recalls.tapes import Tapes
from tests.stager.site import Site
from transfers.errors import Refused
from transfers.hosts import FileInfo

SAID: dict[str, Any] = {"kind": "restore", "source": "mss:raw/**", "destination": "b:raw", "trigger": None}
NS = 10**9


@pytest.fixture
def tapes(sqlite_site: Site) -> Tapes:
    return Tapes(sqlite_site)


def plan(site: Site, *names: str, **said: Any) -> Plans:
    asked = [Asked(site.manifest(name, **SAID | said), f"{name}.toml") for name in names or ("m",)]
    return planning.plan(site.database, site.config, site.hosts, asked)


def bundled(tapes: Tapes, number: int, members: list[str], volume: str | None = None, size: int = 10_240) -> str:
    """A bundle that is known, on tape where a volume is given; of its members only what the database says."""
    path = f"raw/v{number}.{number:012x}.stager.tar"
    tapes.put(path, volume, data=b"\0" * size)
    change = tapes.site.change
    change(
        """INSERT INTO bundles (id, host, path, label, state, files, size, digest)
           VALUES (:id, 'mss', :path, 'v', 'stored', :files, :size, 'sha256:0')""",
        id=number, path=path, files=len(members), size=size,
    )  # fmt: skip
    for at, member in enumerate(members):
        change(
            """INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at, bundle_id, data_offset)
               VALUES ('mss', :path, 100, 'sha256:1', :time, 'reread', 1, :bundle, :at)""",
            path=member, time=NS, bundle=number, at=512 * (2 * at + 1),
        )  # fmt: skip
    return path


# ------------------------------------------------------------------------------------------ places

PROVEN = Copy(5, 7 * NS, None)


@pytest.mark.parametrize(
    ("copy", "there", "found"),
    [
        (None, None, Found.NOTHING),
        (PROVEN, None, Found.LOST),
        (PROVEN, FileInfo("x", 5, 7 * NS), Found.IN_PLACE),
        (PROVEN, FileInfo("x", 5, 7 * NS + 1), Found.IN_PLACE),  # some hosts tell seconds alone
        (PROVEN, FileInfo("x", 5, 8 * NS), Found.THERE),
        (PROVEN, FileInfo("x", 4, 7 * NS), Found.LOST),
        (PROVEN._replace(trouble="corrupt"), FileInfo("x", 5, 7 * NS), Found.LOST),
        (PROVEN._replace(trouble="missing"), FileInfo("x", 5, 7 * NS), Found.THERE),
        (PROVEN._replace(size=6), FileInfo("x", 6, 7 * NS), Found.TAKEN),  # the source has another file by now
        (PROVEN._replace(mtime_ns=6 * NS), FileInfo("x", 5, 6 * NS), Found.THERE),  # of another time at the source
        (None, FileInfo("x", 5, 9 * NS), Found.THERE),
        (None, FileInfo("x", 4, 7 * NS), Found.TAKEN),
        (None, Refused("it is a folder"), Found.TAKEN),
        (PROVEN, Refused("it is a folder"), Found.TAKEN),
    ],
)
def test_how_a_place_stands_is_told_by_what_was_proven_and_what_is_there(
    copy: Copy | None, there: FileInfo | Refused | None, found: Found
) -> None:
    assert judge(Planned("x", "x", 5, 7 * NS), copy, there) is found


def test_every_file_is_counted_by_how_its_place_stands(site: Site) -> None:
    site.files(*(f"mss:raw/{name}" for name in "abcde"))
    site.run(**SAID)
    site.file("mss:raw/new/f")
    site.file("mss:raw/new/g")
    site.file("mss:raw/new/h")
    site.path("b:raw/a").unlink()
    site.path("b:raw/b").write_text("shorter")
    site.file("b:raw/new/f", site.path("mss:raw/new/f").read_bytes())
    site.file("b:raw/new/g", "another file")
    (found,) = plan(site).manifests
    assert (found.in_place.files, found.there.files, found.lost.files, found.to_come.files) == (3, 1, 2, 3)
    assert found.to_come.bytes == 3 * 192
    assert found.in_the_way.names == ["raw/new/g"]
    assert found.problems == [
        "another file is in the place of 1 at b: raw/new/g; move it away, or let the manifest `replace` it"
    ]
    (found,) = plan(site, replace=True).manifests
    assert (found.to_come.files, found.problems) == (4, [])


def test_a_link_in_one_place_holds_up_no_other_file(site: Site) -> None:
    site.files("mss:raw/a", "mss:raw/b")
    site.file("b:raw/other")
    site.path("b:raw/a").symlink_to("/etc/hosts")
    (found,) = plan(site).manifests
    assert (found.down, found.in_the_way.names, found.to_come.files) == (None, ["raw/a"], 1)


def test_nothing_is_written_and_no_file_is_read(site: Site) -> None:
    site.files("mss:raw/a", "mss:raw/b")
    site.run(**SAID)
    rows = site.rows("SELECT * FROM copies ORDER BY id"), site.rows("SELECT * FROM items ORDER BY id")
    path = site.path("b:raw/a")
    times = path.stat()
    path.write_bytes(b"x" * times.st_size)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # which only reading would show
    (found,) = plan(site).manifests
    assert (found.in_place.files, found.to_come.files) == (2, 0)
    assert (site.rows("SELECT * FROM copies ORDER BY id"), site.rows("SELECT * FROM items ORDER BY id")) == rows


def test_what_a_store_had_and_does_not_list_any_more_is_lacking(site: Site) -> None:
    site.files("a:raw/a", "a:raw/b", "a:raw/c")
    site.run("in", kind="archive", source="a:raw/**", destination="mss:raw", trigger=None)
    assert plan(site).problems == []
    site.path("mss:raw/b").unlink()
    problem = "lacking at mss: raw/b: it was proven there, and is not there any more"
    assert plan(site).manifests[0].lacking == [problem]
    assert plan(site, source="mss:raw/[bc]").manifests[0].lacking == [problem]
    assert plan(site, source="mss:raw/[ac]").manifests[0].lacking == []
    (site.folder / "gone.txt").write_text("b  # removed to make room\n")
    assert plan(site, accept={"except": "gone.txt"}).problems == []


def test_each_file_that_a_store_had_is_named(site: Site) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    site.files(*(f"a:raw/{name}" for name in names))
    site.run("in", kind="archive", source="a:raw/**", destination="mss:raw", trigger=None)
    for name in names[1:]:
        site.path(f"mss:raw/{name}").unlink()
    said = plan(site).manifests[0].lacking
    assert said == [f"lacking at mss: raw/{name}: it was proven there, and is not there any more" for name in names[1:]]


# ------------------------------------------------------------------------------------------- tapes


def test_of_bundles_on_tape_each_is_recalled_once_however_many_manifests_need_it(tapes: Tapes) -> None:
    bundled(tapes, 1, ["raw/v1/a", "raw/v1/b"], "T1")
    bundled(tapes, 2, ["raw/v2/a"], "T2", size=20_480)
    bundled(tapes, 3, ["raw/v3/a"])
    tapes.put("raw/large", "T2", data=b"x" * 5000)
    plans = plan(tapes.site, "m", "n", source="mss:raw/**")
    for found in plans.manifests:
        assert found.to_come.files == 5
        assert found.recalls.recall == Amount(3, 10_240 + 20_480 + 5000)
        assert found.recalls.volumes == {"T1", "T2"}
    assert plans.recalls["mss"].recall == Amount(3, 10_240 + 20_480 + 5000)
    assert plans.problems == []


def test_what_is_in_place_needs_no_tape(tapes: Tapes) -> None:
    tapes.put("raw/a", "T1")
    tapes.put("raw/b")
    tapes.restore(source="mss:raw/b", destination="b:raw")
    tapes.work()
    tapes.migrate("raw/b", "T9")
    (found,) = plan(tapes.site).manifests
    assert (found.in_place.files, found.recalls.recall.files, found.recalls.volumes) == (1, 1, {"T1"})


def test_what_is_on_its_way_and_what_a_store_has_lost_are_told(tapes: Tapes) -> None:
    bundled(tapes, 1, ["raw/v1/a", "raw/v1/b"], "T1")
    lost = bundled(tapes, 2, ["raw/v2/a"], "T2")
    tapes.mark(lost, state="lost")
    tapes.set(latency=1000)
    tapes.tape.library().ask("/raw/v1.000000000001.stager.tar")
    plans = plan(tapes.site)
    (found,) = plans.manifests
    assert (found.recalls.recall.files, found.recalls.staging) == (1, 1)
    assert plans.problems == [f"m: mss:{lost}: the store has lost it"]


def test_members_of_a_bundle_that_is_gone_and_a_bundle_that_nobody_knows_are_lacking(tapes: Tapes) -> None:
    gone = bundled(tapes, 1, ["raw/v1/a", "raw/v1/b"])
    bundled(tapes, 2, ["raw/v2/a"])
    tapes.site.change(
        """INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at)
           VALUES ('mss', 'raw/file', 100, 'sha256:1', :time, 'reread', 1)""",
        time=NS,
    )
    (tapes.tape.state / "files" / gone).unlink()
    tapes.put("raw/foreign.stager.tar")
    (found,) = plan(tapes.site).manifests
    assert found.to_come.files == 1
    vanished, unknown = found.lacking
    assert vanished == "lacking at mss: raw/file: it was proven there, and is not there any more"
    assert "1 left out at mss: raw/foreign.stager.tar: a bundle that the database does not know" in unknown
    assert found.problems[2].startswith(f"2 lacking at mss: raw/v1/a: its bundle {gone} is not on the store, ")


# -------------------------------------------------------------------------------------------- room


def test_hosts_of_one_file_system_share_its_room_and_keep_their_floors(sqlite_site: Site) -> None:
    site = sqlite_site
    site.files("mss:raw/a", "mss:more/b")
    asked = [
        Asked(site.manifest("m", **SAID), "m.toml"),
        Asked(site.manifest("n", **SAID | {"source": "mss:more/**", "destination": "c:more"}), "n.toml"),
    ]
    plans = planning.plan(site.database, site.config, site.hosts, asked)
    (room,) = plans.rooms
    assert (room.hosts, room.needed, room.short) == (["b", "c"], 384, 0)
    floor = site.hosts["c"].space().free - 300  # enough for one of the two
    hosts = {**site.config.hosts, "c": site.config.hosts["c"].model_copy(update={"floor": floor})}
    config = site.config.model_copy(update={"hosts": hosts})
    (room,) = planning.plan(site.database, config, site.hosts, asked).rooms
    assert room.short > 0
    assert "b, c: 384 B are to come" in str(room.problem())


def test_room_that_other_work_was_promised_is_not_counted_on(sqlite_site: Site) -> None:
    site = sqlite_site
    site.files("mss:raw/a")
    site.change("INSERT INTO workers (name, started_at, seen_at) VALUES ('w', 0, 0)")
    free = reserving.room(site.database, site.config, site.hosts["b"])
    with reserving.reserved(site.database, site.config, site.hosts["b"], "w", free - (1 << 20)):
        (room,) = plan(site).rooms
        assert room.free is not None
        assert room.free < free // 2


# -------------------------------------------------------------------------------------------- time


def test_the_time_of_several_things_is_that_of_the_longest_and_unknown_where_one_is() -> None:
    assert pace.together([]).seconds == 0
    known = [pace.Estimate(5.0, "a"), pace.Estimate(9.0, "b"), pace.Estimate(0.0, "nothing")]
    assert pace.together(known) == pace.Estimate(9.0, "a; b")
    assert pace.together([*known, pace.Estimate(None, "c")]) == pace.Estimate(None, "c")
    assert str(pace.Estimate(None, "why")) == "not known yet (why)"


def test_spans_that_overlap_count_once() -> None:
    assert pace.covered([(0, 2), (1, 3), (1.5, 1.6), (10, 11)]) == 4


def test_the_time_rests_on_what_the_route_brought_last(site: Site) -> None:
    assert pace.transfer(site.database, "mss", "b", 100).seconds is None
    site.files("mss:raw/a")
    site.run(**SAID)
    site.change("UPDATE attempts SET bytes = 200000000, ended_at = 100, seconds = 2")
    said = pace.transfer(site.database, "mss", "b", 10**9)
    assert said == pace.Estimate(10.0, "200 MB that mss > b brought last came at 100 MB/s")
    site.change("""
        INSERT INTO routes (source, destination, streams, why, rate_bytes_per_s, failures, busy, bytes_per_s)
        VALUES ('mss', 'b', 1, '', 5000, 0, :no, 50000000)""", no=False)  # fmt: skip
    assert pace.transfer(site.database, "mss", "b", 10**9).seconds == 20
    site.change("UPDATE attempts SET bytes = 1000")  # too little to go by
    assert pace.transfer(site.database, "mss", "b", 10**4) == pace.Estimate(2.0, "mss > b last did 5 kB/s")
    assert pace.transfer(site.database, "mss", "b", 0).seconds == 0


def test_the_time_of_recalls_rests_on_those_that_ended(tapes: Tapes) -> None:
    assert pace.recalls(tapes.site.database, "mss", 3).seconds is None
    tapes.put("raw/a", "T1")
    tapes.put("raw/b", "T1")
    tapes.restore()
    tapes.settle()
    tapes.site.change("UPDATE recalls SET asked_at = 100, online_at = 160")
    assert pace.recalls(tapes.site.database, "mss", 3) == pace.Estimate(90.0, "mss took 60 s for its last 2 recalls")
    tapes.migrate("raw/a")
    tapes.put("raw/c", "T2")
    plans = plan(tapes.site, destination="c:raw")
    assert plans.recall.seconds == 60.0
    assert plans.whole.seconds is None  # nothing was brought to c yet


# ------------------------------------------------------------------------------------------- others


def test_one_manifest_that_cannot_be_looked_at_holds_up_no_other(site: Site) -> None:
    site.files("mss:raw/a", "a:x/1")
    site.run(**SAID)
    site.path("b:").rename(site.folder / "away")
    (down, other) = planning.plan(
        site.database,
        site.config,
        site.hosts,
        [Asked(site.manifest("m", **SAID), "m"), Asked(site.manifest("n", **SAID | {"destination": "c:raw"}), "n")],
    ).manifests
    assert down.down is not None
    assert "by what was known last, 1 of 1 file is in place" in down.problems[0]
    assert (other.to_come.files, other.problems) == (1, [])


def test_a_manifest_that_does_not_fit_the_configuration_is_refused(site: Site) -> None:
    site.files("mss:raw/a")
    with pytest.raises(ManifestError, match="nobody"):
        plan(site, trigger={"queue": "nobody"})
    with pytest.raises(ManifestError, match='unknown host "x"'):
        plan(site, source="x:raw")
