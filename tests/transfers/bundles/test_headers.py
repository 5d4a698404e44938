"""A header says a path, a size and a time in one way, which other tars read, and nothing else is read as one."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.transfers.bundles.crafted import block, pax, record
from transfers.bundles.headers import INTEGER, Laid, Names, header_at, header_of, header_size, padding
from transfers.errors import SourceCorrupt

GIB = 1 << 30


def _taking(data: bytes) -> Callable[[int, int], bytes]:
    def take(at: int, size: int) -> bytes:
        if at + size > len(data):
            raise SourceCorrupt("the end", facts={"code": "bundle-truncated"})
        return data[at : at + size]

    return take


def _code(data: bytes) -> str:
    with pytest.raises(SourceCorrupt) as error:
        header_at(_taking(data + bytes(4096)), 0)
    assert str(error.value).isprintable()
    return str(error.value.facts["code"])


def _is_path(path: bytes) -> bool:
    parts = path.split(b"/")
    return len(path) <= 1024 and all(0 < len(part) <= 255 and part not in (b".", b"..") for part in parts)


names = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(str.encode),
    st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name),
    st.lists(st.sampled_from([b"a" * 100, b"b" * 54, b"c", b"d" * 255, b"v1-fr"]), min_size=1, max_size=8).map(
        b"/".join
    ),
)
paths = names.filter(_is_path).map(os.fsdecode)
sizes = st.one_of(st.integers(0, 4096), st.integers(0, (1 << 63) - 1), st.sampled_from([8 * GIB - 1, 8 * GIB]))
times = st.one_of(
    st.integers(INTEGER.start, INTEGER.stop - 1),
    st.integers(0, 2 * 10**9).map(lambda seconds: seconds * 10**9),
    st.integers(-(10**10), 10**10),
)


@given(paths, sizes, times)
@example("a", 0, 0)
@example("p" * 90 + "/" + "q" * 90, 8 * GIB - 1, 8**11 * 10**9 - 1)
@example("x" * 100 + "/y", 8 * GIB, -1)
@example(os.fsdecode(b"\xff\n1 path=b"), 1, -1_500_000_000)
def test_header_is_read_as_it_was_made(path: str, size: int, mtime_ns: int) -> None:
    header = header_of(path, size, mtime_ns)
    assert len(header) == header_size(path, size, mtime_ns)
    assert len(header) % 512 == 0
    assert header_at(_taking(header), 0) == Laid(path, size, mtime_ns, len(header))


@given(paths, st.integers(0, 100), times.filter(lambda mtime_ns: abs(mtime_ns) < 10**19))
def test_header_is_read_by_the_tarfile_of_python(path: str, size: int, mtime_ns: int) -> None:
    data = header_of(path, size, mtime_ns) + bytes(size) + padding(size) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (member,) = tar.getmembers()
    assert (member.name, member.size, member.isreg(), member.mode) == (path, size, True, 0o644)
    assert member.mtime == pytest.approx(mtime_ns / 1e9, abs=1e-5, rel=1e-12)


@pytest.mark.parametrize("path", ["D1/raw/c00-a0.fits", "p" * 90 + "/" + "q" * 90, "x" * 100])
def test_plain_header_is_that_of_gnu_tar_when_it_writes_ustar(path: str, tmp_path: Path) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * 600)
    os.utime(file, (0, 1_277_078_400))
    options = ["--format=ustar", "--numeric-owner", "--owner=0", "--group=0", "--mode=0644"]
    made = subprocess.run(["tar", *options, "-c", path], cwd=tmp_path, check=True, capture_output=True).stdout
    assert header_of(path, 600, 1_277_078_400 * 10**9) == made[:512]


def test_pax_records_are_there_for_what_ustar_has_no_room_for_and_no_more() -> None:
    assert len(header_of("a" * 100, 8 * GIB - 1, 5 * 10**9)) == 512
    assert len(header_of("a" * 155 + "/" + "b" * 100, 0, 0)) == 512
    odd = header_of(os.fsdecode(b"\xe9"), 8 * GIB, 1)
    assert odd[512:1024].rstrip(b"\0").splitlines() == [
        b"21 hdrcharset=BINARY",
        b"9 path=\xe9",
        b"19 size=8589934592",
        b"21 mtime=0.000000001",
    ]


def test_every_flipped_bit_is_refused_or_makes_another_member() -> None:
    """Pax records have no sum of their own: that they were changed is told by the bundle's name and by its index."""
    header = header_of("a" * 120, 5, 1_000_000_000_000_000_001)
    assert len(header) == 1536
    other = 0
    for place in range(len(header) * 8):
        harmed = bytearray(header)
        harmed[place // 8] ^= 1 << place % 8
        try:
            found = header_at(_taking(bytes(harmed) + bytes(4096)), 0)
        except SourceCorrupt:
            continue
        assert found is not None
        assert found[:3] != ("a" * 120, 5, 1_000_000_000_000_000_001)
        assert 512 <= place // 8 < 1024
        other += 1
    assert other < 300


GOOD = block(b"a", 5)
HOSTILE = {
    "hard link": (block(b"a", 0, b"1", link=b"/etc/passwd"), "bundle-link"),
    "symbolic link": (block(b"a", 0, b"2", link=b"../.."), "bundle-link"),
    "device": (block(b"a", 0, b"3"), "bundle-type"),
    "block device": (block(b"a", 0, b"4"), "bundle-type"),
    "folder": (block(b"a/", 0, b"5"), "bundle-type"),
    "FIFO": (block(b"a", 0, b"6"), "bundle-type"),
    "unknown type": (block(b"a", 0, b"Z"), "bundle-type"),
    "old type": (block(b"a", 0, b"\0"), "bundle-type"),
    "contiguous file": (block(b"a", 0, b"7"), "bundle-type"),
    "pax for all": (block(b"a", 0, b"g"), "bundle-extension"),
    "long name of GNU tar": (block(b"././@LongLink", 200, b"L"), "bundle-extension"),
    "long link of GNU tar": (block(b"././@LongLink", 200, b"K"), "bundle-extension"),
    "sparse file of GNU tar": (block(b"a", 0, b"S"), "bundle-extension"),
    "header of GNU tar": (block(b"a", magic=b"ustar  \0"), "bundle-extension"),
    "sparse file in pax": (pax(record(b"GNU.sparse.major", b"1")) + GOOD, "bundle-extension"),
    "size in base 256": (block(b"a", b"\x80" + bytes(10) + b"\5"), "bundle-size"),
    "negative size": (block(b"a", b"\xff" * 12), "bundle-size"),
    "size that is no octal": (block(b"a", b"00000000009\0"), "bundle-size"),
    "size with a sign": (block(b"a", b"-0000000005\0"), "bundle-size"),
    "no size": (block(b"a", bytes(12)), "bundle-size"),
    "negative size in pax": (pax(record(b"size", b"-5")) + GOOD, "bundle-size"),
    "size in pax that is too large": (pax(record(b"size", b"9" * 19)) + GOOD, "bundle-size"),
    "size in pax that is a fraction": (pax(record(b"size", b"5.0")) + GOOD, "bundle-size"),
    "size in pax that ustar has too": (pax(record(b"size", b"5")) + GOOD, "bundle-header"),
    "path in pax that ustar has too": (pax(record(b"path", b"b")) + GOOD, "bundle-header"),
    "path twice in pax": (pax(record(b"path", b"a") + record(b"path", b"b")) + GOOD, "bundle-header"),
    "link in pax": (pax(record(b"linkpath", b"/etc/passwd")) + GOOD, "bundle-header"),
    "remark in pax": (pax(record(b"comment", b"x")) + GOOD, "bundle-header"),
    "time that is none": (pax(record(b"mtime", b"1e9")) + GOOD, "bundle-header"),
    "time that is written longer": (pax(record(b"mtime", b"1000000000.50")) + GOOD, "bundle-header"),
    "record that is longer than all": (pax(b"99 path=a\n") + GOOD, "bundle-header"),
    "record that is shorter": (pax(b"5 path=abcdef\n") + GOOD, "bundle-header"),
    "record without length": (pax(b"path=a\n") + GOOD, "bundle-header"),
    "record of length 0": (pax(b"0 path=a\n") + GOOD, "bundle-header"),
    "pax of pax": (pax(record(b"path", b"a")) * 2 + GOOD, "bundle-type"),
    "pax of a link": (pax(record(b"path", b"a" * 80)) + block(b"a", 0, b"2"), "bundle-link"),
    "pax that is empty": (block(b"x", 0, b"x") + GOOD, "bundle-header"),
    "pax that is too long": (block(b"x", 5000, b"x") + bytes(5120) + GOOD, "bundle-header"),
    "set-user-id": (block(b"a", 5, mode=b"0004755\0"), "bundle-header"),
    "of a user": (block(b"a", 5, user=b"root"), "bundle-header"),
    "link of a file": (block(b"a", 5, link=b"b"), "bundle-header"),
    "prefix that is not needed": (block(b"b", 5, prefix=b"a"), "bundle-header"),
    "text": (b"<html>".ljust(512), "bundle-header"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_header_that_no_stager_writes_is_refused(name: str) -> None:
    data, code = HOSTILE[name]
    assert _code(data) == code


def test_the_crafted_header_is_sound_but_for_what_is_crafted() -> None:
    assert header_at(_taking(GOOD), 0) == Laid("a", 5, 10**18, 512)


def test_zeros_are_the_end() -> None:
    assert header_at(_taking(bytes(1024)), 0) is None


CLIMBS = ["../a", "/a", "a/../b", "./a", "a//b", "a/", "", ".", "a\0b", "x" * 256, "y/" * 600 + "z"]
OWN = [".stager/marker", ".stager"]
UNTEXT = ["\ud800", "\udcc3\udca9"]  # no file name; "é" in two bytes that each stand for themselves


@pytest.mark.parametrize("path", [*CLIMBS, *OWN, *UNTEXT])
def test_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(SourceCorrupt) as error:
        Names().add(path)
    assert error.value.facts["code"] == "bundle-climbs"
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ("a", "a", "bundle-duplicate"),
        ("e\u0301.fits", "\u00e9.fits", "bundle-duplicate"),
        ("K", "\u212a", "bundle-duplicate"),  # the Kelvin sign
        ("a", "a/b", "bundle-clash"),
        ("e\u0301/x", "\u00e9", "bundle-clash"),
        ("b", "a", "bundle-order"),
        ("a/b", "a-b", "bundle-order"),  # by bytes, as the index and the database have them
    ],
)
def test_path_that_is_there_already_is_refused(first: str, second: str, code: str) -> None:
    names = Names()
    names.add(first)
    with pytest.raises(SourceCorrupt) as error:
        names.add(second)
    assert error.value.facts["code"] == code
    assert error.value.facts["member"] == second


def test_paths_that_only_look_alike_are_others() -> None:
    names = Names()
    for path in sorted(["a", "A", "a b", "a.b/c", "ab", "a.b/d", "a-b"], key=os.fsencode):
        names.add(path)
