"""A store that programs speak to keeps the contract, as far as such a store can: driven through the simulator of a
tape store, run as the program that it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stager.demo import tape
from tests.tapes import Tapes
from tests.transfers import crafted
from tests.transfers.contract import HostContract, files_in, frames_of, names, sha256, wants_of
from tests.transfers.contract_members import BUNDLE, bundled
from tests.waiting import LATE_S, until
from transfers.command.journal import Journal
from transfers.command.store import CommandStore
from transfers.command.templates import Templates
from transfers.copying import copy
from transfers.errors import (
    Conflict,
    CorruptedOnTheWay,
    HostDown,
    NoSpace,
    Refused,
    SourceCorrupt,
    SourceMissing,
    TransferError,
    Transient,
    Unsupported,
)
from transfers.hosts import FileInfo, Host, Member, Receipt, Residency, Want, only


def templates_of(state: Path, tapes: Tapes | None = None, **changed: object) -> Templates:
    """Those of a simulator; without a command where that is given as None."""
    commands = tape.commands(state) if tapes is None else tapes.commands(state)
    found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in commands.items()}
    found |= {"timeout_s": 60.0, "keep_bytes": 1 << 30}
    return Templates(**found | changed)  # type: ignore[arg-type] # the changes differ by test


def simulator(root: Path) -> Path:
    """The folder of a simulator whose "/" is the folder of the root, so that tests see its files there."""
    state = root.parent / ".tape"
    state.mkdir(exist_ok=True)
    if not (state / "files").exists():
        (state / "files").symlink_to(root.parent)
    return state


def store(root: Path, instance: str = "00000000", tapes: Tapes | None = None, **changed: object) -> CommandStore:
    templates = templates_of(simulator(root), tapes, **changed)
    return CommandStore("mss", f"/{root.name}", templates, str(root.parent / "scratch"), instance)


def control(root: Path, *words: object) -> Any:
    """A command that controls the simulator."""
    out = io.StringIO()
    assert tape.main(["--state", str(simulator(root)), *map(str, words)], out) == 0
    return json.loads(out.getvalue()) if words[0] == "log" else out.getvalue()


@pytest.fixture(scope="module")
def tapes() -> Iterator[Tapes]:
    with Tapes() as tapes:
        yield tapes


class TestCommandStore(HostContract):
    """A store that renames and has digests of its own."""

    lacks: dict[str, object] = {}  # noqa: RUF012  each class of tests has its own

    @pytest.fixture(autouse=True)
    def _closed(self, tapes: Tapes) -> Iterator[None]:
        self.tapes = tapes
        self.made: list[CommandStore] = []
        yield
        for host in self.made:
            host.close()

    def make(self, root: Path, **options: object) -> Host:
        host = store(root, tapes=self.tapes, **self.lacks, **options)  # type: ignore[arg-type] # options differ by test
        self.made.append(host)
        return host

    @pytest.fixture
    def host(self, root: Path) -> Host:
        """With a marker from before: making one takes eight commands, and has its own tests."""
        (root / ".stager").mkdir()
        (root / ".stager/marker").write_text("11111111-2222-4333-8444-555555555555\n")
        host = self.make(root)
        host.open(None)
        return host

    # The listing of such a store has files and nothing else: no links, no empty folders.

    def test_what_is_not_a_file_is_said(self, host: Host, root: Path) -> None:
        """A store's own listing leaves out what is no file of it, so that nothing can be said."""
        os.mkfifo(root / "fifo")
        (root / "link").symlink_to("/etc/passwd")
        assert list(host.scan("")) == []

    def test_unreadable_folder_is_an_error_and_not_empty(self, host: Host, root: Path) -> None:
        control(root, "fail", "ls", 2, "--exit", 13, "--say", "ls: permission denied", "--nothing")
        with pytest.raises(HostDown, match="permission denied"):
            list(host.scan(""))

    def test_places_that_cannot_be_read_hold_up_no_other(self, host: Host, root: Path) -> None:
        member = bundled(root, {"a.fits": crafted.sound()})["a.fits"]
        size = (root / BUNDLE).stat().st_size
        places = {
            "beyond": (member._replace(size=size), SourceCorrupt),
            "before": (member._replace(offset=-5), Refused),
            "less than nothing": (member._replace(size=-5), Refused),
            "missing": (member._replace(path="raw/none"), SourceMissing),
            "folder": (member._replace(path="raw"), Refused),
            "outside": (member._replace(path="../root/" + BUNDLE), Refused),
            "good": (member, tuple),
        }
        asked = [place._replace(name=f"{name}.fits") for name, (place, _) in places.items()]
        for found in (list(host.digest(asked)), list(host.headers(asked))):
            assert [type(one) for one in found] == [kind for _, kind in places.values()]
            errors = [one for one in found if isinstance(one, TransferError)]
            assert [error.path for error in errors] == [place.name for place in asked[:-1]]
            assert [error.facts["lies_in"] for error in errors] == [place.path for place in asked[:-1]]

    def test_links_are_not_followed(self, host: Host, root: Path, tmp_path: Path) -> None:
        """What a store's program does with links is its own: the driver makes none and is told of none."""

    def test_links_that_stay_inside_are_followed_where_allowed(self, root: Path, tmp_path: Path) -> None:
        """As above."""

    @pytest.mark.parametrize("thing", ["folder"])
    def test_name_taken_by_something_else_is_a_conflict(self, host: Host, root: Path, thing: str) -> None:
        (root / "a").write_bytes(b"x")
        (root / "out" / thing).mkdir(parents=True)
        (root / "out" / thing / "f").write_bytes(b"y")
        (landed,) = host.land(frames_of(f"out/{thing}", b"x"))
        assert isinstance(landed, Conflict)
        assert names(root / "out") == [thing]

    def test_file_where_a_folder_is_needed_is_a_conflict(self, host: Host, root: Path) -> None:
        """Only the program says so, in words of its own: it is tried again, and then held."""
        (root / "out").write_text("a file")
        (landed,) = host.land(frames_of("out/a", b"x"))
        assert isinstance(landed, Transient)
        assert files_in(root) == {"out": b"a file"}

    def test_remove_is_for_files_and_may_be_said_twice(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/f").write_bytes(b"abc")
        assert isinstance(only(host.remove(["d"])), Refused)
        assert list(host.remove(["d/f", "d/f"])) == ["d/f", "d/f"]
        assert (root / "d").is_dir()

    def test_odd_names_arrive_as_they_are(self, host: Host, root: Path) -> None:
        (root / "in").mkdir()
        odd = ["with space.fits", "'quoted\"$(`).fits", "-rf", "back\\slash", "n" * 255, os.fsdecode(b"latin-\xe9")]
        for name in odd:
            (root / "in" / name).write_bytes(os.fsencode(name))
        results = self.copied(host, wants_of(host, "in", "out"))
        assert all(isinstance(result, Receipt) for result in results.values()), results
        for name in odd:
            assert (root / "out/in" / name).read_bytes() == os.fsencode(name)

    @pytest.mark.parametrize("name", ["new\nline", "bell\a", "tab\t", "next\x85line"])
    def test_names_that_no_listing_can_carry_are_refused(self, host: Host, root: Path, name: str) -> None:
        (landed,) = host.land(frames_of(name, b"x"))
        (found,) = host.find([name])
        (_, fault) = host.read([Want(1, 1, name, "x")])
        for error in (landed, found):
            assert isinstance(error, Refused)
            assert "control characters" in error.text
        assert fault[1].kind == "refused"
        assert files_in(root) == {}

    @pytest.mark.parametrize("streams", [1, 3])
    def test_many_files_over_windows_and_streams(self, host: Host, root: Path, streams: int) -> None:
        for number in range(14):
            path = root / f"in/{number % 7}/f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number * number)
        results = self.copied(host, wants_of(host, "in", "out"), streams=streams)
        assert all(isinstance(result, Receipt) for result in results.values())
        got = files_in(root)
        assert len(got) == 28
        assert all(got["out/" + path] == data for path, data in got.items() if path.startswith("in/"))

    def test_source_changed_while_it_is_read_is_not_landed(self, host: Host, root: Path) -> None:
        """What is landed is what was brought: a change in between is seen, and one afterwards is no matter."""
        (root / "a").write_bytes(b"before")
        control(root, "set", "get_s", LATE_S)
        wants = wants_of(host, "a", "out")
        results: dict[str, Any] = {}
        copying = threading.Thread(target=lambda: results.update(self.copied(host, wants)))
        copying.start()
        until(lambda: control(root, "log")["calls"].get("get", 0) >= 2)  # the marker's first
        (root / "a").write_bytes(b"afterwards")
        control(root, "set", "get_s", 0)
        copying.join()
        assert isinstance(results["out/a"], TransferError)
        assert results["out/a"].kind in {"source changed", "corrupted on the way"}
        assert not (root / "out").exists()

    def test_sweep_removes_dead_parts_and_no_others(self, root: Path) -> None:
        """They lie in a folder of their own, which one listing tells of."""
        host = self.make(root, instance="0000beef")
        host.open(None)
        parts = [
            ".f.fits.1-1.0000beef.part",
            ".f.fits.1-2.0000beef.part",
            ".f.fits.1-1-3.0000beef.part",
            ".f.fits.1-1.0000cafe.part",
            "f.fits.1-1.0000beef.part",
            ".f.fits.part",
        ]
        (root / ".stager/parts").mkdir()
        for name in parts:
            (root / ".stager/parts" / name).write_bytes(b"x")
        gone = host.sweep("", lambda item, epoch: (item, epoch) == (1, 1))
        assert sorted(gone) == sorted(f".stager/parts/{name}" for name in (parts[0], parts[2]))
        assert set(names(root / ".stager/parts")) == set(parts) - {parts[0], parts[2]}

    def test_gzip_file_is_unpacked_where_it_lies(self, host: Host, root: Path) -> None:
        with pytest.raises(Unsupported):
            host.gunzip(Want(7, 1, "a.gz", ""), 4 << 20)

    @pytest.mark.parametrize("damage", ["short"])
    def test_damaged_gzip_file_leaves_nothing(self, host: Host, root: Path, damage: str) -> None:
        with pytest.raises(Unsupported):
            host.gunzip(Want(7, 1, f"{damage}.gz", ""), 4 << 20)


WITHOUT = {
    "rename": None,
    "digest": None,
    "digested": None,
    "algorithm": None,
    "listed": tape.LISTED.replace("(?P<digest>", "(?:"),
}
"""A store that cannot rename and has no digests of its own."""


class TestStoreThatCannotRename(TestCommandStore):
    """What the contract says of landing holds where a file is put under its own name at once."""

    lacks = WITHOUT
    __test__ = True

    def test_replaced_file_is_set_aside_and_not_lost(self, host: Host, root: Path) -> None:
        """It cannot be set aside, so that it is not replaced."""
        (root / "a").write_bytes(b"new")
        (root / "out").mkdir()
        (root / "out/a").write_bytes(b"old")
        result = self.copied(host, wants_of(host, "a", "out", replace=True))["out/a"]
        assert isinstance(result, Conflict)
        assert "rename" in result.text
        assert files_in(root) == {"a": b"new", "out/a": b"old"}

    def test_file_where_a_folder_is_needed_is_a_conflict(self, host: Host, root: Path) -> None:
        super().test_file_where_a_folder_is_needed_is_a_conflict(host, root)
        assert list(Journal(str(root.parent / "scratch/journal")).notes()) == []


LANDING = re.compile(
    "marker|never_replaces|set_aside|unit|stop|early|breaks_off|read_back|already_there|folder_is_needed|taken_by"
)
for _name in [name for name in dir(TestStoreThatCannotRename) if name.startswith("test_")]:
    if not LANDING.search(_name):  # the rest is the same code for both
        setattr(TestStoreThatCannotRename, _name, None)


# What such a store does wrong.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def make(root: Path, tapes: Tapes) -> Iterator[Callable[..., CommandStore]]:
    """Stores of the test's root, opened, and closed when it is over."""
    made: list[CommandStore] = []

    def make(**changed: object) -> CommandStore:
        host = store(root, tapes=tapes, **changed)  # type: ignore[arg-type] # the changes differ by test
        made.append(host)
        host.open(None)
        return host

    yield make
    for host in made:
        host.close()


Make = Callable[..., CommandStore]
BOTH = pytest.mark.parametrize("lacks", [{}, WITHOUT], ids=["renames", "renames nothing"])


def only_marker(root: Path) -> bool:
    return names(root / ".stager") == ["marker"] or names(root / ".stager/parts") == []


@BOTH
@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        (["--exit", 72, "--say", "put ok", "--nothing"], Transient, "exit status 72.*put ok"),
        (["--exit", 72, "--say", "put ok"], Transient, "exit status 72"),
        (["--exit", 0, "--say", "put ok", "--nothing"], Transient, "nothing is stored"),
        (["--half"], CorruptedOnTheWay, "2 bytes of 4 are stored"),
        (["--flip"], CorruptedOnTheWay, "got back"),
    ],
)
def test_put_that_fails_is_a_failure_whatever_it_says(
    make: Make, root: Path, lacks: dict[str, Any], how: list[object], kind: type[TransferError], words: str
) -> None:
    host = make(**lacks)
    control(root, "fail", "put", 1, *how)
    (failed,) = host.land(frames_of("d/a", b"data"))
    assert isinstance(failed, kind)
    assert re.search(words, failed.text)
    assert failed.facts["item"] == 1
    assert files_in(root) == {}, "what was put is removed again"
    assert only_marker(root)
    assert list(host.journal.notes()) == []
    (landed,) = host.land(frames_of("d/a", b"data"))
    assert isinstance(landed, Receipt)
    assert files_in(root) == {"d/a": b"data"}


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        (["--exit", 72, "--say", "get ok"], "transient", "exit status 72.*get ok"),
        (["--exit", 0, "--say", "get ok", "--nothing"], "transient", "brought nothing"),
        (["--half"], "corrupted on the way", "2 bytes of 4"),
        (["--flip"], "corrupted on the way", "brought again, it has"),
    ],
)
def test_get_that_fails_is_a_failure_whatever_it_says(
    make: Make, root: Path, how: list[object], kind: str, words: str
) -> None:
    (root / "a").write_bytes(b"data")
    host = make()
    control(root, "fail", "get", 1, *how)
    want = Want(1, 1, "a", "b", 4, None, sha256(b"data"))
    fault = list(host.read([want]))[-1]
    assert fault[0] == "fault"
    assert (fault[1].kind, bool(re.search(words, fault[1].text))) == (kind, True), fault[1].text
    assert [name for name, _ in host.read([want])] == ["file", "data", "end"]


