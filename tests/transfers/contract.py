"""What every host promises, as one class of tests; a host passes by subclassing it and making itself."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tests.transfers import crafted
from tests.transfers.contract_members import MemberContract
from tests.transfers.contract_moves import MoveContract, OnDiskContract
from transfers import integrity
from transfers.copying import copy
from transfers.errors import (
    Conflict,
    CorruptedOnTheWay,
    HostDown,
    Refused,
    SourceChanged,
    SourceCorrupt,
    SourceMissing,
    TransferError,
    Transient,
    Unsupported,
)
from transfers.hosts import Cut, FileInfo, Frame, Hdu, Host, Limits, Piece, Receipt, Skipped, Want

ODD_NAMES = [
    "with space.fits",
    "new\nline.fits",
    "'quoted\"$(`).fits",
    "-rf",
    "back\\slash",
    "n" * 255,
    "ü" * 127 + "x",
    "tab\tbell\a",
    os.fsdecode(b"latin-\xe9.fits"),
    "%s {0} <b>&amp;",
]
OUTSIDE = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "a//b",
    "./a",
    "a/.",
    "",
    "a/",
    "a\0b",
    "x/" * 600 + "y",
    "n" * 256,
]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def files_in(root: Path) -> dict[str, bytes]:
    """All that is below a folder but Stager's own: hidden names too, so that a part left behind shows."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    names = {os.fsdecode(os.path.relpath(path, root)): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".stager/")}


def wants_of(host: Host, prefix: str, target: str, epoch: int = 1, **more: object) -> list[Want]:
    """One item for each file below a prefix, to the same path below the target."""
    files = [found for found in host.scan(prefix) if isinstance(found, FileInfo)]
    return [
        Want(number, epoch, file.path, f"{target}/{file.path}", file.size, file.mtime_ns)._replace(**more)
        for number, file in enumerate(files, 1)
    ]


def frames_of(path: str, data: bytes, item: int = 1, epoch: int = 1, digest: str = "") -> list[Frame]:
    facts = {
        "item": item,
        "epoch": epoch,
        "path": path,
        "replace": False,
        "size": len(data),
        "mtime_ns": 10**18,
    }
    end = {"size": len(data), "digest": digest or sha256(data)}
    return [("file", facts), ("data", data), ("end", end)]


