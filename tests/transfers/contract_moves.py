"""What hosts promise that can give files other names, tell which file is which, or have all of them on disk: parts of
the contract of hosts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from transfers.errors import Conflict, HostDown, Refused, SourceMissing, TransferError
from transfers.hosts import Host, Identity, Residency, only


@contextmanager
def another_file_system(folder: Path) -> Iterator[None]:
    """A file system of its own on the folder. Skips where none can be mounted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class MoveContract:
    """Of every host that gives files other names."""

    make: Callable[..., Host]  # of the contract that this is a part of

    def test_move_gives_a_file_another_path_and_makes_its_folders(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/a").write_bytes(b"data")
        before = (root / "d/a").stat()
        assert list(host.move([("d/a", "new/deep/b")])) == ["new/deep/b"]
        assert not (root / "d/a").exists()
        after = (root / "new/deep/b").stat()
        assert (root / "new/deep/b").read_bytes() == b"data"
        assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (before.st_ino, before.st_mtime_ns, 1)

    def test_file_goes_into_quarantine_and_comes_back(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"data")
        aside = ".stager/quarantine/evicted-5/a"
        assert list(host.move([("a", aside)])) == [aside]
        assert [found.path for found in host.scan("")] == []
        assert list(host.move([(aside, "a")])) == ["a"]
        assert (root / "a").read_bytes() == b"data"

    def test_move_never_replaces(self, host: Host, root: Path) -> None:
        (root / "itself").write_bytes(b"data")
        (root / "file").write_bytes(b"other")
        (root / "same").write_bytes(b"data")
        (root / "folder").mkdir()
        os.mkfifo(root / "fifo")
        (root / "link").symlink_to("none")
        os.link(root / "itself", root / "hard link")
        things = ["itself", "file", "same", "folder", "fifo", "link", "hard link"]
        before = {thing: (root / thing).lstat() for thing in things}
        for thing, error in zip(things, host.move(("itself", thing) for thing in things), strict=True):
            assert isinstance(error, Conflict), thing
            assert (error.path, error.facts["from"], error.facts["to"]) == (thing, "itself", thing)
        assert {path.name: path.lstat() for path in root.iterdir() if path.name != ".stager"} == before

    def test_move_is_for_files_alone(self, host: Host, root: Path) -> None:
        (root / "folder").mkdir()
        os.mkfifo(root / "fifo")
        (root / "file").write_bytes(b"data")
        (root / "link").symlink_to("file")
        things = ["folder", "fifo", "link"]
        found = list(host.move((thing, f"new/{thing}") for thing in things))
        assert [type(one) for one in found] == [Refused] * 3
        assert ["a folder" in str(found[0]), "a FIFO" in str(found[1]), "a symbolic link" in str(found[2])] == [
            True
        ] * 3
        assert sorted(path.name for path in root.iterdir()) == sorted([".stager", "file", *things])

    def test_each_of_many_moves_has_its_result(self, host: Host, root: Path) -> None:
        (root / "in").mkdir()
        for number in range(250):
            (root / f"in/{number}").write_text(str(number))
        (root / "in/7").unlink()
        (root / "out/1").mkdir(parents=True)
        (root / "out/1/1").write_text("taken")
        found = list(host.move((f"in/{number}", f"out/{number % 3}/{number}") for number in range(250)))
        assert [type(one) for one in found].count(str) == 248
        assert [one for one in found if isinstance(one, str)] == [
            f"out/{number % 3}/{number}" for number in range(250) if number not in (1, 7)
        ]
        assert isinstance(found[1], Conflict)
        missing = found[7]
        assert isinstance(missing, SourceMissing)
        assert (missing.path, missing.facts["from"], missing.facts["to"]) == ("in/7", "in/7", "out/1/7")
        assert sorted(path.name for path in (root / "in").iterdir()) == ["1"]
        assert (root / "out/1/1").read_text() == "taken"

    def test_nothing_is_moved_into_or_out_of_the_root(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"data")
        for path in ("../x", "/etc/x", "a/../../x", "a//b", "", "a/", "a\0b", "n" * 256):
            into, out = host.move([(path, "new"), ("a", path)])
            assert isinstance(into, Refused), path
            assert isinstance(out, Refused), path
        assert sorted(name.name for name in root.iterdir()) == [".stager", "a"]
        assert [one.name for one in root.parent.iterdir()] == ["root"]

    def test_move_follows_no_link_out_of_the_root(self, host: Host, root: Path, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/secret").write_text("secret")
        (root / "a").write_bytes(b"data")
        (root / "in").symlink_to(tmp_path / "outside")
        into, out = host.move([("in/secret", "secret"), ("a", "in/a")])
        assert isinstance(into, Refused)
        assert isinstance(out, Refused)
        assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret"]
        assert (root / "a").exists()

    def test_marker_stays_where_it_is(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"data")
        before = (root / ".stager/marker").read_text()
        found = list(host.move([(".stager/marker", "x"), ("a", ".stager/marker")]))
        assert [type(one) for one in found] == [Refused] * 2
        assert (root / ".stager/marker").read_text() == before
        (root / ".stager/marker").unlink()
        with pytest.raises(HostDown):
            list(host.move([("a", "b")]))
        assert (root / "a").exists()

    def test_file_in_the_way_of_a_folder_is_a_conflict(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"data")
        (root / "file").write_bytes(b"file")
        assert isinstance(only(host.move([("a", "file/b")])), Conflict)
        assert (root / "a").read_bytes() == b"data"

    def test_move_to_another_file_system_is_refused_with_a_sentence(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"data")
        with another_file_system(root / "mounted"):
            (error,) = host.move([("a", "mounted/a")])
            assert isinstance(error, Refused)
            assert "on another file system" in error.text
            assert list((root / "mounted").iterdir()) == []
        assert (root / "a").read_bytes() == b"data"


class IdentityContract:
    """Of every host that tells which file is which."""

    make: Callable[..., Host]  # of the contract that this is a part of

    def test_two_names_of_one_file_are_one_identity(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        for name in ("a", "d/b"):
            (root / name).write_bytes(b"data")
        os.link(root / "a", root / "d/linked")
        a, b, linked, none, below, folder = host.identify(["a", "d/b", "d/linked", "none", "a/x", "d"])
        assert isinstance(a, Identity)
        assert isinstance(b, Identity)
        assert a == linked
        assert a.inode == (root / "a").stat().st_ino
        assert (a.system == b.system, a.inode == b.inode) == (True, False)
        assert none is None
        assert below is None
        assert isinstance(folder, Identity)

    def test_two_roots_on_one_file_system_are_told(self, host: Host, root: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        other = self.make(tmp_path / "other")
        other.open(None)
        (here,), (there,) = host.identify([""]), other.identify([""])
        assert isinstance(here, Identity)
        assert isinstance(there, Identity)
        assert here.system == there.system
        assert here.inode != there.inode
        assert here.system.endswith(f":{root.stat().st_dev}")

    def test_another_file_system_is_another_one(self, host: Host, root: Path) -> None:
        with another_file_system(root / "mounted"):
            (root / "mounted/a").write_bytes(b"data")
            here, there = host.identify(["", "mounted/a"])
            assert isinstance(here, Identity)
            assert isinstance(there, Identity)
            assert here.system != there.system

    def test_what_lies_outside_has_no_identity(self, host: Host, root: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (root / "link").symlink_to(tmp_path / "secret")
        (root / "in").symlink_to(tmp_path)
        for path in ("../secret", "/etc/passwd", "link", "in/secret", "a//b"):
            assert isinstance(only(host.identify([path])), Refused)


class OnDiskContract:
    """Of every host whose files are there whenever they are asked for."""

    def test_files_are_online_and_lie_in_themselves(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"data")
        assert (host.stages, host.seeks, host.own_digest) == (False, True, None)
        assert list(host.residency(["a", "a"])) == [Residency("online")] * 2
        assert list(host.stage(["a"])) == [None]
        assert list(host.lies_in(["a", "d/b"])) == ["a", "d/b"]
        assert not [one for one in host.residency([]) if isinstance(one, TransferError)]