def test_what_a_command_said_is_told_with_its_words_and_exit_status(make: Make, root: Path) -> None:
    host = make()
    control(root, "fail", "put", 1, "--exit", 5, "--say", "tape \x1b[31mjam\u202e" + "x" * 100_000, "--nothing")
    (failed,) = host.land(frames_of("a", b"data"))
    assert isinstance(failed, Transient)
    assert failed.facts["exit"] == 5
    assert failed.facts["argv"][-1].startswith("/root/.stager/parts/.a.1-1-")
    assert len(failed.facts["said"]) <= 4000
    assert len(failed.text) < 1000
    assert "\x1b" not in json.dumps(failed.as_dict()) + failed.facts["said"]
    assert (failed.side, failed.host, failed.path) == ("store", "mss", "a")


@BOTH
@pytest.mark.parametrize("words", [["--exit", 72], ["--exit", 0, "--nothing"], ["--exit", 72, "--nothing"]])
def test_remove_and_rename_that_fail_are_failures(
    make: Make, root: Path, lacks: dict[str, Any], words: list[object]
) -> None:
    host = make(**lacks)
    (root / "a").write_bytes(b"data")
    control(root, "fail", "rm", 1, *words)
    assert isinstance(only(host.remove(["a"])), Transient)
    if lacks:
        assert isinstance(only(host.move([("a", "b")])), Unsupported)
        return
    (root / "b").write_bytes(b"data")
    control(root, "fail", "rename", 1, *words)
    moved = only(host.move([("b", "c/b")]))
    assert isinstance(moved, Transient)
    assert (moved.facts["from"], moved.facts["to"]) == ("b", "c/b")
    control(root, "fail", "rename", 1, *words)
    (landed,) = host.land(frames_of("new", b"new"))
    assert isinstance(landed, Transient)
    assert files_in(root).get("new") in {None, b"new"}, "proven, or not there: never half"
    (landed,) = host.land(frames_of("new", b"new"))
    assert isinstance(landed, Receipt)


