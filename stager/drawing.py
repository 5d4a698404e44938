"""Plain data as tables of a terminal. Nothing here asks the database.

All text from outside passes `cell`, so that no name of a file can draw on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stager.status import Row, Snapshot

ANY_WIDTH = 10_000  # columns: wider than any table
STATE_STYLES = {
    "complete": "green",
    "running": "cyan",
    "held": "red",
    "paused": "yellow",
    "cancelled": "dim",
}


def cell(text: object, style: str = "") -> Text:
    """Text that cannot do anything but be read: control characters and lone surrogates are escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    return Text(shown, style=style)


def size(count: float | None) -> str:
    """Bytes in powers of 1000, as disks are sold: `1.41 GB`; `-` for unknown."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"


def duration(seconds: float | None) -> str:
    """`4 s`, `12 min`, `3 h 20 min`, `2 d 4 h`; `-` for unknown."""
    if seconds is None:
        return "-"
    total = round(seconds)
    if total < 90:
        return f"{total} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def table(columns: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A plain table; a column given as (heading, "right") is set to the right."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in columns:
        heading, side = column if isinstance(column, tuple) else (column, "left")
        drawn.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    return drawn


def status(snapshot: Snapshot, width: int) -> Table:
    """The percent-complete table: a line a dataset where there is room, else three."""
    wide = _wide_status(snapshot)
    return (
        wide
        if Console(width=ANY_WIDTH, emoji=False).measure(wide).maximum <= width
        else _narrow_status(snapshot, width)
    )


def _state(row: Row) -> Text:
    return cell(row.state, STATE_STYLES.get(row.state, ""))


def _files(row: Row) -> str:
    return f"{row.files['done']}/{row.files['total']}"


def _bytes(row: Row) -> str:
    return f"{size(row.bytes['done'])} / {size(row.bytes['total'])}"


def _percent(row: Row) -> str:
    return f"{row.percent:.1f}" if row.percent not in (0.0, 100.0) else f"{row.percent:.0f}"


def _wide_status(snapshot: Snapshot) -> Table:
    columns: list[str | tuple[str, str]] = [
        "Dataset",
        "Kind",
        "From",
        "To",
        ("Files", "right"),
        ("Bytes", "right"),
    ]
    columns += [("%", "right"), ("Rate", "right"), ("ETA", "right"), "Lead", "State"]
    drawn = table(columns, [])
    for row in snapshot.datasets:
        rate = f"{size(row.rate_bytes_per_s)}/s" if row.rate_bytes_per_s else "-"
        drawn.add_row(
            cell(row.dataset), cell(row.kind), cell(row.source), cell(row.destination), cell(_files(row)),
            cell(_bytes(row)), cell(_percent(row)), cell(rate), cell(duration(row.eta_s)), cell(row.lead), _state(row),
        )  # fmt: skip
    return drawn


def _narrow_status(snapshot: Snapshot, width: int) -> Table:
    """Three lines a dataset: itself, where it comes from, where it goes to."""
    drawn = table(["Dataset", ("Files", "right"), ("%", "right"), "Lead", "State"], [])
    others = [[_amounts(row), cell(_percent(row)), cell(row.lead), _progress(row)] for row in snapshot.datasets]
    widths = [[max(map(len, one.plain.split("\n"))) for one in each] for each in others]
    taken = sum(map(max, zip(*widths, strict=True)))
    room = max(20, width - taken - 15)  # what is between five columns, and beside them
    for row, rest in zip(snapshot.datasets, others, strict=True):
        lead = f"  {row.kind} "
        route = _folded(lead, row.source, room) + _folded(f"{'to':>{len(lead) - 1}} ", row.destination, room)
        where = Text("\n").join([cell(row.dataset), *(Text(line, style="dim") for line in route)])
        drawn.add_row(where, *rest)
    return drawn


def _amounts(row: Row) -> Text:
    return Text("\n").join(
        [cell(_files(row)), cell(size(row.bytes["done"]), "dim"), cell(f"of {size(row.bytes['total'])}", "dim")]
    )


def _progress(row: Row) -> Text:
    lines = [_state(row)]
    if row.rate_bytes_per_s:
        lines.append(cell(f"{size(row.rate_bytes_per_s)}/s", "dim"))
    if row.eta_s is not None:
        lines.append(cell(f"ETA {duration(row.eta_s)}", "dim"))
    return Text("\n").join(lines)


def _folded(lead: str, text: str, room: int) -> list[str]:
    """The text in lines of at most `room` columns, the first after `lead`, the others set in as far."""
    shown, step = cell(text).plain, max(8, room - len(lead))
    pieces = [shown[start : start + step] for start in range(0, len(shown), step)]
    return [(lead if number == 0 else " " * len(lead)) + piece for number, piece in enumerate(pieces)]


def remarks(snapshot: Snapshot) -> list[Text]:
    """What the table cannot hold: what is held, missing and excluded, the last error, refused manifests."""
    lines = []
    for row in snapshot.datasets:
        counts = [f"{row.files[state]} {state}" for state in ("held", "missing", "excluded") if row.files[state]]
        if counts or row.last_error:
            said = ", ".join(counts) + (": " if counts and row.last_error else "") + (row.last_error or "")
            lines.append(cell(f"{row.manifest} ({row.kind}): {said}"))
    lines += [cell(f"refused {one['file']}: {one['problem']}", "red") for one in snapshot.refused]
    if any(row.percent_of == "files" for row in snapshot.datasets):
        lines.append(
            cell(
                "% is of bytes proven; of files where bytes are not known before the work is done"
                " (chops, missing files).",
                "dim",
            )
        )
    return lines
