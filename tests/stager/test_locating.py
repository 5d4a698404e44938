"""Where the files of a manifest lie: what `stager show --where` tells."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest

from stager import locating
from stager.config import StoreHost
from stager.demo import tape
from stager.opening import Hosts
from stager.samples import Visit, write_visit
from tests.stager.conftest import Stager
from tests.stager.evicting.places import disks, evict
from tests.stager.site import Site

VISIT = Visit(sensors=("00",), channels=("00", "01"), snaps=(0,))
SECOND = Visit(visit=VISIT.visit + 1, sensors=("00",), channels=("00",), snaps=(0,))


@pytest.fixture
def archived(site: Site) -> Site:
    """Two visits at b and at c, and in bundles at the store."""
    for one in (VISIT, SECOND):
        write_visit(site.path("a:"), one, shape=(2, 3))
    said: dict[str, Any] = {"source": "a:raw/**", "camera": "lsst_imsim", "trigger": None}
    site.run("first", **said)
    site.run("kept", **said | {"kind": "archive", "destination": "mss:kept", "bundle": {"per": ["visit"]}})
    site.run("also", **said | {"destination": "c:also"})
    return site


def where(stager: Stager, *words: str) -> Any:
    said = stager("show", *words, "--where", "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_a_visit_is_found_at_every_host_also_when_it_was_evicted(archived: Site, stager: Stager) -> None:
    visit = str(VISIT.visit)
    (bundle,) = archived.path("mss:kept").glob(f"visit={visit}.*.tar")
    places = {
        (one["host"], one["files"], one["bundle"], one["path"])
        for one in where(stager, "first", "--visit", visit)["places"]
    }
    folder = f"raw/v{visit}-fy/E000/R23/S00"
    kept = {("c", 2, False, f"also/{folder.removeprefix('raw/')}"), ("mss", 2, True, f"kept/{bundle.name}")}
    assert places == kept | {("b", 2, False, f"new/{folder.removeprefix('raw/')}")}
    assert len(evict(archived, 10**6, "b:", hosts=disks(archived)).evicted) == 3
    told = where(stager, "first", "--visit", visit)
    assert {(one["host"], one["files"], one["bundle"], one["path"]) for one in told["places"]} == kept
    assert (told["files"], told["there"], told["nowhere"], told["quarantined"]) == (2, 0, 0, 2)
    assert told["until"] > 0
    assert where(stager, "kept", "--visit", visit)["places"] == told["places"]
    said = " ".join(stager("show", "first", "--where", "--visit", visit).out.split())
    assert f"visit {visit}: 2 files, 0 at their places, 2 in quarantine there until" in said
    assert "`stager evict b: --put-back` returns" in said
    assert f"`stager restore MANIFEST --visit {visit}` brings them from a store" in said


def test_a_manifest_is_told_as_a_whole(archived: Site, stager: Stager) -> None:
    told = where(stager, "first")
    assert (told["files"], told["there"], told["nowhere"]) == (3, 3, 0)
    assert sorted((one["host"], one["files"]) for one in told["places"]) == [("b", 3), ("c", 3), ("mss", 1), ("mss", 2)]
    assert "brings" not in stager("show", "first", "--where").out


def test_of_files_with_the_same_bytes_no_more_lie_anywhere_than_have_a_copy_there(site: Site, stager: Stager) -> None:
    for name in ("1", "2", "3", "4"):
        site.file(f"a:raw/{name}", "" if name < "4" else "other")
    site.run("first", trigger=None)
    site.run("kept", source="a:raw/1", destination="mss:kept", kind="archive", trigger=None)
    site.run("twice", source="a:raw/[14]", destination="c:twice", trigger=None)
    site.run("more", source="a:raw/4", destination="c:more", trigger=None)
    told = where(stager, "first")
    assert (told["files"], told["there"], told["nowhere"]) == (4, 4, 0)
    assert [(one["host"], one["files"]) for one in told["places"]] == [("b", 4), ("c", 2), ("mss", 1)]
    assert [(one["host"], one["files"]) for one in where(stager, "kept")["places"]] == [("b", 1), ("c", 1), ("mss", 1)]


def test_many_files_with_the_same_bytes_take_no_longer_than_others(sqlite_site: Site) -> None:
    site, count = sqlite_site, 20_000
    site.file("a:raw/1", "")
    site.run("m", trigger=None)
    names = "manifest_id, source, destination, files, state, missing, epoch, tries"
    numbers = f"WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < {count})"
    values = "manifest_id, 'raw/' || n, 'new/' || n, files, state, missing, epoch, tries"
    site.change(f"INSERT INTO items ({names}) {numbers} SELECT {values} FROM n, items")
    for host in ("b", "c"):
        place = f"'{host}', 'new/' || n, size, digest, proof"
        copied = "SELECT size, digest, proof FROM copies WHERE host = 'b' AND path = 'new/1'"
        site.change(f"INSERT INTO copies (host, path, size, digest, proof) {numbers} SELECT {place} FROM n, ({copied})")
    begun = time.thread_time()
    found = locating.locate(site.database, site.hosts, "m")
    assert time.thread_time() - begun < 10
    assert [(one.host, one.files) for one in found.places] == [("b", count), ("c", count - 1)]


def test_what_was_never_proven_anywhere_is_told(site: Site, stager: Stager) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run(source="a:raw/1", trigger=None)
    site.submit("n", source="a:raw/*", destination="c:n", trigger=None)
    told = where(stager, "n")
    assert (told["files"], told["there"], told["nowhere"], told["places"]) == (2, 0, 2, [])


def test_a_copy_that_was_found_bad_is_told_as_such(archived: Site, stager: Stager) -> None:
    archived.change("UPDATE copies SET trouble = 'corrupt' WHERE host = 'c'")
    (bad,) = [one for one in where(stager, "first")["places"] if one["host"] == "c"]
    assert bad["stands"] == "missing or corrupt: `stager verify` tells"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["first", "--visit", "7"], "first has no visit 7"),
        (["firts"], "there is no manifest firts"),
        (["first", "--state", "done"], "--where shows no items"),
        (["first", "--map"], "--where shows no items"),
    ],
)
def test_what_cannot_be_told_is_bad_usage(archived: Site, stager: Stager, words: list[str], said: str) -> None:
    told = stager("show", "--where", *words)
    assert (told.code, said in told.err) == (2, True)


def test_what_is_on_tape_is_told_with_its_volume(sqlite_site: Site) -> None:
    site = sqlite_site
    site.files("a:raw/1", "a:raw/2")
    site.run("plain", source="a:raw/**", destination="mss:plain", kind="archive", trigger=None)
    site.run("kept", source="a:raw/**", destination="mss:kept", kind="archive", bundle={}, trigger=None)
    (bundle,) = site.path("mss:kept").glob("*.tar")
    state = site.folder / "tapes"
    (state / "files").mkdir(parents=True)
    site.path("mss:").rename(state / "files/UROOT")
    for path in (f"kept/{bundle.name}", "plain/2"):
        assert tape.main(["--state", str(state), "migrate", f"/UROOT/{path}"], io.StringIO(), io.StringIO()) == 0
    said = {"kind": "store", "driver": "command", "root": "/UROOT", "commands": tape.commands(state)}
    store = StoreHost.model_validate(said)
    hosts = Hosts(site.database, site.config.model_copy(update={"hosts": dict(site.config.hosts) | {"mss": store}}))
    places = locating.locate(site.database, hosts, "kept").places
    assert [(one.path, one.files, one.residency, one.stands) for one in places] == [
        ("plain", 2, None, "1 on tape, 1 on disk"),
        (f"kept/{bundle.name}", 2, "offline", "on tape, volume VOL001"),
    ]
    assert tape.main(["--state", str(state), "set", "down", "yes"], io.StringIO(), io.StringIO()) == 0
    assert all("host down" in one.stands for one in locating.locate(site.database, hosts, "kept").places)