def test_proof_by_the_store_is_its_own_digest(make: Make, root: Path) -> None:
    host = make()
    assert host.own_digest == "sha256"
    (landed,) = host.land(frames_of("a", b"data"), proof="store")
    assert isinstance(landed, Receipt)
    assert (landed.proof, landed.digest) == ("store", sha256(b"data"))
    control(root, "fail", "put", 1, "--flip")
    (failed,) = host.land(frames_of("b", b"data"), proof="store")
    assert isinstance(failed, CorruptedOnTheWay)
    assert files_in(root) == {"a": b"data"}
    gets = control(root, "log")["calls"]["get"]
    assert list(host.digest(["a"])) == [("a", 4, sha256(b"data"))]
    assert control(root, "log")["calls"]["get"] == gets, "nothing was brought for that"
    assert list(host.digest(["a"], reread=True)) == [("a", 4, sha256(b"data"))]
    assert control(root, "log")["calls"]["get"] == gets + 1


def test_digest_command_is_asked_where_the_listing_has_none(make: Make, root: Path) -> None:
    program = templates_of(simulator(root)).digest
    assert program is not None
    md5_of = (*program, "--algorithm", "md5")
    host = make(listed=WITHOUT["listed"], digest=md5_of, algorithm="md5", digested="(?P<digest>[0-9a-f]{32}) .*")
    assert host.templates.problems() == []
    (landed,) = host.land(frames_of("a", b"data"), proof="store")
    assert isinstance(landed, Receipt)
    md5 = hashlib.md5(b"data", usedforsecurity=False).hexdigest()
    assert list(host.digest(["a"], "md5")) == [("a", 4, f"md5:{md5}")]
    control(root, "fail", "digest", 1, "--exit", 0, "--say", "nothing to see", "--nothing")
    (failed,) = host.digest(["a"], "md5")
    assert isinstance(failed, Transient)
    assert "printed no line that `digested` matches" in failed.text


