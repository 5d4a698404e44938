"""Whatever breaks an eviction off, every file is where its tombstone says, or where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from manifests.parts import Location
from stager import revising
from stager.evicting import purging
from stager.evicting import tombstones as written
from stager.evicting.candidates import Named
from stager.evicting.reasons import Why
from tests.stager.evicting.places import (
    KB,
    Disks,
    Dying,
    Killed,
    check_all,
    content,
    copies,
    disks,
    evict,
    left,
    paths,
    plane,
    quarantined,
    spread,
    three,
    tombstones,
    why,
)
from tests.stager.site import Site, recount, tallies

NAMES = ("1", "2", "3")


def dying(site: Site, steps: int) -> Disks:
    hosts = disks(site)
    hosts.instead["b"] = Dying(site.hosts["b"], "b", steps)
    return hosts


def check(site: Site, names: tuple[str, ...] = NAMES) -> None:
    """Every file is at its place and listed, or in quarantine with its tombstone and not listed; nothing is half."""
    there = set(left(site, "b:new"))
    away = {path.removeprefix("new/") for path, state in tombstones(site) if state == "quarantined"}
    assert not [one for one in tombstones(site) if one[1].endswith("?")]
    assert there | away == set(names)
    assert not there & away
    assert copies(site) == sorted(f"new/{name}" for name in there)
    assert sorted(name.partition("-")[2] for name in quarantined(site)) == sorted(away)
    for name in there:
        assert site.path(f"b:new/{name}").read_bytes() == content(name)
    states = {path.removeprefix("raw/"): state for path, state in site.states("first").items()}
    assert states == {name: "done" if name in there else "excluded" for name in names}
    assert tallies(site.database) == recount(site.database)
    check_all(site)


def recover(site: Site) -> None:
    """Whoever comes next at this host, for whatever."""
    purging.purge(site.database, disks(site))


@pytest.mark.parametrize("steps", range(7))
def test_an_eviction_that_is_killed_among_its_moves_is_ended(sqlite_site: Site, steps: int) -> None:
    site = sqlite_site
    spread(site, *NAMES)
    if steps < 6:
        with pytest.raises(Killed):
            evict(site, 3 * KB, hosts=dying(site, steps))
        assert any(state == "quarantined?" for _, state in tombstones(site))
    else:
        evict(site, 3 * KB, hosts=dying(site, steps))
    recover(site)
    check(site)
    evict(site, KB)
    check(site)


@contextmanager
def killed_in(monkeypatch: pytest.MonkeyPatch, name: str, *, after: bool, turn: int = 0) -> Iterator[list[str]]:
    """The process ends before, or after, the so-manyth transaction of this name."""
    real: Callable[..., Any] = getattr(written, name)
    fired: list[str] = []

    def ending(*arguments: Any, **named: Any) -> Any:
        if len(fired) < turn:
            fired.append("passed")
            return real(*arguments, **named)
        if after:
            real(*arguments, **named)
        fired.append("killed")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(written, name, ending)
        yield fired


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("step", "turn"), [("claim", 0), ("confirm", 0), ("finish", 0), ("finish", 1), ("finish", 2)])
def test_an_eviction_that_is_killed_around_a_transaction_is_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, turn: int, after: bool
) -> None:
    spread(site, *NAMES)
    with killed_in(monkeypatch, step, after=after, turn=turn) as fired, pytest.raises(Killed):
        evict(site, 3 * KB)
    assert fired[-1] == "killed"
    recover(site)
    check(site)
    assert len(left(site, "b:new")) == (3 if step != "finish" else 0)


def test_what_was_given_up_for_a_proof_and_killed_on_the_way_is_where_it_was(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread(site, *NAMES)
    site.path("c:also/1").write_bytes(b"rotten")
    with killed_in(monkeypatch, "drop", after=False), pytest.raises(Killed):
        evict(site, 3 * KB)
    site.path("c:also/1").write_bytes(content("1"))
    site.change("UPDATE copies SET trouble = NULL")
    site.change("UPDATE items SET state = 'done', kind = NULL, reason = NULL")
    recover(site)
    check(site)
    assert len(left(site, "b:new")) == 3


@pytest.mark.parametrize("steps", range(7))
def test_putting_back_that_is_killed_is_ended(sqlite_site: Site, steps: int) -> None:
    site = sqlite_site
    spread(site, *NAMES)
    evict(site, 3 * KB)
    everything = Named("b", Location("b", ""))
    if steps < 6:
        with pytest.raises(Killed):
            purging.put_back(site.database, dying(site, steps), everything)
    else:
        purging.put_back(site.database, dying(site, steps), everything)
    recover(site)
    states = [state for _, state in tombstones(site)]
    site.change("DELETE FROM evictions WHERE state = 'returned'")
    check(site)
    assert states.count("returned") == min(3, (steps + 2) // 2)  # what was begun is put back, the rest lies there still


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["returning", "returned"])
def test_putting_back_that_is_killed_around_a_transaction_is_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    spread(site, "1")
    evict(site, KB)
    with killed_in(monkeypatch, step, after=after), pytest.raises(Killed):
        purging.put_back(site.database, disks(site), Named("b", Location("b", "")))
    recover(site)
    assert tombstones(site) == [("new/1", "quarantined" if (step, after) == ("returning", False) else "returned")]
    site.change("DELETE FROM evictions WHERE state = 'returned'")
    check(site, ("1",))


@pytest.mark.parametrize("steps", range(4))
def test_a_removal_that_is_killed_is_ended(sqlite_site: Site, steps: int) -> None:
    site = sqlite_site
    three(site, *NAMES)
    evict(site, 3 * KB, grace_s=0.0)
    if steps < 3:
        with pytest.raises(Killed):
            purging.purge(site.database, dying(site, steps))
    else:
        purging.purge(site.database, dying(site, steps))
    assert len(quarantined(site)) == 3 - steps
    recover(site)
    assert quarantined(site) == []
    assert {state for _, state in tombstones(site)} == {"removed"}
    check_all(site)


def test_a_removal_that_is_killed_before_it_is_written_down_is_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    with killed_in(monkeypatch, "removed", after=False, turn=1), pytest.raises(Killed):
        purging.purge(site.database, disks(site))
    assert quarantined(site) == []
    assert tombstones(site) == [("new/1", "quarantined")]
    recover(site)
    assert tombstones(site) == [("new/1", "removed")]


# ------------------------------------------------------------------------------------------ focal planes


def test_the_pieces_of_a_focal_plane_go_together(site: Site) -> None:
    plane(site, *NAMES)
    report = evict(site, KB)
    assert sorted(paths(report)) == ["new/1", "new/2", "new/3"]
    assert site.states("first") == {"raw/plane": "excluded"}
    check_all(site)


@pytest.mark.parametrize("what", ["b:new/1", "b:new/[12]"])
def test_some_of_the_pieces_of_a_focal_plane_do_not_go(site: Site, what: str) -> None:
    plane(site, *NAMES)
    assert why(evict(site, KB, what)) == {Why.PIECES: 3}


def test_one_piece_that_must_stay_keeps_all_of_its_focal_plane(site: Site) -> None:
    plane(site, *NAMES)
    site.submit("onward", source="b:new/2", destination="c:onward", trigger=None)
    assert why(evict(site, KB)) == {Why.NEEDED: 3}
    site.change("UPDATE items SET state = 'done'")
    site.path("mss:kept/3").write_bytes(b"rotten")
    assert why(evict(site, KB)) == {Why.UNPROVEN: 3}
    assert left(site, "b:new") == ["1", "2", "3"]


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_focal_plane_is_never_half_there(sqlite_site: Site, steps: int) -> None:
    site = sqlite_site
    plane(site, *NAMES)
    with pytest.raises(Killed):
        evict(site, KB, hosts=dying(site, steps))
    recover(site)
    assert left(site, "b:new") == ["1", "2", "3"]
    assert (quarantined(site), tombstones(site)) == ([], [])
    assert site.states("first") == {"raw/plane": "done"}
    check_all(site)


@pytest.mark.parametrize("steps", [*range(6), 99])
def test_a_focal_plane_comes_back_as_a_whole(sqlite_site: Site, steps: int) -> None:
    site = sqlite_site
    plane(site, *NAMES)
    evict(site, KB)
    everything = Named("b", Location("b", "new/2"))
    if steps < 6:
        with pytest.raises(Killed):
            purging.put_back(site.database, dying(site, steps), everything)
        recover(site)
    else:
        purging.put_back(site.database, disks(site), everything)
    assert left(site, "b:new") == ["1", "2", "3"]
    assert site.states("first") == {"raw/plane": "done"}
    assert site.value("SELECT count(*) FROM copies WHERE piece_of IS NOT NULL") == 3
    check_all(site)


def test_a_focal_plane_of_which_a_piece_cannot_be_moved_stays(site: Site) -> None:
    plane(site, *NAMES)
    hosts = disks(site)
    hosts.instead["b"] = Stubborn(hosts["b"], "new/2")
    report = evict(site, KB, hosts=hosts)
    assert (report.evicted, why(report)) == ([], {Why.UNMOVED: 3})
    assert left(site, "b:new") == ["1", "2", "3"]
    assert (quarantined(site), tombstones(site)) == ([], [])
    check_all(site)


class Stubborn:
    """A host that will not move one file."""

    def __init__(self, host: Any, path: str) -> None:
        self.host = host
        self.path = path

    def move(self, pairs: Any) -> Iterator[Any]:
        from transfers.errors import Refused

        for old, new in pairs:
            if old == self.path:
                yield Refused("it will not go", host="b", side="destination", phase="move", path=old)
            else:
                yield from self.host.move([(old, new)])

    def __getattr__(self, what: str) -> Any:
        return getattr(self.host, what)


# ------------------------------------------------------------------------------------ what comes in between


class Meddling:
    """A host at which something else happens just before files are moved, or just after."""

    def __init__(self, host: Any, before: Callable[[], object] = bool, after: Callable[[], object] = bool) -> None:
        self.host = host
        self.before = before
        self.after = after

    def move(self, pairs: Any) -> Any:
        before, self.before = self.before, bool
        after, self.after = self.after, bool
        before()
        results = list(self.host.move(pairs))
        after()
        return results

    def __getattr__(self, what: str) -> Any:
        return getattr(self.host, what)


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_an_item_comes_to_need_meanwhile_is_put_back(site: Site, when: str) -> None:
    spread(site, "1", "2")
    hosts = disks(site)

    def need() -> None:
        site.change(
            """INSERT INTO items (manifest_id, source, destination, files, state, missing, epoch, tries)
               SELECT id, 'new/1', 'onward/1', 1, 'waiting', :no, 0, 0 FROM manifests WHERE name = 'onward'""",
            no=False,
        )

    site.file("b:elsewhere/x")
    site.run("onward", source="b:elsewhere/x", destination="c:onward", trigger=None)
    hosts.instead["b"] = Meddling(hosts["b"], **{when: need})
    report = evict(site, 2 * KB, hosts=hosts)
    assert (paths(report), why(report)) == (["new/2"], {Why.NEEDED: 1})
    check(site, ("1", "2"))


def test_what_a_manifest_names_that_is_submitted_meanwhile_is_put_back(site: Site) -> None:
    spread(site, "1", "2")
    hosts = disks(site)
    manifest = site.manifest("onward", source="b:new/1", destination="c:onward", trigger=None)
    hosts.instead["b"] = Meddling(hosts["b"], before=lambda: revising.begin(site.database, manifest))
    report = evict(site, 2 * KB, hosts=hosts)
    assert (paths(report), why(report)) == (["new/2"], {Why.NEEDED: 1})
    check(site, ("1", "2"))


def test_a_file_that_comes_to_the_place_meanwhile_is_left_there(site: Site) -> None:
    """Then the old one stays in quarantine, with its tombstone, and nothing is replaced."""
    spread(site, "1")
    hosts = disks(site)

    def land() -> None:
        site.file("b:new/1", content("1"))
        site.submit("again", trigger=None)

    hosts.instead["b"] = Meddling(hosts["b"], after=land)
    report = evict(site, KB, hosts=hosts)
    assert (report.evicted, why(report)) == ([], {Why.NEEDED: 1})
    assert (left(site, "b:new"), quarantined(site)) == (["1"], ["1-1"])
    assert tombstones(site) == [("new/1", "quarantined")]
    site.work()
    assert site.states("again") == site.states("first") == {"raw/1": "done"}
    check_all(site)
    assert purging.purge(site.database, disks(site)).removed == 1
    assert site.path("b:new/1").read_bytes() == content("1")


def test_a_copy_that_another_look_finds_bad_meanwhile_is_put_back(site: Site) -> None:
    spread(site, "1")
    hosts = disks(site)
    hosts.instead["b"] = Meddling(
        hosts["b"], before=lambda: site.change("UPDATE copies SET trouble = 'corrupt' WHERE host = 'b'")
    )
    report = evict(site, KB, hosts=hosts)
    assert report.evicted == []
    assert left(site, "b:new") == ["1"]
    assert tombstones(site) == []
