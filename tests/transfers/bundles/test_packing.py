"""What is packed is a plain tar of proven files, the same whenever it is made, or nothing at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transfers.bundles import crafted
from tests.transfers.contract import ODD_NAMES, files_in, sha256
from transfers.bundles.frames import Packing
from transfers.bundles.headers import END, header_of, padding
from transfers.bundles.index import Entry, Index, Layout, layout_of, parse_beside
from transfers.bundles.reading import read_index, verify, walk
from transfers.errors import HostDown, SourceChanged, SourceCorrupt, SourceMissing, TransferError, Transient
from transfers.hosts import Fault, Frame, Host, Receipt, Want, only

GIB = 1 << 30
FILES = {
    **{name: os.fsencode(name) for name in ODD_NAMES},
    "empty": b"",
    "a block": b"b" * 512,
    "more than a block": b"b" * 513,
    "large": bytes(range(256)) * 12289,  # 3 MiB and 256 bytes
    "/".join(["m" * 255] * 3 + ["k" * 250]): b"a path of 1018 bytes",
    "p" * 90 + "/" + "q" * 90: b"a path for the prefix of ustar",
    "-C/deep/--er": b"what looks like options",
}
TARS = [name for name in ("tar", "bsdtar") if shutil.which(name)]


@pytest.fixture
def source(tmp_path: Path) -> Host:
    host = crafted.local(tmp_path / "source")
    crafted.write(tmp_path / "source", FILES)
    return host


@pytest.fixture
def store(tmp_path: Path) -> Host:
    return crafted.store(tmp_path / "mss")


def _landed(source: Host, store: Host, wants: list[Want], layout: Layout) -> TransferError:
    """What became of a bundle that cannot be made."""
    packing = Packing(layout, Want(1, 7, "", "D1/x.stager.tar"), source.name)
    error = only(store.land(packing.frames(source.read(wants))))
    assert isinstance(error, TransferError)
    assert (error.facts["item"], error.facts["epoch"]) == (1, 7)
    assert packing.index is None
    return error


# What other tars make of it.


@pytest.mark.parametrize("program", TARS)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_any_tar_lists_and_unpacks_it(source: Host, store: Host, tmp_path: Path, program: str, locale: str) -> None:
    if (program, locale) == ("bsdtar", "C"):
        pytest.skip("bsdtar has names that are not ASCII in a UTF-8 locale alone")
    path, index = crafted.packed(source, store)
    bundle = tmp_path / "mss" / path
    (tmp_path / "out").mkdir()
    environment = {**os.environ, "LC_ALL": locale}
    listed = subprocess.run([program, "-tvf", bundle], env=environment, check=True, capture_output=True)
    assert len(listed.stdout.splitlines()) == len(FILES) + 1
    subprocess.run([program, "-xf", bundle], env=environment, check=True, capture_output=True, cwd=tmp_path / "out")
    assert files_in(tmp_path / "out") == FILES
    for entry in index.entries:
        assert (tmp_path / "out" / entry.path).stat().st_mtime_ns == entry.mtime_ns
    unpacked = tmp_path / "out" / ".stager" / "index" / f"{Path(path).name}.index"
    assert unpacked.read_bytes() == index.to_bytes()


def test_python_reads_it(source: Host, store: Host, tmp_path: Path) -> None:
    path, index = crafted.packed(source, store)
    with tarfile.open(tmp_path / "mss" / path) as tar:
        *members, last = tar.getmembers()
        assert [member.name for member in members] == [entry.path for entry in index.entries]
        assert [member.offset_data for member in members] == [entry.offset for entry in index.entries]
        data = {member.name: file.read() for member in members if (file := tar.extractfile(member)) is not None}
        assert data == FILES
        assert last.name == f".stager/index/{Path(path).name}.index"


def test_member_beyond_8_gib_is_found_by_any_tar(tmp_path: Path) -> None:
    """The data are a hole: no disk has room for them in a test."""
    layout = layout_of("large", [("a", 3, 5 * 10**9), ("large.fits", 9 * GIB + 1, 10**18 + 1), ("z", 0, 10**18)])
    index = Index(layout.label, tuple(Entry(*one[:3], sha256(b""), one.offset) for one in layout.members))
    bundle = tmp_path / layout.name
    with bundle.open("wb") as file:
        for one in layout.members:
            header = header_of(*one[:3])
            file.seek(one.offset - len(header))
            file.write(header)
        data = index.to_bytes()
        file.seek(layout.index_offset - len(header_of(layout.index_path, len(data), layout.mtime_ns)))
        file.write(header_of(layout.index_path, len(data), layout.mtime_ns) + data + padding(len(data)) + END)
    assert bundle.stat().st_size == layout.size
    for program in TARS:
        listed = subprocess.run([program, "-tvf", bundle], check=True, capture_output=True, text=True).stdout
        assert str(9 * GIB + 1) in listed.splitlines()[1]
    with tarfile.open(bundle) as tar:
        assert [member.size for member in tar.getmembers()] == [3, 9 * GIB + 1, 0, len(data)]
    store = crafted.store(tmp_path)
    assert list(walk(store, layout.name)) == list(layout.members)
    assert read_index(store, layout.name) == index
    assert list(verify(store, layout.name, index)) == []


# The same again.


def test_bundle_is_the_same_to_the_byte_when_it_is_made_again(source: Host, store: Host, tmp_path: Path) -> None:
    path, _ = crafted.packed(source, store)
    other = crafted.local(tmp_path / "other", "lsst")
    crafted.write(tmp_path / "other", dict(reversed(FILES.items())))
    for entry in (tmp_path / "source").rglob("*"):
        if entry.is_file():
            state = entry.stat()
            copy = tmp_path / "other" / entry.relative_to(tmp_path / "source")
            copy.chmod(0o600)
            os.utime(copy, ns=(5, state.st_mtime_ns))
    (tmp_path / "mss" / path).rename(tmp_path / "first")
    (tmp_path / "mss" / f"{path}.index").rename(tmp_path / "first.index")
    again, _ = crafted.packed(other, store)
    assert again == path
    assert (tmp_path / "mss" / again).read_bytes() == (tmp_path / "first").read_bytes()
    assert (tmp_path / "mss" / f"{again}.index").read_bytes() == (tmp_path / "first.index").read_bytes()


def test_bundle_is_as_long_as_was_said_and_of_its_newest_member(source: Host, store: Host, tmp_path: Path) -> None:
    layout, _ = crafted.planned(source)
    path, index = crafted.packed(source, store)
    state = (tmp_path / "mss" / path).stat()
    assert (state.st_size, state.st_mtime_ns) == (layout.size, max(entry.mtime_ns for entry in index.entries))
    beside = parse_beside((tmp_path / "mss" / f"{path}.index").read_bytes())
    assert beside.index == index
    assert beside.digest == sha256((tmp_path / "mss" / path).read_bytes())


def test_packing_again_adopts_the_bundle_that_is_there(source: Host, store: Host) -> None:
    path, _ = crafted.packed(source, store)
    layout, wants = crafted.planned(source)
    packing = Packing(layout, Want(1, 2, "", path))
    receipt = only(store.land(packing.frames(source.read(wants))))
    assert isinstance(receipt, Receipt)
    assert receipt.adopted


# Members that are not what they were.


@pytest.mark.parametrize("why", ["size", "time", "gone", "digest", "grown"])
def test_member_that_is_not_what_it_was_ends_the_bundle_and_is_named(
    source: Host, store: Host, tmp_path: Path, why: str
) -> None:
    layout, wants = crafted.planned(source)
    at = next(number for number, want in enumerate(wants) if want.source == "large")
    file = tmp_path / "source" / "large"
    if why == "size":
        file.write_bytes(b"other")
    elif why == "time":
        os.utime(file, ns=(0, 5))
    elif why == "gone":
        file.unlink()
    elif why == "digest":
        wants[at] = wants[at]._replace(digest=sha256(b"other"))
    else:  # what was wanted says nothing of it: it is held against what was planned
        wants[at] = wants[at]._replace(size=None, mtime_ns=None)
        file.write_bytes(FILES["large"] + b"more")
    error = _landed(source, store, wants, layout)
    expected = {"gone": SourceMissing, "digest": SourceCorrupt}.get(why, SourceChanged)
    assert type(error) is expected
    assert (error.facts["member"], error.facts["member_item"]) == ("large", wants[at].item)
    assert (error.host, error.side) == ("lsst10", "source")
    assert "large" in error.text
    assert files_in(tmp_path / "mss") == {}


def _frames(layout: Layout, data: bytes, **facts: object) -> list[Frame]:
    """The frames of a bundle of one member."""
    (one,) = layout.members
    begin = {"item": 5, "epoch": 1, "path": one.path, "replace": False, "size": one.size, "mtime_ns": one.mtime_ns}
    return [("file", begin | facts), ("data", data), ("end", {"size": len(data), "digest": sha256(data)})]


@pytest.mark.parametrize(
    "frames",
    [
        lambda frames: frames[:1],
        lambda frames: frames[:2],
        lambda frames: [],
        lambda frames: [("unit", 1), *frames],
        lambda frames: [*frames[:2], ("end", {"size": 5, "digest": ""})],
    ],
)
def test_source_that_breaks_off_leaves_nothing(store: Host, tmp_path: Path, frames: object) -> None:
    layout = layout_of("x", [("a", 5, 1)])
    assert callable(frames)
    packing = Packing(layout, Want(1, 1, "", "b.stager.tar"))
    error = only(store.land(packing.frames(frames(_frames(layout, b"12345")))))
    assert isinstance(error, Transient)
    assert error.facts["member"] == "a"
    assert files_in(tmp_path / "mss") == {}


@pytest.mark.parametrize("data", [b"1234", b"123456", b"x" * 70_000])
def test_member_of_another_length_than_its_source_said_is_not_packed(store: Host, tmp_path: Path, data: bytes) -> None:
    layout = layout_of("x", [("a", 5, 1)])
    packing = Packing(layout, Want(1, 1, "", "b.stager.tar"))
    error = only(store.land(packing.frames(_frames(layout, data))))
    assert isinstance(error, SourceChanged)
    assert files_in(tmp_path / "mss") == {}


@pytest.mark.parametrize(("fact", "value"), [("size", 6), ("mtime_ns", 2)])
def test_member_that_was_planned_otherwise_is_not_packed(store: Host, fact: str, value: int) -> None:
    layout = layout_of("x", [("a", 5, 1)])
    packing = Packing(layout, Want(1, 1, "", "b.stager.tar"))
    error = only(store.land(packing.frames(_frames(layout, b"12345", **{fact: value}))))
    assert isinstance(error, SourceChanged)
    assert error.facts[fact] == value


def test_member_without_an_end_is_not_waited_for(store: Host) -> None:
    def source() -> Iterator[Frame]:
        yield from _frames(layout, b"12345")[:2]
        for _ in range(2):
            yield "data", b"x"
        raise AssertionError("it was asked for more")

    layout = layout_of("x", [("a", 5, 1)])
    packing = Packing(layout, Want(1, 1, "", "b.stager.tar"))
    assert isinstance(only(store.land(packing.frames(source()))), SourceChanged)


def test_time_that_a_source_does_not_know_is_the_planned_one(store: Host) -> None:
    layout = layout_of("x", [("a", 5, 1)])
    packing = Packing(layout, Want(1, 1, "", f"D1/{layout.name}"))
    assert isinstance(only(store.land(packing.frames(_frames(layout, b"12345", mtime_ns=None)))), Receipt)
    assert read_index(store, f"D1/{layout.name}") == packing.index


def test_host_that_goes_down_ends_the_bundle_and_is_kept() -> None:
    def source() -> Iterator[Frame]:
        yield from _frames(layout, b"12345")[:2]
        raise HostDown("the root is not there", host="lsst10", phase="read")

    layout = layout_of("x", [("a", 5, 1)])
    packing = Packing(layout, Want(1, 1, "", "b"), "lsst10")
    *_, (name, fault) = packing.frames(source())
    assert name == "fault"
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.facts) == ("host down", {"member": "a", "member_item": 5, "host": "lsst10"})
    assert isinstance(packing.broken, HostDown)


# The stream.


def test_data_are_hashed_before_their_buffer_comes_again(store: Host, tmp_path: Path) -> None:
    """A source may give the same buffer again and again, and so does the agent's."""
    size = 40 << 20
    buffer = bytearray(1 << 20)
    digest = hashlib.sha256()

    def source() -> Iterator[Frame]:
        facts = {"item": 1, "epoch": 1, "path": "a", "replace": False, "size": size, "mtime_ns": 1}
        yield "file", facts
        for number in range(size >> 20):
            buffer[:] = bytes([number]) * len(buffer)
            digest.update(buffer)
            yield "data", memoryview(buffer)
            buffer[:] = bytes(len(buffer))
        yield "end", {"size": size, "digest": f"sha256:{digest.hexdigest()}"}

    layout = layout_of("x", [("a", size, 1)])
    packing = Packing(layout, Want(1, 1, "", layout.name))
    receipt = only(store.land(packing.frames(source())))
    assert isinstance(receipt, Receipt), receipt
    assert packing.index is not None
    assert list(verify(store, layout.name, packing.index, deep=True)) == []


def test_small_members_go_together(tmp_path: Path) -> None:
    source = crafted.local(tmp_path / "many")
    crafted.write(tmp_path / "many", {f"f{number:04}": b"%d" % number for number in range(1000)})
    layout, wants = crafted.planned(source)
    packing = Packing(layout, Want(1, 1, "", layout.name))
    sizes = [len(body) for name, body in packing.frames(source.read(wants)) if name == "data"]
    assert sum(sizes) == layout.size
    assert len(sizes) < 10
    assert max(sizes) <= 1 << 20  # what a channel takes in one frame


def test_leaving_a_bundle_early_leaves_no_thread_and_closes_the_source(source: Host) -> None:
    layout, wants = crafted.planned(source)
    before = threading.active_count()
    coming = source.read(wants)
    frames = Packing(layout, Want(1, 1, "", "b")).frames(coming)
    for name, _ in frames:
        if name == "data":
            break
    frames.close()
    assert next(coming, None) is None
    assert threading.active_count() == before