def test_digest_of_another_length_is_told_as_none_of_the_algorithm(make: Make) -> None:
    md5 = (sys.executable, "-c", "print('0' * 32, '{path}')")
    host = make(listed=WITHOUT["listed"], digest=md5, algorithm="sha256", digested="(?P<digest>[0-9a-f]+) .*")
    (failed,) = host.land(frames_of("a", b"data"), proof="store")
    assert isinstance(failed, Transient)
    assert "is no sha256: '00000000" in failed.text


@pytest.mark.parametrize("algorithm", ["crc32", "adler32"])
def test_sum_that_a_program_prints_as_a_number_proves_a_file(make: Make, root: Path, algorithm: str) -> None:
    sum_of = getattr(zlib, algorithm)
    short = next(data for data in (b"%d" % n for n in range(10_000)) if sum_of(data) < 1 << 28)
    print_it = (
        f"import sys, zlib; print('%x' % zlib.{algorithm}(open(sys.argv[1], 'rb').read()), 'sum of', sys.argv[1])"
    )
    program = (sys.executable, "-c", print_it, f"{root.parent}{{path}}")
    host = make(listed=WITHOUT["listed"], digest=program, algorithm=algorithm, digested="(?P<digest>[0-9a-f]+) sum .*")
    (landed,) = host.land(frames_of("a", short), proof="store")
    assert isinstance(landed, Receipt)
    assert list(host.digest(["a"], algorithm)) == [("a", len(short), f"{algorithm}:{sum_of(short):08x}")]


def test_store_without_digests_proves_nothing_by_them(make: Make) -> None:
    host = make(**WITHOUT)
    assert host.own_digest is None
    with pytest.raises(Unsupported):
        list(host.land(frames_of("a", b"data"), proof="store"))


# Listings.


@pytest.mark.parametrize(
    "said", ["", "garbage", "resident 4 1.0 - - - /elsewhere/a", "resident many 1.0 - - - /root/a", "x" * 9000]
)
def test_listing_that_is_not_understood_is_not_taken_for_an_empty_one(make: Make, root: Path, said: str) -> None:
    (root / "a").write_bytes(b"data")
    host = make()
    for call in (
        lambda: list(host.scan("")),
        lambda: list(host.find(["a"])),
        lambda: list(host.land(frames_of("b", b"x"))),
        lambda: list(host.residency(["a"])),
    ):
        control(root, "fail", "ls", 2, "--exit", 0, "--nothing", "--say", said)
        with pytest.raises((HostDown, Transient)):
            call()
        control(root, "fail", "ls", 0)
    assert files_in(root) == {"a": b"data"}