class HostContract(MemberContract):
    """Subclass it, say how the host is made for a folder, and it is held to all of this."""

    changed_bytes = 3 << 20  # of a file that is changed while it is read: more than may be under way

    def make(self, root: Path, **options: object) -> Host:
        raise NotImplementedError

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "root").mkdir()
        return tmp_path / "root"

    @pytest.fixture
    def host(self, root: Path) -> Host:
        host = self.make(root)
        host.open(None)
        return host

    def copied(self, host: Host, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        """Copy within the host, which is source and destination here; results by destination."""
        results = list(copy(host, host, wants, **options))  # type: ignore[arg-type] # options differ by test
        assert sorted(want.destination for want, _ in results) == sorted(want.destination for want in wants)
        return {want.destination: result for want, result in results}

    # Markers.

    def test_first_use_makes_a_marker_that_stays(self, root: Path) -> None:
        marker = self.make(root).open(None)
        assert len(marker) == 36
        assert self.make(root).open(None) == marker
        assert self.make(root).open(marker) == marker
        assert (root / ".stager" / "marker").read_text().strip() == marker
        assert names(root / ".stager") == ["marker"]

    def test_root_without_its_marker_is_down_and_not_empty(self, root: Path) -> None:
        host = self.make(root)
        marker = host.open(None)
        (root / ".stager" / "marker").unlink()
        with pytest.raises(HostDown):
            self.make(root).open(marker)
        for call in (
            lambda: list(host.scan("")),
            lambda: list(host.find(["a"])),
            lambda: list(host.land(frames_of("a", b"x"))),
            lambda: list(host.digest(["a"])),
            lambda: list(host.remove(["a"])),
            lambda: list(host.headers(["a"])),
            host.space,
        ):
            with pytest.raises(HostDown):
                call()
        assert files_in(root) == {}

    def test_another_marker_is_another_file_system(self, root: Path) -> None:
        self.make(root).open(None)
        with pytest.raises(HostDown, match="another file system"):
            self.make(root).open("00000000-0000-0000-0000-000000000000")

    def test_root_that_is_gone_is_down(self, tmp_path: Path) -> None:
        told = []
        for marks in (True, False):
            with pytest.raises(HostDown) as raised:
                self.make(tmp_path / "none").open(None, marks)
            told.append(str(raised.value))
        assert told[0] == told[1]
        assert not (tmp_path / "none").exists()

    def test_root_that_is_only_looked_at_gets_no_marker(self, root: Path) -> None:
        (root / "a").write_bytes(b"data")
        host = self.make(root)
        assert host.open(None, marks=False) is None
        assert [found.path for found in host.scan("")] == ["a"]
        (found,) = host.find(["a"])
        assert isinstance(found, FileInfo)
        assert list(host.digest(["a"])) == [("a", 4, sha256(b"data"))]
        host.space()
        assert host.open(None, marks=False) is None
        assert names(root) == ["a"]
        marker = host.open(None)
        assert marker is not None
        assert (root / ".stager" / "marker").read_text().strip() == marker

    def test_root_that_is_only_looked_at_is_known_by_the_marker_it_has(self, root: Path) -> None:
        (root / ".stager").mkdir()
        (root / ".stager/marker").write_text("11111111-2222-4333-8444-555555555555\n")
        host = self.make(root)
        assert host.open(None, marks=False) == "11111111-2222-4333-8444-555555555555"
        assert host.open("11111111-2222-4333-8444-555555555555", marks=False) == "11111111-2222-4333-8444-555555555555"
        with pytest.raises(HostDown, match="another file system"):
            self.make(root).open("00000000-0000-0000-0000-000000000000", marks=False)
        (root / ".stager/marker").unlink()
        with pytest.raises(HostDown, match="no marker"):
            self.make(root).open("11111111-2222-4333-8444-555555555555", marks=False)
        assert names(root / ".stager") == []

    # Scanning.

    def test_scan_is_sorted_and_leaves_hidden_names_out(self, host: Host, root: Path) -> None:
        for name in ("b/2", "b/1", "a", "c/d/e", ".hidden", "b/.part", ".h/x"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        assert [found.path for found in host.scan("")] == ["a", "b/1", "b/2", "c/d/e"]
        assert [found.path for found in host.scan("b")] == ["b/1", "b/2"]
        (only,) = host.scan("b/2")
        assert only == FileInfo("b/2", 3, (root / "b/2").stat().st_mtime_ns)

    def test_scan_of_nothing_yields_nothing(self, host: Host) -> None:
        assert list(host.scan("none")) == []
        assert list(host.scan("")) == []

    def test_what_is_not_a_file_is_said(self, host: Host, root: Path) -> None:
        os.mkfifo(root / "fifo")
        (root / "link").symlink_to("/etc/passwd")
        with socket.socket(socket.AF_UNIX) as bound:
            here = Path.cwd()
            os.chdir(root)  # the path of a socket is short
            try:
                bound.bind("socket")
            finally:
                os.chdir(here)
        found = {skipped.path: skipped.why for skipped in host.scan("") if isinstance(skipped, Skipped)}
        assert found == {"fifo": "a FIFO", "link": "a symbolic link", "socket": "a socket"}

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
    def test_unreadable_folder_is_an_error_and_not_empty(self, host: Host, root: Path) -> None:
        (root / "closed").mkdir()
        (root / "closed").chmod(0)
        try:
            with pytest.raises(Refused):
                list(host.scan(""))
        finally:
            (root / "closed").chmod(0o700)

    # Paths.

    @pytest.mark.parametrize("path", OUTSIDE)
    def test_path_that_leaves_the_root_is_refused_by_every_method(self, host: Host, path: str) -> None:
        assert isinstance(next(iter(host.find([path]))), Refused)
        assert isinstance(next(iter(host.digest([path]))), Refused)
        assert isinstance(next(iter(host.headers([path]))), Refused)
        assert isinstance(next(iter(host.remove([path]))), Refused)
        assert isinstance(next(iter(host.land(frames_of(path, b"x")))), Refused)
        _, fault = list(host.read([Want(1, 1, path, "x")]))
        assert fault[1].kind == "refused"
        if path:
            with pytest.raises(Refused):
                list(host.scan(path))
            with pytest.raises(Refused):
                host.sweep(path, lambda item, epoch: True)

    def test_links_are_not_followed(self, host: Host, root: Path, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "secret").write_text("secret")
        (root / "in").symlink_to(tmp_path / "outside")
        (root / "file").symlink_to(tmp_path / "outside" / "secret")
        for path in ("in/secret", "file"):
            assert isinstance(next(iter(host.find([path]))), Refused)
            assert isinstance(next(iter(host.digest([path]))), Refused)
            assert isinstance(next(iter(host.remove([path]))), Refused)
            assert list(host.read([Want(1, 1, path, "x")]))[-1][1].kind == "refused"
        assert isinstance(next(iter(host.land(frames_of("in/new", b"x")))), Refused)
        assert isinstance(next(iter(host.land(frames_of("file", b"x")))), Conflict)
        with pytest.raises(Refused):
            list(host.scan("in"))
        assert names(tmp_path / "outside") == ["secret"]

    def test_links_that_stay_inside_are_followed_where_allowed(self, root: Path, tmp_path: Path) -> None:
        host = self.make(root, links=True)
        host.open(None)
        (tmp_path / "out").write_text("secret")
        (root / "real").mkdir()
        (root / "real" / "f").write_text("data")
        (root / "relative").symlink_to("real")
        (root / "absolute").symlink_to(root / "real")
        (root / "file").symlink_to("real/f")
        (root / "real" / "up").symlink_to("..")
        (root / "leaves").symlink_to(tmp_path / "out")
        (root / "dangling").symlink_to("none")
        found = {one.path: one for one in host.scan("")}
        files = {path for path, one in found.items() if isinstance(one, FileInfo)}
        assert files == {"real/f", "relative/f", "absolute/f", "file"}
        assert set(found) - files == {"leaves", "dangling", "real/up", "relative/up", "absolute/up"}
        assert isinstance(next(iter(host.find(["leaves"]))), Refused)
        (receipt,) = host.land(frames_of("absolute/g", b"new"))
        assert isinstance(receipt, Receipt)
        assert (root / "real" / "g").read_bytes() == b"new"

    def test_marker_cannot_be_landed_on_or_removed(self, host: Host, root: Path) -> None:
        before = (root / ".stager/marker").read_text()
        frames = frames_of(".stager/marker", b"x")
        frames[0][1]["replace"] = True
        assert isinstance(next(iter(host.land(frames))), Refused)
        assert isinstance(next(iter(host.remove([".stager/marker"]))), Refused)
        assert (root / ".stager/marker").read_text() == before

    # Copying.

    def test_odd_names_arrive_as_they_are(self, host: Host, root: Path) -> None:
        (root / "in").mkdir()
        for name in ODD_NAMES:
            (root / "in" / name).write_bytes(os.fsencode(name))
        wants = wants_of(host, "in", "out")
        assert {want.source for want in wants} == {f"in/{name}" for name in ODD_NAMES}
        results = self.copied(host, wants)
        assert all(isinstance(result, Receipt) for result in results.values())
        for name in ODD_NAMES:
            assert (root / "out/in" / name).read_bytes() == os.fsencode(name)
        assert len(files_in(root)) == 2 * len(ODD_NAMES)

    @pytest.mark.parametrize("proof", ["reread", "stream"])
    @pytest.mark.parametrize("size", [0, 1, 2880, (1 << 20) + 1, (65 << 20) + 7])
    def test_receipt_says_what_is_there(self, host: Host, root: Path, size: int, proof: str) -> None:
        data = os.urandom(size)
        (root / "a").write_bytes(data)
        os.utime(root / "a", ns=(1, 1_234_567_890_123_456_000))
        seen = []
        results = self.copied(host, wants_of(host, "a", "out"), proof=proof, on_bytes=seen.append)
        receipt = Receipt(1, "out/a", size, sha256(data), 1_234_567_890_123_456_000, proof, False)
        assert results == {"out/a": receipt}
        assert (root / "out/a").read_bytes() == data
        assert (root / "out/a").stat().st_mtime_ns == receipt.mtime_ns
        assert sum(seen) == size
        assert list(host.digest(["out/a"])) == [("out/a", size, sha256(data))]

    @pytest.mark.parametrize("streams", [1, 3])
    def test_many_files_over_windows_and_streams(self, host: Host, root: Path, streams: int) -> None:
        for number in range(250):
            path = root / f"in/{number % 7}/f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number * number)
        results = self.copied(host, wants_of(host, "in", "out"), streams=streams)
        assert all(isinstance(result, Receipt) for result in results.values())
        got = files_in(root)
        assert len(got) == 500
        assert all(got["out/" + path] == data for path, data in got.items() if path.startswith("in/"))

    def test_same_file_already_there_is_adopted(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"same")
        (root / "out").mkdir()
        (root / "out/a").write_bytes(b"same")
        seen = []
        receipt = self.copied(host, wants_of(host, "a", "out"), on_bytes=seen.append)["out/a"]
        assert isinstance(receipt, Receipt)
        assert receipt.adopted
        assert receipt.digest == sha256(b"same")
        assert seen == []
        (landed,) = host.land(frames_of("out/a", b"same"))
        assert isinstance(landed, Receipt)
        assert landed.adopted
        assert files_in(root) == {"a": b"same", "out/a": b"same"}

    @pytest.mark.parametrize("other", [b"longer than", b"sAme"])
    def test_rename_never_replaces(self, host: Host, root: Path, other: bytes) -> None:
        (root / "a").write_bytes(b"same")
        (root / "out").mkdir()
        (root / "out/a").write_bytes(other)
        assert isinstance(self.copied(host, wants_of(host, "a", "out"))["out/a"], Conflict)
        (landed,) = host.land(frames_of("out/a", b"same"))
        assert isinstance(landed, Conflict)
        assert files_in(root) == {"a": b"same", "out/a": other}

    def test_replaced_file_is_set_aside_and_not_lost(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"new")
        (root / "out").mkdir()
        for epoch, old in ((1, b"old"), (1, b"older")):
            (root / "out/a").write_bytes(old)
            result = self.copied(host, wants_of(host, "a", "out", epoch, replace=True))["out/a"]
            assert isinstance(result, Receipt)
            assert (root / "out/a").read_bytes() == b"new"
        aside = root / ".stager/quarantine"
        assert sorted(path.read_bytes() for path in aside.rglob("a")) == [b"old", b"older"]

    @pytest.mark.parametrize("thing", ["folder", "fifo", "link"])
    def test_name_taken_by_something_else_is_a_conflict(self, host: Host, root: Path, thing: str) -> None:
        (root / "a").write_bytes(b"x")
        (root / "out").mkdir()
        make = {"folder": os.mkdir, "fifo": os.mkfifo, "link": lambda path: path.symlink_to("none")}
        make[thing](root / "out/a")
        (landed,) = host.land(frames_of("out/a", b"x"))
        assert isinstance(landed, Conflict)
        assert isinstance(self.copied(host, wants_of(host, "a", "out"))["out/a"], (Conflict, Refused))
        assert names(root / "out") == ["a"]

    def test_file_where_a_folder_is_needed_is_a_conflict(self, host: Host, root: Path) -> None:
        (root / "out").write_text("a file")
        (landed,) = host.land(frames_of("out/a", b"x"))
        assert isinstance(landed, Conflict)

    def test_wrong_expectations_are_told_apart_and_hold_up_nobody(self, host: Host, root: Path) -> None:
        for name in ("size", "time", "digest", "unknown", "good", "md5", "crc32"):
            (root / name).write_bytes(b"data")
        stamp = (root / "time").stat().st_mtime_ns
        md5 = "md5:" + hashlib.md5(b"data", usedforsecurity=False).hexdigest()
        wants = [
            Want(1, 1, "size", "out/size", 5),
            Want(2, 1, "time", "out/time", 4, stamp + 1),
            Want(3, 1, "digest", "out/digest", 4, None, sha256(b"other")),
            Want(4, 1, "unknown", "out/unknown", 4, None, "blake9:00"),
            Want(5, 1, "missing", "out/missing"),
            Want(6, 1, "good", "out/good", 4, None, sha256(b"data")),
            Want(7, 1, "md5", "out/md5", None, None, md5),
            Want(8, 1, "crc32", "out/crc32", None, None, "crc32:adf3f363"),
            Want(9, 1, "good", "out/adler32", None, None, "adler32:0400019b"),
        ]
        results = self.copied(host, wants)
        kinds = {path.removeprefix("out/"): type(result) for path, result in results.items()}
        assert kinds == {
            "size": SourceChanged,
            "time": SourceChanged,
            "digest": SourceCorrupt,
            "unknown": Unsupported,
            "missing": SourceMissing,
            "good": Receipt,
            "md5": Receipt,
            "crc32": Receipt,
            "adler32": Receipt,
        }
        changed = results["out/size"]
        assert isinstance(changed, SourceChanged)
        assert changed.facts["size"] == 4
        assert names(root / "out") == ["adler32", "crc32", "good", "md5"]

    def test_source_changed_while_it_is_read_is_not_landed(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(bytes(self.changed_bytes))
        wants = wants_of(host, "a", "out")

        def touch(_: int) -> None:
            with (root / "a").open("r+b") as file:
                file.write(b"changed")

        assert isinstance(self.copied(host, wants, on_bytes=touch)["out/a"], SourceChanged)
        assert list((root / "out").iterdir()) == []

    def test_what_is_read_back_must_be_what_was_sent(self, host: Host, root: Path) -> None:
        frames = [*frames_of("bad", b"data", 1, digest=sha256(b"other")), *frames_of("good", b"data", 2)]
        bad, good = host.land(frames)
        assert isinstance(bad, CorruptedOnTheWay)
        assert bad.facts["item"] == 1
        assert isinstance(good, Receipt)
        assert files_in(root) == {"good": b"data"}

    def test_source_that_breaks_off_leaves_no_part(self, host: Host, root: Path) -> None:
        good, broken = host.land([*frames_of("good", b"data"), *frames_of("cut", b"data")[:2]])
        assert isinstance(good, Receipt)
        assert isinstance(broken, Transient)
        assert files_in(root) == {"good": b"data"}

    def test_stop_ends_promptly_and_leaves_no_part(self, host: Host, root: Path) -> None:
        for number in range(20):
            (root / f"f{number:02}").write_bytes(bytes(1 << 20))
        seen = []
        results = self.copied(host, wants_of(host, "", "out"), on_bytes=seen.append, stop=lambda: sum(seen) >= 3 << 20)
        stopped = [result for result in results.values() if isinstance(result, Transient)]
        assert len(stopped) >= 16
        assert all(error.phase == "stopped" for error in stopped)
        left = {path for path in files_in(root) if path.startswith("out/")}
        assert left == {path for path, result in results.items() if isinstance(result, Receipt)}

    def test_leaving_the_results_early_leaves_no_part(self, host: Host, root: Path) -> None:
        for number in range(300):
            (root / f"f{number:03}").write_bytes(b"x" * number)
        results = copy(host, host, wants_of(host, "", "out"))
        next(results)
        results.close()
        assert not [path for path in files_in(root) if path.endswith(".part")]

    # Units and pieces.

    def unit(self, root: Path) -> list[Want]:
        (root / "plane").write_bytes(bytes(range(256)) * 100)
        header = b"DATASUM = '0'".ljust(80) + b"END".ljust(2800)
        return [
            Want(1, 1, "plane", f"out/{n}", piece=Piece(header, (Cut(n * 8, 8, 256, 100),), 2880 - 800))
            for n in range(5)
        ]

    def test_unit_comes_into_place_whole(self, host: Host, root: Path) -> None:
        results = self.copied(host, self.unit(root))
        assert all(isinstance(result, Receipt) for result in results.values())
        for n in range(5):
            data = (root / f"out/{n}").read_bytes()
            assert data[2880:3680] == bytes(range(n * 8, n * 8 + 8)) * 100
            assert data[3680:] == bytes(2080)
        again = self.copied(host, self.unit(root)[:0] + [w._replace(epoch=2) for w in self.unit(root)])
        kinds = {type(result) for result in again.values()}
        assert kinds == {Receipt}
        assert all(result.adopted for result in again.values() if isinstance(result, Receipt))

    @pytest.mark.parametrize("why", ["conflict", "cut beyond the end", "recipe"])
    def test_one_that_fails_keeps_its_whole_unit_away(self, host: Host, root: Path, why: str) -> None:
        wants = self.unit(root)
        piece = wants[3].piece
        assert piece is not None
        if why == "conflict":
            (root / "out").mkdir()
            (root / "out/3").write_bytes(b"another")
        elif why == "recipe":
            wants[3] = wants[3]._replace(piece=piece._replace(cuts=(Cut(0, 8, 4, 2),)))
        else:
            wants[3] = wants[3]._replace(piece=piece._replace(cuts=(Cut(0, 8, 256, 101),)))
        expected = {"conflict": Conflict, "cut beyond the end": SourceCorrupt, "recipe": Refused}[why]
        assert {type(result) for result in self.copied(host, wants).values()} == {expected}
        left = {path for path in files_in(root) if path.startswith("out/")}
        assert left == ({"out/3"} if why == "conflict" else set())

    def test_pieces_of_a_corrupt_source_are_not_landed(self, host: Host, root: Path) -> None:
        wants = self.unit(root)
        good = sha256((root / "plane").read_bytes())
        bad = [want._replace(digest=sha256(b"")) for want in wants]
        assert {type(result) for result in self.copied(host, bad).values()} == {SourceCorrupt}
        fine = [want._replace(digest=good) for want in wants]
        assert {type(result) for result in self.copied(host, fine).values()} == {Receipt}

    # The rest.

    def test_find_tells_files_from_nothing_and_folders(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/f").write_bytes(b"abc")
        file, nothing, below_file, folder = host.find(["d/f", "d/g", "d/f/g", "d"])
        assert file == FileInfo("d/f", 3, (root / "d/f").stat().st_mtime_ns)
        assert nothing is None
        assert below_file is None
        assert isinstance(folder, Refused)

    def test_remove_is_for_files_and_may_be_said_twice(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/f").write_bytes(b"abc")
        assert list(host.remove(["d/f", "d/f"])) == ["d/f", "d/f"]
        assert isinstance(next(iter(host.remove(["d"]))), Refused)
        assert (root / "d").is_dir()

    def test_space_is_of_the_root(self, host: Host) -> None:
        space = host.space()
        assert 0 < space.free <= space.total
        assert space.files_free > 0

    def test_sweep_removes_dead_parts_and_no_others(self, root: Path) -> None:
        host = self.make(root, instance="0000beef")
        host.open(None)
        parts = [
            "d/.f.fits.1-1.0000beef.part",
            "d/.f.fits.1-2.0000beef.part",
            "d/.f.fits.1-1-3.0000beef.part",
            "d/.f.fits.1-1.0000cafe.part",
            "d/f.fits.1-1.0000beef.part",
            "d/.f.fits.part",
            ".stager/.l.1-1.0000beef.part",
        ]
        for name in parts:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"x")
        gone = host.sweep("", lambda item, epoch: (item, epoch) == (1, 1))
        assert sorted(gone) == sorted([parts[0], parts[2], parts[6]])
        assert all((root / name).exists() == (name not in gone) for name in parts)

    def test_headers_come_with_their_places(self, host: Host, root: Path) -> None:
        cards = [
            b"SIMPLE  =                    T",
            b"BITPIX  =                   16",
            b"NAXIS   =                    1",
        ]
        cards += [b"NAXIS1  =                 2000", b"END"]
        header = b"".join(card.ljust(80) for card in cards).ljust(2880)
        (root / "a.fits").write_bytes(header + bytes(5760))
        (root / "b.fits").write_bytes(b"just text")
        good, bad, missing = host.headers(["a.fits", "b.fits", "c.fits"])
        assert good == (Hdu(0, header, 2880, 4000, rest=1760),)
        assert isinstance(bad, SourceCorrupt)
        assert (bad.facts["code"], bad.facts["hdu"]) == ("not-fits", 0)
        assert isinstance(missing, SourceMissing)

    @pytest.mark.parametrize("packed", [False, True])
    def test_sums_are_those_of_astropy(self, host: Host, root: Path, packed: bool) -> None:
        name = "a.fits.gz" if packed else "a.fits"
        pixels = np.random.default_rng(1).integers(-9, 9, (1500, 1001), np.int16)  # some MB, and no whole blocks
        made = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels), fits.CompImageHDU(pixels), fits.ImageHDU()])
        made.writeto(root / name, checksum=True)
        (found,) = host.headers([name], Limits(sums=True))
        assert not isinstance(found, TransferError), found
        with fits.open(root / name, disable_image_compression=True) as hdus:
            assert [hdu.datasum for hdu in found] == [int(hdu.header["DATASUM"]) for hdu in hdus]
        assert [hdu.packed for hdu in found] == [packed] * 4
        assert [hdu.rest for hdu in found] == [None, None, None, 0]
        assert integrity.troubles(found) == []

    def test_sums_are_made_only_where_they_are_asked_for_and_carried(self, host: Host, root: Path) -> None:
        fits.HDUList([fits.PrimaryHDU(np.zeros(9)), fits.ImageHDU(np.ones(9))]).writeto(root / "none.fits")
        fits.PrimaryHDU(np.ones(9)).writeto(root / "some.fits", checksum=True)
        without, unasked = host.headers(["none.fits", "some.fits"])
        none, some = host.headers(["none.fits", "some.fits"], Limits(sums=True))
        for hdus in (without, unasked, none):
            assert not isinstance(hdus, TransferError)
            assert [hdu.datasum for hdu in hdus] == [None] * len(hdus)
        assert not isinstance(some, TransferError)
        assert some[0].datasum is not None

    @pytest.mark.parametrize("damage", ["none", "pixels", "length", "cut"])
    def test_gzip_file_is_unpacked_no_further_than_its_headers(self, host: Host, root: Path, damage: str) -> None:
        """Damaged pixels are not seen then; a length that is not as declared is, by what that leads to."""
        packed = gzip.compress(crafted.primary(axes=(100_000,)) + os.urandom(100_000) + bytes(800))
        harmed = packed[:50_000] + bytes(100) + packed[50_100:]
        made = {"pixels": harmed, "length": harmed[:-4] + bytes(4), "cut": packed[:-20]}
        (root / "a.fits.gz").write_bytes(made.get(damage, packed))
        (found,) = host.headers(["a.fits.gz"], Limits(pixels=False))
        if damage in ("none", "pixels"):
            assert not isinstance(found, TransferError), found
            assert [(hdu.data_size, hdu.rest) for hdu in found] == [(100_000, 800)]
        else:
            assert isinstance(found, SourceCorrupt)
            assert "gzip" in found.text
        (whole,) = host.headers(["a.fits.gz"])
        assert isinstance(whole, TransferError) == (damage != "none")

    def test_gzip_data_by_another_name_is_read_where_that_is_wanted(self, host: Host, root: Path) -> None:
        (root / "a.fits").write_bytes(gzip.compress(crafted.sound()))
        (root / "b.fits").write_bytes(crafted.sound())
        refused, _ = host.headers(["a.fits", "b.fits"])
        assert isinstance(refused, SourceCorrupt)
        assert refused.facts["code"] == "gzip-name"
        packed, plain = host.headers(["a.fits", "b.fits"], Limits(by_content=True))
        assert not isinstance(packed, TransferError)
        assert not isinstance(plain, TransferError)
        assert (packed[0].packed, plain[0].packed) == (True, False)
        assert packed[0]._replace(packed=False) == plain[0]

    # Unpacking.

    def test_gzip_file_is_unpacked_where_it_lies(self, host: Host, root: Path) -> None:
        data = os.urandom(3 << 20)
        (root / "a.gz").write_bytes(gzip.compress(data[: 1 << 20]) + gzip.compress(data[1 << 20 :]) + bytes(512))
        path = host.gunzip(Want(7, 1, "a.gz", ""), 4 << 20)
        assert (root / path).read_bytes() == data
        assert list(host.scan("")) == [
            FileInfo("a.gz", (root / "a.gz").stat().st_size, (root / "a.gz").stat().st_mtime_ns)
        ]
        assert host.sweep(".stager", lambda item, epoch: (item, epoch) == (7, 1)) == [path]

    @pytest.mark.parametrize("damage", ["short", "flipped", "bomb", "text", "changed", "empty"])
    def test_damaged_gzip_file_leaves_nothing(self, host: Host, root: Path, damage: str) -> None:
        packed = bytearray(gzip.compress(os.urandom(100_000)))
        if damage == "flipped":
            packed[50_000] ^= 1
        made = {"short": packed[:-9], "bomb": gzip.compress(bytes(9 << 20)), "text": b"text", "empty": b""}
        (root / "a.gz").write_bytes(made.get(damage, packed))
        want = Want(7, 1, "a.gz", "", 5 if damage == "changed" else None)
        with pytest.raises(SourceChanged if damage == "changed" else SourceCorrupt):
            host.gunzip(want, 8 << 20)
        assert not list(root.rglob("*.part"))


class DiskContract(HostContract, MoveContract, OnDiskContract):
    """The same for a host whose files are on disk, which promises more."""
