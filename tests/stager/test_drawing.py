"""Tables for terminals and pipes: nothing lost, nothing too wide, nothing that draws by itself."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stager import drawing
from stager.commands.common import PIPED_COLUMNS
from stager.status import Row, Snapshot

FILES = {"total": 110448, "done": 81234, "running": 72, "waiting": 29142, "held": 0, "missing": 0, "excluded": 0}


def row(**said: Any) -> Row:
    facts: dict[str, Any] = {
        "dataset": "CFHTLS D1 raw",
        "manifest": "cfht-d1-chop",
        "revision": 1,
        "kind": "chop",
        "source": "lsst10:CFHTLS/D1/*o.fits",
        "destination": "lsst10:CFHTDeep",
        "lead": "DG",
        "state": "running",
        "files": FILES,
        "bytes": {"total": 2_164_000_000_000, "done": 1_591_000_000_000},
        "percent": 73.5,
        "percent_of": "bytes",
        "rate_bytes_per_s": 412_000_000.0,
        "eta_s": 11_400.0,
        "last_error": None,
    }
    return Row(**(facts | said))


def drawn(snapshot: Snapshot, width: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, color_system=None)
    console.print(drawing.status(snapshot, width))
    for line in drawing.remarks(snapshot):
        console.print(line)
    return out.getvalue().splitlines()


def of(*rows: Row) -> Snapshot:
    return Snapshot("2010-06-10T00:00:00Z", list(rows), [])


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(width: int) -> None:
    lines = drawn(of(row(), row(dataset="ImSim calibration", source="mss:ImSim/{bias,flat}/**", state="held")), width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for word in ("CFHTLS D1 raw", "lsst10:CFHTLS/D1/*o.fits", "lsst10:CFHTDeep", "mss:ImSim/{bias,flat}/**", "DG"):
        assert word in text
    for word in ("81234/110448", "73.5", "1.59 TB", "2.16 TB", "running", "held", "412 MB/s", "3 h 10 min"):
        assert word in text


@pytest.mark.parametrize("width", [80, 160])
def test_names_of_any_length_are_folded_and_not_cut(width: int) -> None:
    long = row(dataset="Q" * 200, source="a:" + "W" * 300, destination="b:" + "Z" * 300)
    lines = drawn(of(long), width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert (text.count("Q"), text.count("W"), text.count("Z")) == (200, 300, 300)
    assert "…" not in text


def test_a_pipe_gets_one_line_a_dataset() -> None:
    lines = drawn(of(row(), row(dataset="ImSim raw"), row(dataset="CFHTLS W3 calibrations")), PIPED_COLUMNS)
    assert sum("CFHT" in line or "ImSim" in line for line in lines) == 3
    (first,) = (line for line in lines if "CFHTLS D1" in line)
    for word in ("chop", "lsst10:CFHTDeep", "81234/110448", "73.5", "DG", "running"):
        assert word in first


@pytest.mark.parametrize(
    "evil", ["\x1b[2J\x1b[31mred", "line\nbreak", "\x07\x00\x9b", "\udce9", "\u202e", "[bold]x[/]"]
)
def test_no_name_of_a_file_can_draw(evil: str) -> None:
    lines = drawn(of(row(dataset=evil, source=f"a:{evil}", lead=evil, last_error=evil)), 80)
    text = "\n".join(lines)
    text.encode("utf-8")
    assert all(char.isprintable() or char == "\n" for char in text)
    if evil.startswith("["):
        assert evil in text


@given(st.text(max_size=40))
def test_any_text_is_shown_printable_and_plain_text_as_it_is(text: str) -> None:
    shown = drawing.cell(text).plain
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_remarks_say_what_the_table_cannot() -> None:
    troubled = row(files=FILES | {"held": 2, "missing": 72, "excluded": 1}, last_error="b:x: no", percent_of="files")
    refused = Snapshot("", [troubled], [{"file": "incoming/x.toml", "problem": "line 3: not TOML"}])
    first, second, third = (line.plain for line in drawing.remarks(refused))
    assert first == "cfht-d1-chop (chop): 2 held, 72 missing, 1 excluded: b:x: no"
    assert second == "refused incoming/x.toml: line 3: not TOML"
    assert third.startswith("% is of bytes proven")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_410_000_000, "1.41 GB"),
        (999_600, "1 MB"),
        (5e18, "5e+03 PB"),
    ],
)
def test_sizes_are_in_powers_of_1000(count: float | None, text: str) -> None:
    assert drawing.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (4, "4 s"), (720, "12 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_durations_are_in_the_units_people_use(seconds: float | None, text: str) -> None:
    assert drawing.duration(seconds) == text