def test_one_line_that_is_not_understood_spoils_the_scan(make: Make, root: Path) -> None:
    (root / "a").write_bytes(b"data")
    host = make()
    listing = host.listing.up
    host.listing.up = lambda stop: (  # type: ignore[method-assign] # so that only the scan's own listing is spoiled
        listing(stop),
        control(root, "fail", "ls", 1, "--exit", 0, "--say", "resident 12 - /root/b"),
    )
    with pytest.raises(Transient, match="not understood"):
        list(host.scan(""))


def test_store_that_is_down_is_down_for_every_act(make: Make, root: Path) -> None:
    (root / "a").write_bytes(b"data")
    host = make()
    control(root, "set", "down", "yes")
    for call in (
        lambda: host.open(host.marker),
        lambda: list(host.scan("")),
        lambda: list(host.find(["a"])),
        lambda: list(host.read([Want(1, 1, "a", "b")])),
        lambda: list(host.land(frames_of("b", b"x"))),
        lambda: list(host.digest(["a"])),
        lambda: list(host.headers(["a"])),
        lambda: list(host.remove(["a"])),
        lambda: list(host.move([("a", "b")])),
        lambda: list(host.residency(["a"])),
        lambda: list(host.stage(["a"])),
        lambda: list(host.identify(["a"])),
        lambda: host.sweep("", lambda item, epoch: True),
        host.space,
    ):
        with pytest.raises(HostDown):
            call()
    control(root, "set", "down", "no")
    assert host.open(host.marker) == host.marker


def test_listing_that_exits_0_for_what_is_absent_or_takes_one_path_will_do(make: Make, root: Path) -> None:
    control(root, "set", "missing", 0)
    one = tuple("{path}" if word == "{paths}" else word for word in make().templates.list)
    for changed in ({}, {"absent": None}, {"list": one, "absent": None}):
        host = make(**changed)
        (root / "a").write_bytes(b"data")
        there, absent = host.find(["a", "b"])
        assert isinstance(there, FileInfo)
        assert absent is None
        assert list(host.scan("none")) == []
    control(root, "set", "missing", 1)
    for changed in ({"list": one}, {"list": one, "absent": "no such file"}, {"absent": "no such file"}):
        there, absent, again = make(**changed).find(["a", "b", "a"])
        assert there == again != absent
        assert absent is None
    (found,) = make(absent=None).find(["b"])
    assert isinstance(found, Transient)
    assert "`absent`" in found.text


# States, staging.


def test_states_are_those_of_the_listing_and_stage_asks(make: Make, root: Path) -> None:
    for name in ("disk", "tape", "coming", "gone"):
        (root / name).write_bytes(b"data")
    host = make()
    assert host.stages
    for number, name in enumerate(("tape", "coming", "gone"), 7):
        control(root, "migrate", f"/root/{name}", "--volume", "VOL9", "--position", number)
    control(root, "set", "latency", LATE_S)
    control(root, "lose", "/root/gone")
    assert list(host.stage(["coming"])) == [None]
    states = list(host.residency(["disk", "tape", "coming", "gone"]))
    assert states == [
        Residency("online"),
        Residency("offline", "VOL9", 7),
        Residency("staging", "VOL9", 8),
        Residency("lost", "VOL9", 9),
    ]
    (missing,) = host.residency(["none"])
    assert isinstance(missing, SourceMissing)
    assert not make(stage=None).stages


def test_file_on_tape_is_not_read_before_it_was_staged(make: Make, root: Path) -> None:
    (root / "a").write_bytes(b"data")
    host = make()
    control(root, "migrate", "/root/a")
    fault = list(host.read([Want(1, 1, "a", "b")]))[-1][1]
    assert (fault.kind, "staged first" in fault.text) == ("transient", True)
    assert list(host.stage(["a"])) == [None]
    until(lambda: only(host.residency(["a"])).state == "online")  # type: ignore[union-attr] # no error
    assert [name for name, _ in host.read([Want(1, 1, "a", "b")])] == ["file", "data", "end"]


def test_refused_stage_is_the_error_of_its_file_alone(make: Make, root: Path) -> None:
    for name in "abc":
        (root / name).write_bytes(b"data")
    host = make()
    control(root, "migrate", *(f"/root/{name}" for name in "abc"))
    control(root, "refuse", "/root/b")
    first, refused, outside, last = host.stage(["a", "b", "../x", "c"])
    assert (first, last) == (None, None)
    assert isinstance(refused, Transient)
    assert "stage refused" in refused.text
    assert isinstance(outside, Refused)
    assert sorted(one["path"] for one in control(root, "log")["requests"]) == ["/root/a", "/root/c"]


def test_file_that_is_there_on_tape_is_adopted_by_the_stores_own_digest(make: Make, root: Path) -> None:
    host = make()
    (landed,) = host.land(frames_of("a", b"data"))
    assert isinstance(landed, Receipt)
    control(root, "migrate", "/root/a")
    (adopted,) = host.land(frames_of("a", b"data"))
    assert isinstance(adopted, Receipt)
    assert (adopted.adopted, adopted.proof) == (True, "store")
    (other,) = host.land(frames_of("a", b"DATA"))
    assert isinstance(other, Conflict)


def test_marker_that_went_to_tape_does_not_close_the_store(make: Make, root: Path) -> None:
    host = make()
    control(root, "migrate", "/root/.stager/marker")
    control(root, "set", "latency", LATE_S)
    assert store(root).open(host.marker) == host.marker
    assert host.open(host.marker) == host.marker


