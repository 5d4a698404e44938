"""What a store's listing says is understood, or it is an error."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.transfers.command.test_templates import HSI
from transfers.agent import Fault
from transfers.command import listing
from transfers.command.listing import Listed, Reader, Sorting, nanoseconds
from transfers.command.running import Ended

LS = """
/lsst/raw:
total 3
drwxr-x---    2 lsst      lsst          512 Jun  1  2010 v1
-rw-r-----    1 lsst      lsst         2880 Jun  1 12:30 a file.fits

/lsst/raw/v1:
-rw-r-----    1 lsst      lsst            0 Jun  1  2010 b.fits
"""


def read(reader: Reader, text: str) -> list[Listed]:
    return [found for line in text.split("\n") if (found := reader.file(line)) is not None]


def test_listing_with_headed_folders_is_understood() -> None:
    reader = Reader(HSI, "/lsst", [])
    assert read(reader, LS) == [Listed("raw/a file.fits", 2880), Listed("raw/v1/b.fits", 0)]
    assert reader.garbled is None


def test_name_alone_is_that_of_the_one_file_that_was_asked_about() -> None:
    reader = Reader(HSI, "/lsst", ["raw/a.fits"])
    line = "-rw-r-----    1 lsst lsst 2880 Jun  1 12:30 "
    assert read(reader, line + "a.fits") == [Listed("raw/a.fits", 2880)]
    assert read(reader, line + "/lsst//raw/a.fits") == [Listed("raw/a.fits", 2880)]
    assert read(reader, line + "raw/a.fits") == [Listed("raw/a.fits", 2880)]


@pytest.mark.parametrize("line", ["*** hsi: Failed", "-rw-r----- 1 lsst lsst 2880 Jun  1 12:30 /other/a", "\0"])
def test_line_that_is_not_understood_is_kept(line: str) -> None:
    reader = Reader(HSI, "/lsst", [])
    assert read(reader, line) == []
    assert reader.garbled is not None
    assert "not understood" in reader.garbled.text


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (None, None),
        ("0", 0),
        ("1275395400", 1275395400 * 10**9),
        ("1275395400.5", 1275395400_500000000),
        ("1275395400.0000000019", 1275395400_000000001),
        ("2010-06-01T12:30:00Z", 1275395400 * 10**9),
        ("2010-06-01 14:30:00.000001+02:00", 1275395400_000001000),
        ("2010-06-01 12:30", 1275395400 * 10**9),
        ("999999999999", 2**63 - 1),
        ("9999-12-31T12:00:00Z", 2**63 - 1),
    ],
)
def test_times(printed: str | None, expected: int | None) -> None:
    assert nanoseconds(printed) == expected


def test_time_that_is_none_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="no time"):
        nanoseconds("Jun  1 12:30")


def test_more_files_than_are_held_in_memory_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SORTED_AT_ONCE", 100)
    paths = [f"{folder}/{number}" for folder in ("a", "a.b", "a/c", "b\udce9") for number in range(250)]
    files = [Listed(path, number, number, "resident", "V", number, "md5:00") for number, path in enumerate(paths)]
    mixed = files * 2
    random.Random(1).shuffle(mixed)
    with Sorting(str(tmp_path / "new")) as sorting:
        for file in mixed:
            sorting.add(file)
        assert len(sorting.runs) == 20
        assert list(sorting.files()) == sorted(files, key=lambda file: file.path.split("/"))


def test_file_that_is_listed_twice_and_not_the_same_is_an_error(tmp_path: Path) -> None:
    with Sorting(str(tmp_path)) as sorting:
        sorting.add(Listed("a", 1))
        sorting.add(Listed("a", 2))
        with pytest.raises(Fault, match="twice"):
            list(sorting.files())


@pytest.mark.parametrize("printed", ["MD5:0AFF", "md5:0aff", "0Aff"])
def test_digest_that_is_listed_is_the_same_in_capitals(printed: str) -> None:
    reader = Reader(replace(HSI, listed=r"(?P<size>\d+) (?P<digest>\S+) (?P<path>/.*)"), "/lsst", [])
    assert read(reader, f"1 {printed} /lsst/a") == [Listed("a", 1, digest="md5:0aff")]


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("crc32:1aB", "crc32:000001ab"),
        ("CRC-32:0", "crc32:00000000"),
        ("1ab", "adler32:000001ab"),
        ("123456789", "adler32:123456789"),
        ("n/a", "adler32:n/a"),
        ("md5:1ab", "md5:1ab"),
    ],
)
def test_zeros_that_a_number_begins_with_may_be_left_out_of_a_sum(printed: str, found: str) -> None:
    templates = replace(HSI, listed=r"(?P<size>\d+) (?P<digest>\S+) (?P<path>/.*)", algorithm="adler32")
    assert read(Reader(templates, "/lsst", []), f"1 {printed} /lsst/a") == [Listed("a", 1, digest=found)]


def test_what_is_absent_is_believed_of_no_files_name() -> None:
    templates = replace(HSI, absent="^ls: (?P<path>/.*): no such file$")
    reader = Reader(templates, "/lsst", ["a", "b"])
    for line in ("ls: /lsst/a: no such file", "-rw-r----- 1 l l 1 Jun  1 12:30 ls: /lsst/b: no such file"):
        reader.file(line)
    assert reader.absent_paths == {"a"}


def test_what_is_absent_is_heard_whatever_ends_the_lines() -> None:
    templates = replace(HSI, absent="^hsi: (?P<path>/.*): no such file$")
    reader = Reader(templates, "/lsst", ["raw/a", "raw/b"])
    reader.hear(Ended((), 1, "Welcome\r\nhsi: /lsst/raw/a: no such file\r\nhsi: /lsst/raw/b: no such file\n"))
    assert reader.absent_paths == {"raw/a", "raw/b"}


def test_listing_on_standard_error_is_not_taken_for_an_empty_one() -> None:
    line = "-rw-r-----    1 lsst lsst 2880 Jun  1 12:30 /lsst/raw/a.fits"
    reader = Reader(HSI, "/lsst", ["raw/a.fits"])
    reader.hear(Ended((), 0, f"Welcome\n{line}\n"))
    assert reader.garbled is not None
    assert "standard error" in reader.garbled.text
    reader = Reader(HSI, "/lsst", ["raw/a.fits"])
    assert read(reader, line) == [Listed("raw/a.fits", 2880)]
    reader.hear(Ended((), 0, f"Welcome\n{line}\n"))
    assert reader.garbled is None
