"""The agent's own pieces: its syntax, trees, markers, cutting and sums."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from astropy.io import fits

from tests.transfers.contract import files_in, frames_of, names
from transfers import agent as module
from transfers.agent import (
    Agent,
    Cut,
    Datasum,
    Fault,
    FileInfo,
    Frame,
    Member,
    Piece,
    Receipt,
    Tree,
    Want,
    piece_from,
    rename_new_by_link,
)

SOURCE = Path(module.__file__)
NEEDED = {
    "abc",
    *("collections", "concurrent", "ctypes", "errno", "functools", "hashlib", "io", "itertools", "json", "numpy"),
    *(
        "os",
        "queue",
        "re",
        "resource",
        "select",
        "stat",
        "struct",
        "sys",
        "threading",
        "time",
        "typing",
        "uuid",
        "zlib",
    ),
}
NEWER_THAN_36 = ("removeprefix", "fromisoformat", "capture_output", "cached_property", "math.prod", "time_ns(")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def agent(root: Path) -> Agent:
    agent = Agent(str(root))
    agent.open(None)
    return agent


def test_python_36_reads_it_and_the_standard_library_is_enough() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    imports = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imports |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imports == NEEDED
    assert not [word for word in NEWER_THAN_36 if word in SOURCE.read_text()]


def test_import_without_numpy_is_quick_and_enough() -> None:
    assert "numpy" not in [
        node.names[0].name for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.Import)
    ]


# Trees.


def test_walking_without_openat2_follows_no_link(root: Path, tmp_path: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").write_text("x")
    (root / "link").symlink_to("a")
    (root / "out").symlink_to(tmp_path)
    for at_once in (True, False):
        with Tree(str(root), at_once=at_once) as tree:
            fd, state = tree.open_file("a/b/f")
            os.close(fd)
            assert state.st_size == 1
            for path in ("link/b", "out"):
                with pytest.raises(OSError, match="symbolic links"):
                    tree.folder(path)
            with pytest.raises(NotADirectoryError):
                tree.folder("a/b/f")
        with Tree(str(root), links=True, at_once=at_once) as tree:
            os.close(tree.open_file("link/b/f")[0])
            with pytest.raises(Fault, match="leads out"):
                tree.folder("out")


def test_no_descriptor_is_kept(agent: Agent, root: Path) -> None:
    (root / "f").write_bytes(bytes(3 << 20))
    before = set(names(Path("/proc/self/fd")))
    for _ in range(3):
        list(agent.scan(""))
        list(agent.land(agent.read([Want(1, 1, "f", "d/f")])))
        list(agent.digest(["f", "none", "d"]))
        list(agent.headers(["f", "none", "d"]))
        list(agent.land(frames_of("f", b"conflict")))
        list(agent.land(frames_of("cut", b"data")[:2]))
        next(agent.read([Want(1, 1, "f", "d/f")]))
        members = [Member("f", 5, 100, "m"), Member("f", 0, 1 << 40, "beyond.gz"), Member("none", 0, 1, "none")]
        list(agent.digest(members))
        list(agent.headers(members))
        list(agent.read([Want(1, 1, "f", "m", digest="sha256:00", stretch=(5, 1 << 40))]))
        list(agent.move([("d/f", "e/f"), ("e/f", "d/f"), ("none", "x"), ("f", "d/f"), ("d", "x"), ("f", "../x")]))
        list(agent.identify(["f", "", "none", "../x"]))
    assert set(names(Path("/proc/self/fd"))) == before


def test_folders_made_by_many_at_once(root: Path) -> None:
    Agent(str(root)).open(None)
    results: list[Receipt | Fault] = []

    def land(item: int) -> None:
        results.extend(Agent(str(root)).land(frames_of(f"a/b/c/d/{item}", b"x", item)))

    threads = [threading.Thread(target=land, args=(item,)) for item in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(result, Receipt) for result in results)
    assert len(names(root / "a/b/c/d")) == 16


def test_one_name_landed_by_many_at_once_is_there_once(root: Path) -> None:
    Agent(str(root)).open(None)
    results: list[Receipt | Fault] = []

    def land(item: int) -> None:
        results.extend(Agent(str(root)).land(frames_of("f", b"%d" % (item % 2), item)))

    threads = [threading.Thread(target=land, args=(item,)) for item in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    landed = [result for result in results if isinstance(result, Receipt)]
    faults = [result for result in results if isinstance(result, Fault)]
    assert len(landed) == len(faults) == 8
    assert sum(not receipt.adopted for receipt in landed) == 1
    assert {fault.kind for fault in faults} == {"conflict"}
    assert list(files_in(root)) == ["f"]


def test_modes_are_those_asked_for(root: Path) -> None:
    agent = Agent(str(root), file_mode=0o640, folder_mode=0o2750)
    agent.open(None)
    assert all(isinstance(result, Receipt) for result in agent.land(frames_of("a/b/f", b"x")))
    assert (root / "a/b/f").stat().st_mode & 0o7777 == 0o640
    assert (root / "a").stat().st_mode & 0o7777 == (root / "a/b").stat().st_mode & 0o7777 == 0o2750


def test_umask_holds_where_no_mode_is_asked_for(root: Path) -> None:
    old = os.umask(0o027)
    try:
        agent = Agent(str(root))
        agent.open(None)
        list(agent.land(frames_of("a/f", b"x")))
    finally:
        os.umask(old)
    assert (root / "a/f").stat().st_mode & 0o777 == 0o640
    assert (root / "a").stat().st_mode & 0o777 == 0o750


def test_part_names_fit_and_tell_whose_they_are() -> None:
    for name in ("f.fits", "n" * 255, "ü" * 127, os.fsdecode(b"\xff" * 255)):
        made = module.part_name(name, 2**63, 2**31, 99, "0123abcd")
        assert len(made) <= 255
        match = module.PART_NAME.fullmatch(os.fsdecode(made))
        assert match is not None
        assert match.groups() == (str(2**63), str(2**31), "0123abcd")


def test_part_that_is_there_already_is_not_touched(agent: Agent, root: Path) -> None:
    other = root / ".f.1-1.00000000.part"
    other.write_bytes(b"of another attempt")
    assert isinstance(next(agent.land(frames_of("f", b"x"))), Receipt)
    assert files_in(root) == {"f": b"x", other.name: b"of another attempt"}


def test_folder_removed_while_landing_is_made_again(agent: Agent, root: Path) -> None:
    def frames() -> Iterator[Frame]:
        yield from frames_of("d/one", b"x", 1)
        (root / "d").rename(root / "e")
        (root / "e/.one.1-1.00000000.part").rename(root / "part")
        (root / "e").rmdir()
        yield from frames_of("d/two", b"x", 2)

    one, two = agent.land(frames())
    assert isinstance(one, Fault)
    assert isinstance(two, Receipt)


def test_folder_moved_while_landing_is_no_receipt(agent: Agent, root: Path) -> None:
    def frames() -> Iterator[Frame]:
        yield from frames_of("d/one", b"x", 1)
        (root / "d").rename(root / "e")

    (fault,) = agent.land(frames())
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.phase) == ("transient", "sync")


# Markers.


def test_root_that_cannot_be_written_to_is_a_source_all_the_same(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere; test_markers_of_read_only_mounts is for root")
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_bytes(b"data")
    root.chmod(0o500)
    try:
        check_read_only(root, "refused")
    finally:
        root.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_markers_of_read_only_mounts(tmp_path: Path, require: Callable[[str], NoReturn]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        require("a tmpfs cannot be mounted here")
    try:
        (root / "f").write_bytes(b"data")
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        marker = check_read_only(root, "read-only")
    finally:
        subprocess.run(["umount", str(root)], check=True)
    with pytest.raises(Fault, match="not mounted"):
        Agent(str(root)).open(marker)


def check_read_only(root: Path, kind: str) -> str:
    agent = Agent(str(root))
    marker = agent.open(None)
    assert Agent(str(root)).open(marker) == marker
    assert [found.path for found in agent.scan("") if isinstance(found, FileInfo)] == ["f"]
    assert [name for name, _ in agent.read([Want(1, 1, "f", "x")])] == ["file", "data", "end"]
    (fault,) = agent.land(frames_of("g", b"x"))
    assert isinstance(fault, Fault)
    assert fault.kind == kind
    return marker


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_one_folder_that_is_read_only_is_no_trouble_of_the_whole_root(
    root: Path, require: Callable[[str], NoReturn]
) -> None:
    (root / "below").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(root / "below")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        require("a tmpfs cannot be mounted here")
    try:
        agent = Agent(str(root))
        agent.open(None)
        below, beside = agent.land([*frames_of("below/g", b"x"), *frames_of("g", b"x")])
    finally:
        subprocess.run(["umount", str(root / "below")], check=True)
    assert isinstance(below, Fault)
    assert below.kind == "refused"
    assert isinstance(beside, Receipt)
    assert not list(root.rglob(".*.part"))


def test_first_use_by_many_at_once_makes_one_marker(root: Path) -> None:
    markers: list[str] = []
    threads = [threading.Thread(target=lambda: markers.append(Agent(str(root)).open(None))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(markers) == 12
    assert len(set(markers)) == 1
    assert names(root / ".stager") == ["marker"]


# Cutting and sums.

WORDS = [b"", bytes(4000), b"\xff" * 4000, b"\0\0\0\1" + b"\xff" * 4, os.urandom(40_000), os.urandom(4), b"\xff" * 8]


@pytest.mark.parametrize("data", WORDS, ids=range(len(WORDS)))
def test_sums_are_the_same_with_and_without_numpy(data: bytes) -> None:
    words = [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]
    expected = 0
    for word in words:  # the definition: end-around carry
        expected += word
        expected = (expected & 0xFFFFFFFF) + (expected >> 32)
    for add in (module.add_words_stdlib, module.add_words_numpy):
        total = Datasum()
        total.add = add
        view = memoryview(data)
        for at in range(0, len(data), 1001):
            total.update(view[at : at + 1001])
        assert total.value() == expected


@pytest.mark.parametrize("shape", [(1, 2, 5), (7, 7, 3), (3, 100, 40), (2112, 4224, 600), (5, 5, 1)])
def test_packing_is_the_same_with_and_without_numpy(shape: tuple[int, int, int]) -> None:
    row, stride, rows = shape
    data = os.urandom(stride * rows)
    expected = b"".join(data[at : at + row] for at in range(0, len(data), stride))
    for pack in (module.pack_stdlib, module.pack_numpy):
        out = bytearray(row * rows)
        pack(memoryview(data), row, stride, rows, memoryview(out))
        assert out == expected


@pytest.mark.parametrize("hold", [module.HOLD, 100])
@pytest.mark.parametrize(
    "cuts",
    [
        (Cut(5, 3, 7, 1000),),
        (Cut(0, 2112, 4224, 400), Cut(2112, 2112, 4224, 400)),
        (Cut(0, 1, 9, 50), Cut(17, 3_000_000, 3_000_000, 1)),
        (Cut(3, 100_000, 2_000_000, 2), Cut(0, 8, 100, 500)),
        (),
    ],
)
def test_pieces_hold_what_they_should_and_sum_up(
    agent: Agent, root: Path, cuts: tuple[Cut, ...], hold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD", hold)
    data = os.urandom(4_000_000)
    (root / "f").write_bytes(data)
    body = b"".join(data[cut.offset + n * cut.stride :][: cut.row] for cut in cuts for n in range(cut.rows))
    cards = [
        "SIMPLE  =                    T / conforms",
        "BITPIX  =                    8",
        "NAXIS   =                    1",
        f"NAXIS1  = {len(body):20}",
        "DATASUM = '0       '           / data unit checksum",
        "CHECKSUM= '0000000000000000'   / HDU checksum",
        "END",
    ]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    piece = Piece(header, cuts, -len(body) % 2880)
    (receipt,) = agent.land(agent.read([Want(1, 1, "f", "p.fits", piece=piece)]))
    assert isinstance(receipt, Receipt)
    made = (root / "p.fits").read_bytes()
    assert made[2880:] == body + bytes(piece.pad)
    assert receipt.digest == "sha256:" + hashlib.sha256(made).hexdigest()
    with fits.open(root / "p.fits", checksum=True) as hdus:
        assert hdus[0].verify_datasum() == hdus[0].verify_checksum() == 1
        assert hdus[0].header.comments["DATASUM"] == "data unit checksum"
        assert hdus[0].header.comments["CHECKSUM"] == "HDU checksum"


def test_checksums_agree_with_their_known_values() -> None:
    assert module.encoded_checksum(868229149) == b"hcHjjc9ghcEghc9g"  # FITS 4.0, appendix J.4


def test_small_digests_are_written_as_tools_write_them(agent: Agent, root: Path) -> None:
    (root / "f").write_bytes(b"data")
    for algorithm in ("adler32", "crc32", "md5", "sha1", "sha512", "sha256"):
        ((path, size, digest),) = agent.digest(["f"], algorithm)  # type: ignore[misc] # no Fault here
        expected = (
            f"{getattr(zlib, algorithm)(b'data'):08x}"
            if "32" in algorithm
            else hashlib.new(algorithm, b"data", usedforsecurity=False).hexdigest()
        )
        assert (path, size, digest) == ("f", 4, f"{algorithm}:{expected}")
    (fault,) = agent.digest(["f"], "rot13")
    assert isinstance(fault, Fault)
    assert fault.kind == "unsupported"


def test_texts_of_paths_do_not_depend_on_the_locale(root: Path) -> None:
    name = os.fsdecode("ü\udce9.fits".encode("utf-8", "surrogateescape"))
    (root / name).write_bytes(b"x")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from transfers.agent import Agent, Want;"
        "a = Agent(sys.argv[2]); a.open(None);"
        "print(*[ascii(f.path) for f in a.scan('')]);"
        "print(*[ascii(r) for r in a.digest([f.path for f in a.scan('')])])"
    )
    answers = set()
    for variables in ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}):
        argv = [sys.executable, "-c", script, str(SOURCE.parents[1]), str(root)]
        answers.add(subprocess.check_output(argv, env={**os.environ, **variables}, text=True))
    assert len(answers) == 1
    assert ascii(name) in answers.pop()


def test_cuts_of_a_piece_are_told_from_its_file() -> None:
    piece = Piece(b"", (Cut(5, 1, 2, 3), Cut(0, 1, 1, 1)), 7)
    assert piece_from(piece, 100) == Piece(b"", (Cut(105, 1, 2, 3), Cut(100, 1, 1, 1)), 7)


# Moving.


def test_move_into_folders_deeper_than_are_kept_open(agent: Agent, root: Path) -> None:
    """The folder that the file comes from may have been closed by then."""
    (root / "d").mkdir()
    (root / "d/a").write_bytes(b"data")
    deep = "/".join("x" * 100)
    assert list(agent.move([("d/a", f"{deep}/a"), (f"{deep}/a", "d/a")])) == [f"{deep}/a", "d/a"]
    assert (root / "d/a").read_bytes() == b"data"


def test_one_file_moved_by_many_at_once_is_moved_once(root: Path) -> None:
    Agent(str(root)).open(None)
    (root / "a").write_bytes(b"data")
    found: list[str | Fault] = []
    moving = [
        threading.Thread(target=lambda n=n: found.extend(Agent(str(root)).move([("a", f"to/{n}")]))) for n in range(16)
    ]
    for thread in moving:
        thread.start()
    for thread in moving:
        thread.join()
    moved = [one for one in found if isinstance(one, str)]
    assert len(found) == 16
    assert files_in(root) == {moved[0]: b"data"}
    assert len(moved) == 1
    assert {one.kind for one in found if isinstance(one, Fault)} <= {"source missing", "transient"}


def test_many_moved_to_one_name_are_one_there_and_the_others_where_they_were(root: Path) -> None:
    Agent(str(root)).open(None)
    for number in range(16):
        (root / str(number)).write_text(str(number))
    found: list[str | Fault] = []
    moving = [
        threading.Thread(target=lambda n=n: found.extend(Agent(str(root)).move([(str(n), "to/one")])))
        for n in range(16)
    ]
    for thread in moving:
        thread.start()
    for thread in moving:
        thread.join()
    assert found.count("to/one") == 1
    assert [one.kind for one in found if isinstance(one, Fault)] == ["conflict"] * 15
    assert sorted(files_in(root).values()) == sorted(str(number).encode() for number in range(16))


def test_rename_by_link_that_cannot_take_the_old_name_away_gives_no_new_one(
    root: Path, require: Callable[[str], NoReturn]
) -> None:
    (root / "kept").mkdir()
    (root / "kept/a").write_bytes(b"data")
    if os.geteuid() != 0 or subprocess.run(["chattr", "+a", str(root / "kept")], check=False).returncode:
        require("no folder can be made one that nothing is taken from")
    try:
        with Tree(str(root)) as tree, pytest.raises(PermissionError):
            rename_new_by_link(tree.folder("kept"), b"a", tree.fd, b"b")
        assert files_in(root) == {"kept/a": b"data"}
        (fault,) = Agent(str(root)).move([("kept/a", "b")])
        assert isinstance(fault, Fault)
        assert fault.kind == "refused"
        assert files_in(root) == {"kept/a": b"data"}
    finally:
        subprocess.run(["chattr", "-a", str(root / "kept")], check=True)