def test_marker_on_tape_is_not_asked_for_by_who_only_looks(make: Make, root: Path) -> None:
    marker = make().marker
    control(root, "migrate", "/root/.stager/marker")
    control(root, "set", "latency", LATE_S)
    only_looks = store(root)
    assert only_looks.open(None, marks=False) is None
    assert only_looks.open(marker, marks=False) == marker
    assert control(root, "log")["calls"].get("stage", 0) == 0


# Reading.


def test_members_of_a_bundle_cost_one_get(make: Make, root: Path) -> None:
    data = os.urandom(100_000)
    (root / "bundle").write_bytes(data)
    host = make()
    gets = control(root, "log")["calls"]["get"]
    wants = [
        Want(n, 1, "bundle", f"out/{n}", 1000, n, sha256(data[n * 1000 :][:1000]), stretch=(n * 1000, 1000))
        for n in range(5)
    ]
    frames = list(host.read(wants))
    assert [bytes(body) for name, body in frames if name == "data"] == [data[n * 1000 :][:1000] for n in range(5)]
    assert [body["mtime_ns"] for name, body in frames if name == "file"] == list(range(5))
    places = [Member("bundle", n, 10, f"m{n}") for n in range(3)]
    assert list(host.digest(places)) == [(f"m{n}", 10, sha256(data[n:][:10])) for n in range(3)]
    assert control(root, "log")["calls"]["get"] == gets + 1
    assert list(host.digest(places, reread=True)) == [(f"m{n}", 10, sha256(data[n:][:10])) for n in range(3)]
    assert control(root, "log")["calls"]["get"] == gets + 2


def test_byte_that_was_flipped_on_the_store_is_the_sources(make: Make, root: Path) -> None:
    (root / "a").write_bytes(b"dAta")
    host = make()
    fault = list(host.read([Want(1, 1, "a", "b", 4, None, sha256(b"data"))]))[-1][1]
    assert fault.kind == "source corrupt"
    assert fault.path == "a"


def test_scratch_folder_without_room_is_no_space_here(
    make: Make, root: Path, require: Callable[[str], Any], tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "scratch")]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        require("a tmpfs cannot be mounted here")
    try:
        host = make()
        (root / "large").write_bytes(bytes(2 << 20))
        (landed, small) = host.land([*frames_of("a", bytes(2 << 20)), *frames_of("b", b"data", 2)])
        assert isinstance(landed, NoSpace)
        assert landed.side == "local"
        assert isinstance(small, Receipt)
        unknown = frames_of("c", bytes(2 << 20))
        unknown[0][1]["size"] = None
        (landed,) = host.land(unknown)
        assert isinstance(landed, NoSpace)
        fault = list(host.read([Want(1, 1, "large", "b")]))[-1][1]
        assert (fault.kind, fault.side) == ("no space", "local")
        host.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "scratch")], check=True)


# Time: what hangs, and what is killed. Here the program itself runs.


def script(root: Path, text: str) -> str:
    """A program that wraps the simulator: "$@" are its words."""
    place = root.parent / "wrapped"
    place.write_text(f'#!/bin/sh\n{text}\nexec "$@"\n')
    place.chmod(0o755)
    return str(place)


def wrapped(templates: Templates, act: str, program: str) -> Templates:
    words = templates.words(act)
    assert words is not None
    return replace(templates, **{act: (program, *words)})


FULL = "No space left on device|HPSS_ENOSPC"
SAYS_FULL = 'echo "put: write error: No space left on device" >&2'


@BOTH
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"{SAYS_FULL}; exit 5", NoSpace),
        (f"{SAYS_FULL}; exit 0", NoSpace),
        ("echo HPSS_ENOSPC; exit 5", NoSpace),
        (f'"$@"; {SAYS_FULL}; exit 5', NoSpace),
        (f'for to in "$@"; do :; done; printf da > {{above}}"$to"; {SAYS_FULL}; exit 0', NoSpace),
        ("echo no route to the store; exit 5", Transient),
        ('for to in "$@"; do :; done; echo "$to: tape jam"; exit 5', Transient),
        (f"{SAYS_FULL}", Receipt),
    ],
    ids=["fails", "does nothing", "on standard output", "late", "half", "another failure", "a name", "for all that"],
)
def test_put_that_says_that_the_store_is_full_waits_for_room(
    root: Path, lacks: dict[str, Any], text: str, kind: type
) -> None:
    made = templates_of(simulator(root), full=FULL, **lacks)
    host = CommandStore("mss", "/root", made, str(root.parent / "scratch"))
    marker = host.open(None)
    program = script(root, text.replace("{above}", str(root.parent)))
    full = CommandStore("mss", "/root", wrapped(made, "put", program), str(root.parent / "scratch"))
    full.open(marker)
    name = "d/HPSS_ENOSPC" if "tape jam" in text else "a"
    (root / "d").mkdir()
    (result,) = full.land(frames_of(name, b"data"))
    assert type(result) is kind
    if kind is NoSpace:
        assert isinstance(result, NoSpace)
        assert (result.side, result.phase, result.path) == ("store", "command", name)
    if kind is not Receipt:
        assert files_in(root) == {}, "what was put is removed again"
        assert list(full.journal.notes()) == []
    (landed,) = host.land(frames_of(name, b"data"))
    assert isinstance(landed, Receipt)
    host.close()
    full.close()


