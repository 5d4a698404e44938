"""A store with tapes: what must be read is asked for, and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.parts import Location
from stager import scrubbing
from stager.config import Commands, StoreHost
from stager.demo import tape
from stager.opening import Hosts
from stager.rebuilding.check import check
from tests.stager.rebuilding.packed import bundle, flip, index_of, logical, run, store_of, whats
from tests.stager.site import Site
from tests.tapes import Tapes
from transfers.hosts import Residency


@pytest.fixture
def tapes() -> Iterator[Tapes]:
    with Tapes() as simulators:
        yield simulators


@pytest.fixture
def on_tape(site: Site, tapes: Tapes) -> Site:
    """The site with a store that a program speaks to, its files on tapes."""
    state = site.folder / "tape"
    for key, value in (("latency", "0"), ("drives", "100"), ("get", "fail")):
        control(site, "set", key, value)
    (state / "files").mkdir(exist_ok=True)
    site.path("mss:").rmdir()
    (state / "files" / "store").mkdir()
    site.path("mss:").symlink_to(state / "files" / "store")
    commands = Commands(**tapes.commands(state))
    mss = StoreHost(kind="store", driver="command", root="/store", commands=commands)
    site.config = site.config.model_copy(update={"hosts": site.config.hosts | {"mss": mss}})
    site.hosts.close()
    site.hosts = Hosts(site.database, site.config)
    return site


def control(site: Site, *words: str) -> str:
    out = io.StringIO()
    assert tape.main(["--state", str(site.folder / "tape"), *words], out, out) == 0, out.getvalue()
    return out.getvalue()


def to_tape(site: Site, *files: Path, volume: str = "VOL001") -> None:
    """Put files of the store on tape, so that they can only be read after they were asked for."""
    folder = site.path("mss:").resolve().parent
    control(
        site, "migrate", "--volume", volume, *(f"/{file.resolve().relative_to(folder).as_posix()}" for file in files)
    )


def states(site: Site, *files: Path) -> set[str]:
    found = list(store_of(site).residency(f"bundles/{file.name}" for file in files))
    return {one.state for one in found if isinstance(one, Residency)}


def test_members_on_tape_are_known_again_without_their_bundles_being_read(on_tape: Site) -> None:
    site = on_tape
    files = [bundle(site, f"visit={visit}", f"raw/a{visit}", f"raw/b{visit}") for visit in range(3)]
    to_tape(site, *files, *map(index_of, files))
    assert whats(run(site)) == ["added"] * 3
    assert logical(site) == ["raw/a0", "raw/a1", "raw/a2", "raw/b0", "raw/b1", "raw/b2"]
    assert states(site, *files) == {"offline"}
    assert run(site) == []


def test_a_bundle_on_tape_is_brought_where_it_is_needed(on_tape: Site) -> None:
    site = on_tape
    lost, damaged, well = (bundle(site, f"visit={visit}", f"raw/a{visit}") for visit in range(3))
    before = index_of(lost).read_bytes(), index_of(damaged).read_bytes()
    index_of(lost).unlink()
    flip(index_of(damaged), 100)
    to_tape(site, lost, damaged, well, index_of(damaged), index_of(well))
    told = run(site)
    assert sorted(whats(told)) == ["added", "added", "added", "mended", "mended"], told
    assert (index_of(lost).read_bytes(), index_of(damaged).read_bytes()) == before
    to_tape(site, lost, damaged, well)
    assert run(site, deep=True) == []


def test_a_tape_that_does_not_come_holds_up_no_other(on_tape: Site) -> None:
    site = on_tape
    bad, good = (bundle(site, f"visit={visit}", f"raw/a{visit}") for visit in range(2))
    to_tape(site, index_of(good))
    to_tape(site, index_of(bad), volume="VOL999")
    control(site, "bad", "VOL999")
    told = run(site, patience_s=0.5)
    assert sorted(whats(told)) == ["added", "trouble"], told
    assert logical(site) == ["raw/a1"]


def test_check_reads_nothing_that_is_on_tape_and_says_so(on_tape: Site) -> None:
    site = on_tape
    file = bundle(site, "visit=1", "raw/a")
    run(site)
    to_tape(site, index_of(file))
    assert check(site.database, site.hosts, "mss") == (1, [], 1)


def test_what_the_store_does_not_list_any_more_is_found_missing(on_tape: Site) -> None:
    site = on_tape
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    run(site)
    file.unlink()
    known = scrubbing.copies_at(site.database, Location("mss", ""))
    checked = list(scrubbing.check(site.database, site.hosts, known))
    assert [(one.trouble, one.unknown) for one in checked] == [("missing", False)] * 2
    assert site.rows("SELECT trouble FROM copies") == [("missing",)] * 2
