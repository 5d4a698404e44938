"""Landing under a kernel that kills, fails and lies: nothing partial, nothing lost, nothing left behind.

The faults are injected by strace into a process of its own that lands six files and a unit; each test counts
the faults that fired.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.transfers.contract import files_in, frames_of, sha256
from transfers.agent import Agent, Fault, Frame, Receipt

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable).resolve()  # a shim would shift the counts
EPOCH_SCRIPT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from transfers.agent import Agent, Fault, FileInfo, Want
source, target = Agent(sys.argv[2]), Agent(sys.argv[3])
wants = [Want(n, int(sys.argv[4]), f.path, "deep/er/" + f.path, replace=f.path == "f5")
         for n, f in enumerate(f for f in source.scan("") if isinstance(f, FileInfo))]
wants = [w._replace(item=100) if w.source.startswith("unit") else w for w in wants]
target.open(None)
results = [[r.kind, r.facts["destination"], r.text, r.facts] if isinstance(r, Fault) else ["done", r.path, r.digest]
           for r in target.land(source.read(wants))]
out = os.open(sys.argv[5], os.O_CREAT | os.O_WRONLY)
os.pwrite(out, json.dumps(results).encode(), 0)
"""


@pytest.fixture
def strace(program: Callable[[str], str], require: Callable[[str], NoReturn]) -> str:
    path = program("strace")
    probe = [path, "-f", "-qqq", "-o", os.devnull, "-e", "trace=fsync", "true"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        require("strace may not trace here")
    return path


class Bench:
    """A source with six files and a unit of two, a destination with one old file to be replaced."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.target = folder / "target"
        self.answer = folder / "answer"
        self.source.mkdir()
        (self.target / "deep/er").mkdir(parents=True)
        for number in range(6):
            (self.source / f"f{number}").write_bytes(os.urandom(5000 * number))
        for number in range(2):
            (self.source / f"unit{number}").write_bytes(os.urandom(100_000))
        (self.target / "deep/er/f5").write_bytes(b"old")
        Agent(str(self.target)).open(None)
        self.expected = {f"deep/er/{name}": data for name, data in files_in(self.source).items()}

    def run(self, epoch: int, strace: list[str]) -> list[list[object]]:
        """One landing; its results, none when it was killed."""
        self.answer.unlink(missing_ok=True)
        script = [str(PYTHON), "-c", EPOCH_SCRIPT, str(PROJECT), str(self.source), str(self.target)]
        done = subprocess.run(
            [*strace, *script, str(epoch), str(self.answer)], check=False, capture_output=True, text=True
        )
        if done.returncode < 0 or done.returncode > 128:
            return []
        assert done.returncode == 0, done.stderr
        results: list[list[object]] = json.loads(self.answer.read_text())
        return results

    def check_nothing_partial(self) -> None:
        """Every final name is a whole file, the old one is somewhere, the sources are as they were."""
        there = files_in(self.target)
        final = {path: data for path, data in there.items() if not path.endswith(".part")}
        old = [path for path in self.target.rglob("f5") if path.read_bytes() == b"old"]
        assert len(old) == 1
        if final.get("deep/er/f5") == b"old":
            del final["deep/er/f5"]
        assert final.items() <= self.expected.items()
        sources = files_in(self.source)
        assert {f"deep/er/{name}": data for name, data in sources.items()} == self.expected

    def check_converges(self, epoch: int) -> None:
        """Landing once more without faults and a sweep end in the same state as if nothing had been."""
        results = self.run(epoch, [])
        assert [result[0] for result in results] == ["done"] * 8
        Agent(str(self.target)).sweep("", lambda item, at: at < epoch)
        assert files_in(self.target) == self.expected
        assert {(path, digest) for _, path, digest in results} == {
            (path, sha256(data)) for path, data in self.expected.items()
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "renameat2,rename,renameat", "write", "mkdirat,mkdir"])
def test_killed_at_every_call_it_converges(tmp_path: Path, strace: str, call: str) -> None:
    fired = 0
    for turn in range(1, 40):
        folder = tmp_path / str(turn)
        folder.mkdir()
        bench = Bench(folder)
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={turn}"]
        results = bench.run(1, [strace, "-f", "-qqq", "-o", os.devnull, *inject])
        bench.check_nothing_partial()
        bench.check_converges(2)
        if results:
            break
        fired += 1
    else:
        pytest.fail("no run got through")
    assert fired


def injected(strace: str, log: Path, call: str, what: str) -> list[str]:
    """strace that injects and writes down what it did."""
    return [strace, "-f", "-qqq", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={call}:{what}"]


def left_parts(bench: Bench) -> list[str]:
    return [path for path in files_in(bench.target) if path.endswith(".part")]


@pytest.mark.parametrize(
    ("call", "what", "kind"),
    [
        ("fsync", "error=EIO:when=1", "transient"),
        ("fsync", "error=ENOSPC:when=1", "no space"),
        ("fsync", "error=EDQUOT:when=1", "no space"),
        ("fsync", "error=EIO:when=2+", "transient"),
        ("write", "error=ENOSPC:when=2", "no space"),
        ("write", "error=EIO:when=1", "transient"),
        ("write", "retval=100:when=1", "corrupted on the way"),
        ("fsync", "error=EIO:when=3", "transient"),
        ("fsync", "error=EIO:when=4", "transient"),
        ("renameat2", "error=EIO:when=2", "transient"),
        ("renameat2", "error=EACCES:when=1", "refused"),
        ("openat2", "error=EMFILE:when=4", "congested"),
        ("utimensat", "error=EIO:when=1", "transient"),
    ],
)
def test_error_of_the_kernel_is_said_and_leaves_nothing(
    bench: Bench, tmp_path: Path, strace: str, call: str, what: str, kind: str
) -> None:
    log = tmp_path / "log"
    results = bench.run(1, injected(strace, log, call, what))
    assert "INJECTED" in log.read_text()
    kinds = {str(result[0]) for result in results}
    assert kind in kinds
    assert kinds <= {kind, "done"}
    bench.check_nothing_partial()
    if call != "renameat2":
        assert left_parts(bench) == []
    done = {path: digest for name, path, digest, *_ in results if name == "done"}
    there = files_in(bench.target)
    assert all(sha256(there[str(path)]) == digest for path, digest in done.items())
    bench.check_converges(2)


def test_without_renameat2_it_links_and_unlinks(bench: Bench, tmp_path: Path, strace: str) -> None:
    log = tmp_path / "log"
    results = bench.run(1, injected(strace, log, "renameat2", "error=ENOSYS"))
    assert "INJECTED" in log.read_text()
    assert {result[0] for result in results} == {"done"}
    assert files_in(bench.target) == bench.expected


def test_without_renameat2_and_links_it_is_unsupported(bench: Bench, tmp_path: Path, strace: str) -> None:
    log = tmp_path / "log"
    tracing = injected(strace, log, "renameat2", "error=EINVAL")
    tracing[tracing.index("trace=renameat2")] = "trace=renameat2,linkat"
    results = bench.run(1, [*tracing, "-e", "inject=linkat:error=EPERM"])
    assert log.read_text().count("INJECTED") >= 2
    assert {result[0] for result in results} == {"unsupported"}
    assert left_parts(bench) == []
    bench.check_nothing_partial()


def test_folder_that_may_not_be_written_to_is_refused(bench: Bench, tmp_path: Path, strace: str) -> None:
    log = tmp_path / "log"
    results = bench.run(1, injected(strace, log, "renameat2,linkat", "error=EPERM"))
    assert log.read_text().count("INJECTED") >= 2
    assert {result[0] for result in results} == {"refused"}
    assert left_parts(bench) == []


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """Use up all of this process's descriptors but for a few."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, old[1]))
    held = []
    try:
        while True:
            try:
                held.append(os.dup(0))
            except OSError:
                break
        for _ in range(free):
            os.close(held.pop())
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


def test_root_that_cannot_be_opened_for_want_of_descriptors_is_congested(tmp_path: Path) -> None:
    agent = Agent(str(tmp_path))
    agent.open(None)
    results: list[Receipt | Fault] = []
    for free in (0, 1, 2, 4, 10):
        with few_descriptors(free):
            try:
                results += list(agent.land(frames_of("d/f", b"x")))
            except Fault as fault:
                results.append(fault)
    assert {result.kind for result in results if isinstance(result, Fault)} == {"congested"}
    assert isinstance(results[-1], Receipt)


def test_without_openat2_it_walks(bench: Bench, tmp_path: Path, strace: str) -> None:
    log = tmp_path / "log"
    results = bench.run(1, injected(strace, log, "openat2", "error=ENOSYS"))
    assert "INJECTED" in log.read_text()
    assert {result[0] for result in results} == {"done"}
    assert files_in(bench.target) == bench.expected


def damaging(frames: list[Frame], root: Path, damage: str) -> Iterator[Frame]:
    """The frames; before the end of each file its part is damaged behind the landing's back."""
    for frame in frames:
        if frame[0] == "end":
            (part,) = root.rglob(".*.part")
            if damage == "flip":
                with part.open("r+b") as file:
                    file.seek(-1000, os.SEEK_END)  # what is read back already may rot later: a scrub's work
                    byte = file.read(1)
                    file.seek(-1000, os.SEEK_END)
                    file.write(bytes([byte[0] ^ 1]))
            elif damage == "cut":
                os.truncate(part, 1000)
            elif damage == "grow":
                with part.open("ab") as file:
                    file.write(b"more")
            else:
                part.unlink()
                part.write_bytes(b"an impostor")
        yield frame


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("flip", "corrupted on the way"),
        ("cut", "corrupted on the way"),
        ("grow", "corrupted on the way"),
        ("swap", "conflict"),
    ],
)
@pytest.mark.parametrize("size", [5000, (64 << 20) + 5000])
def test_part_damaged_before_it_is_read_back_is_never_renamed(
    tmp_path: Path, damage: str, kind: str, size: int
) -> None:
    agent = Agent(str(tmp_path))
    agent.open(None)
    frames = frames_of("d/f", bytes(size))
    (fault,) = agent.land(damaging(frames, tmp_path, damage))
    assert isinstance(fault, Fault)
    assert fault.kind == kind
    assert "d/f" not in files_in(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
@pytest.mark.parametrize("limit", ["size=2m", "nr_inodes=6"])
def test_full_disk_is_no_space_and_goes_on_when_there_is_room(
    tmp_path: Path, limit: str, require: Callable[[str], NoReturn]
) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", limit, "tmpfs", str(root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        require("a tmpfs cannot be mounted here")
    try:
        agent = Agent(str(root))
        marker = agent.open(None)
        assert marker
        frames = [frame for n in range(6) for frame in frames_of(f"d/{n}", bytes(700_000), n)]
        kinds = [result.kind if isinstance(result, Fault) else "done" for result in agent.land(frames)]
        assert set(kinds) == {"done", "no space"}
        assert not list(root.rglob(".*.part"))
        (text,) = {fault.text for fault in agent.land(frames) if isinstance(fault, Fault)}
        assert text.startswith("No space left" if limit == "size=2m" else "the file system has no inodes left")
        unit = [("unit", 6), *[frame for n in range(6) for frame in frames_of(f"u/{n}", bytes(700_000), 9)]]
        assert {result.kind for result in agent.land(unit) if isinstance(result, Fault)} == {"no space"}
        assert not list(root.rglob("u/*"))
        subprocess.run(["mount", "-o", "remount,size=20m,nr_inodes=100", str(root)], check=True)
        assert all(isinstance(result, Receipt) for result in agent.land(frames))
    finally:
        subprocess.run(["umount", str(root)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_mount_point_below_the_root_is_landed_on(tmp_path: Path, require: Callable[[str], NoReturn]) -> None:
    root = tmp_path / "root"
    (root / "mounted").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(root / "mounted")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        require("a tmpfs cannot be mounted here")
    try:
        agent = Agent(str(root))
        agent.open(None)
        (landed,) = agent.land(frames_of("mounted/d/f", b"data"))
        assert isinstance(landed, Receipt)
        frames = frames_of("mounted/d/f", b"other")
        frames[0][1]["replace"] = True
        (fault,) = agent.land(frames)
        assert isinstance(fault, Fault)
        assert (fault.kind, "set aside" in fault.text) == ("unsupported", True)
        assert (root / "mounted/d/f").read_bytes() == b"data"
        (full,) = agent.land(frames_of("mounted/new/f", bytes(3 << 20)))
        assert isinstance(full, Fault)
        assert (full.kind, full.facts["mounted"]) == ("no space", True), "the root is told to be full"
    finally:
        subprocess.run(["umount", str(root / "mounted")], check=True)