def test_without_words_for_a_full_store_a_put_that_fails_is_only_a_failure(make: Make, root: Path) -> None:
    knowing, not_knowing = make(), make(full=None)
    control(root, "set", "room_bytes", 1)
    assert [type(result) for result in knowing.land(frames_of("a", b"data"))] == [NoSpace]
    assert [type(result) for result in not_knowing.land(frames_of("a", b"data"))] == [Transient]
    control(root, "set", "room_bytes", "")
    assert [type(result) for result in knowing.land(frames_of("a", b"data"))] == [Receipt]


def test_listing_that_hangs_is_the_stores_and_is_waited_for_once(root: Path) -> None:
    waits = root.parent / "hangs"
    program = script(root, f"echo >> {waits}.calls; if [ -e {waits} ]; then sleep 1000; fi")
    templates = wrapped(templates_of(simulator(root), timeout_s=2.0), "list", program)
    host = CommandStore("mss", "/root", templates, str(root.parent / "scratch"))
    host.open(None)
    waits.touch()
    before = (root.parent / "hangs.calls").stat().st_size
    with pytest.raises(HostDown, match="did not end within 2 s"):
        list(host.residency(f"raw/{number}" for number in range(20)))
    assert (root.parent / "hangs.calls").stat().st_size == before + 1
    host.close()


def test_marker_that_could_not_be_made_leaves_nothing_behind(root: Path) -> None:
    control(root, "fail", "rename", 2, "--exit", 72, "--nothing")
    for _ in range(2):
        with pytest.raises(TransferError, match="72"):
            store(root).open(None)
    assert names(root / ".stager") == []
    assert store(root).open(None)


def test_command_that_hangs_is_killed_with_all_that_it_began(root: Path) -> None:
    children = root.parent / "children"
    program = script(root, f"sleep 1000 & echo $! >> {children}; (sleep 1000 & echo $! >> {children}; wait) & wait")
    templates = wrapped(templates_of(simulator(root), timeout_s=LATE_S), "put", program)
    host = CommandStore("mss", "/root", templates_of(simulator(root)), str(root.parent / "scratch"))
    marker = host.open(None)
    hanging = CommandStore("mss", "/root", replace(templates, timeout_s=10.0), str(root.parent / "scratch"))
    hanging.open(marker)
    (failed,) = hanging.land(frames_of("a", b"data"))
    assert isinstance(failed, Transient)
    assert failed.phase == "timeout"
    pids = [int(line) for line in children.read_text().split()]
    assert len(pids) == 2
    until(lambda: not any(is_alive(pid) for pid in pids), lambda: pids)
    assert files_in(root) == {}
    host.close()
    hanging.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_stop_kills_the_command_that_runs(root: Path) -> None:
    host = store(root)
    host.open(None)
    control(root, "set", "put_s", 1000)
    stopping = threading.Event()
    results: list[Any] = []
    landing = threading.Thread(target=lambda: results.extend(host.land(frames_of("a", b"data"), stop=stopping.is_set)))
    landing.start()
    until(lambda: list((root / ".stager").glob("parts/.a*")) != [])
    stopping.set()
    landing.join(LATE_S)
    assert not landing.is_alive()
    (stopped,) = results
    assert isinstance(stopped, Transient)
    assert stopped.phase == "stopped"
    assert only_marker(root)
    host.close()


LANDS = """
import sys
from pathlib import Path
from tests.transfers.contract import frames_of
from tests.transfers.command.test_store import WITHOUT, store
host = store(Path(sys.argv[1]), **(WITHOUT if sys.argv[2] == "without" else {}))
host.open(None)
print(list(host.land(frames_of("d/a", bytes(range(256)) * 1000))))
"""


@pytest.mark.parametrize("kept", ["with", "without"])
def test_attempt_killed_in_mid_put_is_made_good_by_the_next(root: Path, kept: str) -> None:
    """Killed as by a power cut: the worker first; its command goes on, and is ended by the next attempt."""
    lacks = WITHOUT if kept == "without" else {}
    host = store(root, **lacks)  # type: ignore[arg-type] # what it lacks
    host.open(None)
    control(root, "set", "put_s", LATE_S)
    here = Path(__file__).parents[2]
    half = "d/a" if lacks else ".stager/parts/.a.1-1-*"
    with subprocess.Popen([sys.executable, "-c", LANDS, str(root), kept], cwd=here, stdout=subprocess.PIPE) as worker:
        until(lambda: [path.stat().st_size for path in root.glob(half)] == [128_000])
        if lacks:
            until(lambda: any(note.process for note in host.journal.notes()))
        worker.send_signal(signal.SIGKILL)
    control(root, "set", "put_s", 0)
    if lacks:
        foreign = host.land(frames_of("d/b", b"other"))
        assert isinstance(only(foreign), Receipt)
    (landed,) = host.land(frames_of("d/a", bytes(range(256)) * 1000, epoch=2))
    assert isinstance(landed, Receipt), landed
    assert not landed.adopted
    assert (root / "d/a").read_bytes() == bytes(range(256)) * 1000
    if lacks:
        assert list(host.journal.notes()) == []
    else:
        until(lambda: len(host.sweep("d", lambda item, epoch: epoch == 1)) > 0 or only_marker(root))
    host.close()


