"""Tables for terminals and pipes: nothing lost, nothing too wide, nothing that draws by itself."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stager import drawing, durations
from stager.commands.common import PIPED_COLUMNS
from stager.counts import counted
from stager.status import HostRow, RouteRow, Row, Snapshot

FILES = {
    "total": 110448,
    "done": 81234,
    "running": 72,
    "waiting": 29142,
    "held": 0,
    "missing": 0,
    "excluded": 0,
    "evicted": 0,
}


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


def printed(*parts: Any, width: int) -> list[str]:
    """The lines that a terminal of that width shows."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, color_system=None)
    for part in parts:
        console.print(part)
    return out.getvalue().splitlines()


def drawn(snapshot: Snapshot, width: int) -> list[str]:
    return printed(drawing.status(snapshot, width), *drawing.remarks(snapshot), width=width)


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


def host(**said: Any) -> HostRow:
    facts: dict[str, Any] = dict.fromkeys(HostRow.__dataclass_fields__)
    return HostRow(**(facts | {"host": "abe", "paused": False, "files": 0, "triggers": 0} | said))


def route(**said: Any) -> RouteRow:
    facts: dict[str, Any] = dict.fromkeys(RouteRow.__dataclass_fields__)
    facts |= {"source": "lsst10", "destination": "abe", "streams": 4, "failures": 0, "busy": True, "waiting": 0}
    return RouteRow(**(facts | {"why": "a round trip takes 52 ms; more are tried while they pay"} | said))


DOWN = {"kind": "host down", "problem": "abe: no route to it (connect) - host down; wait", "troubled_s": 180.0}


def test_a_host_in_trouble_has_its_line_below_the_table_and_is_said_once() -> None:
    down = host(**DOWN, next_look_s=12.4, files=29142, triggers=1)
    snapshot = Snapshot("", [row(last_error=DOWN["problem"])], [], [down, host(host="mss", reached="openssh")])
    (line,) = drawing.remarks(snapshot)
    assert line.plain == (
        "abe: host down for 3 min now; 29142 files and 1 trigger wait for it; next look in 12 s: "
        "no route to it (connect) - host down; wait"
    )
    assert drawing.trouble(host(**DOWN, next_look_s=0.0)).startswith(
        "abe: host down for 3 min now; the next look is due"
    )
    long = host(**DOWN | {"problem": "abe: " + "x" * 2000})
    assert len(drawing.trouble(long)) < 450
    assert drawing.trouble(long).endswith("`stager hosts` has all of it)")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            {"rate_bytes_per_s": 4.5e7},
            "lsst10 > abe: 4 streams (a round trip takes 52 ms; more are tried while they pay), 45 MB/s",
        ),
        (
            {"streams": 1, "why": "the configuration says so", "bytes_per_s": 200_000_000, "hours": "20:00-06:00"},
            "lsst10 > abe: 1 stream (the configuration says so), limited to 200 MB/s; open 20:00-06:00",
        ),
        (
            {"streams": None, "why": "it has not worked yet", "closed_until": "20:00", "waiting": 72},
            "lsst10 > abe: it has not worked yet; closed until 20:00; 72 files to come",
        ),
        (
            {"why": "so", "failures": 3, "busy": False, "ago_s": 720.0},
            "lsst10 > abe: 4 streams (so); the last 3 tries failed; last worked 12 min ago",
        ),
    ],
)
def test_a_route_says_why_it_goes_as_it_goes(said: dict[str, Any], text: str) -> None:
    assert [line.plain for line in drawing.whys(Snapshot("", [], [], [], [route(**said)]))] == [text]


def test_paused_hosts_and_how_others_are_reached_are_told_of() -> None:
    hosts = [host(paused=True, reason="disks", files=3), host(host="mss", reached="paramiko; no python there"), host()]
    assert [line.plain for line in drawing.whys(Snapshot("", [], [], hosts, []))] == [
        "abe is paused by an operator (disks); 3 files wait for it",
        "mss is reached by paramiko; no python there",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_sentences_fit_the_terminal_and_cannot_draw(width: int) -> None:
    evil = "\x1b[2J" + "x" * 300
    snapshot = Snapshot("", [], [], [host(**DOWN | {"problem": evil}, reached=evil)], [route(why=evil)])
    lines = printed(*drawing.remarks(snapshot), *drawing.whys(snapshot), width=width)
    assert all(len(line) <= width for line in lines)
    assert "\x1b" not in "\n".join(lines)


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
    assert durations.duration(seconds) == text


def test_one_is_told_as_one() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(number, "copy", "copies") for number in (1, 2)] == ["1 copy", "2 copies"]
    assert [counted(number, "file is", "files are") for number in (1, 2)] == ["1 file is", "2 files are"]