def test_half_a_file_that_the_journal_does_not_know_is_a_conflict(make: Make, root: Path) -> None:
    host = make(**WITHOUT)
    (root / "a").write_bytes(b"da")
    (landed,) = host.land(frames_of("a", b"data"))
    assert isinstance(landed, Conflict)
    note = host.journal.note("a", 4, sha256(b"data"), 1, 1)
    (landed,) = host.land(frames_of("a", b"data"))
    assert isinstance(landed, Conflict), "its command was never begun: it cannot be its own"
    host.journal.begun(note, 1 << 22)
    (root / "a").write_bytes(b"longer than that")
    assert isinstance(only(host.land(frames_of("a", b"data"))), Conflict)
    (root / "a").write_bytes(b"da")
    (landed,) = host.land(frames_of("a", b"data"))
    assert isinstance(landed, Receipt)
    assert files_in(root) == {"a": b"data"}


def test_sweep_removes_the_half_files_of_dead_leases(make: Make, root: Path) -> None:
    host = make(**WITHOUT)
    for path, data in {
        "d/half": b"da",
        "d/whole": b"data",
        "d/alive": b"da",
        "e/half": b"da",
        "d/foreign": b"da",
    }.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(data)
        if "foreign" not in path:
            epoch = 2 if "alive" in path else 1
            host.journal.begun(host.journal.note(path, 4, sha256(b"data"), 1, epoch), 1 << 22)
    assert host.sweep("d", lambda item, epoch: epoch == 1) == ["d/half"]
    assert set(files_in(root)) == {"d/whole", "d/alive", "e/half", "d/foreign"}


def test_file_that_came_while_ours_was_put_is_not_replaced(make: Make, root: Path) -> None:
    host = make()
    control(root, "set", "get_s", LATE_S)
    results: list[Any] = []
    landing = threading.Thread(target=lambda: results.extend(host.land(frames_of("d/a", b"data"))))
    landing.start()
    until(lambda: list(root.glob(".stager/parts/.a*")) != [])
    (root / "d").mkdir()
    (root / "d/a").write_bytes(b"theirs")
    control(root, "set", "get_s", 0)
    landing.join()
    assert isinstance(results[0], Conflict)
    assert files_in(root) == {"d/a": b"theirs"}
    assert only_marker(root)


# Moves, identity, and what it says of itself.


def test_move_gives_another_path_and_never_replaces(make: Make, root: Path) -> None:
    host = make()
    (root / "a").write_bytes(b"data")
    (root / "b").write_bytes(b"other")
    aside = ".stager/quarantine/evicted-5/a"
    taken, missing, outside, moved = host.move([("a", "b"), ("none", "c"), ("a", "../c"), ("a", aside)])
    assert isinstance(taken, Conflict)
    assert (taken.path, taken.facts["from"], taken.facts["to"]) == ("b", "a", "b")
    assert isinstance(missing, SourceMissing)
    assert isinstance(outside, Refused)
    assert moved == aside
    assert [found.path for found in host.scan("")] == ["b"]
    assert list(host.move([(aside, "a")])) == ["a"]
    found = list(host.move([(".stager/marker", "x"), ("a", ".stager/marker")]))
    assert [type(one) for one in found] == [Refused] * 2
    assert files_in(root) == {"a": b"data", "b": b"other"}


def test_two_hosts_of_one_root_are_one_system(make: Make, root: Path) -> None:
    one, other = make(), make()
    other.name = "another"
    (root / "a").write_bytes(b"data")
    (first, none), (second, _) = list(one.identify(["a", "none"])), list(other.identify(["a", "none"]))
    assert first == second != None  # noqa: E711  told apart from what is not there
    assert none is None
    (itself,) = one.identify([""])
    assert itself is not None
    assert itself.system == first.system
    assert list(one.lies_in(["a"])) == ["a"]


def test_it_says_what_it_cannot_do(make: Make, root: Path) -> None:
    host = make(**WITHOUT)
    assert host.space().free == 2**63 - 1
    assert host.about()["space"].startswith("not known")
    assert "renames nothing" in host.about()["landing"]
    assert (host.kind, host.far, host.cuts, host.seeks, host.reread) == ("store", False, False, False, "reread")
    with pytest.raises(Unsupported):
        list(host.fill([]))
    clock = host.clock()
    assert clock.offset_s is None
    program = "/nowhere/hsi"
    gone = CommandStore(
        "mss", "/root", replace(host.templates, list=(program, "{paths}")), str(root.parent / "scratch")
    )
    with pytest.raises(HostDown, match="cannot be started"):
        gone.open(None)


def test_copy_between_two_stores_by_commands(make: Make, root: Path, tmp_path: Path) -> None:
    (tmp_path / "root/in").mkdir()
    for name in ("a", "b"):
        (root / "in" / name).write_bytes(name.encode() * 1000)
    (tmp_path / "other").mkdir()
    other = store(tmp_path / "other")
    other.open(None)
    host = make()
    results = list(copy(host, other, wants_of(host, "in", "out")))
    assert all(isinstance(result, Receipt) for _, result in results)
    assert set(files_in(tmp_path / "other")) == {"out/in/a", "out/in/b"}
    other.close()


def test_names_that_a_program_would_tear_apart_are_refused(make: Make, root: Path) -> None:
    host = make()
    host.running.templates = replace(host.templates, get=("msscmd", "get {path} {local}"))
    (root / "a b").write_bytes(b"data")
    fault = list(host.read([Want(1, 1, "a b", "b")]))[-1][1]
    assert fault.kind == "refused"
    assert "torn apart" in fault.text
