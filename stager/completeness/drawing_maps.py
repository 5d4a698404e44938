"""Focal planes as maps of a terminal. Nothing here asks the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from manifests.maps import Grid, MapRule, Value
from stager.completeness.focal_plane_maps import Cell, FocalPlane, State
from stager.counts import counted
from stager.drawing import cell

if TYPE_CHECKING:
    from stager.completeness.mapping import Maps, VisitMap

WIDE = 2  # columns of a cell: a sign, and room for a mark
GAP = 2  # columns between blocks, an even number, so that a staggered row can stand by half a block
MOST_NAMED = 8  # visits that a line names

STYLES = {
    State.WHOLE: "green",
    State.PARTIAL: "cyan",
    State.FOUND: "blue",
    State.MISSING: "bold red",
    State.HELD: "bold red",
    State.EXCLUDED: "dim",
}
WORDS = {
    State.WHOLE: "whole and proven",
    State.PARTIAL: "proven in part, by tenths",
    State.FOUND: "not proven yet",
    State.MISSING: "missing",
    State.HELD: "held",
    State.EXCLUDED: "excluded",
}


@dataclass(frozen=True, slots=True)
class Signs:
    """The characters of a map; what is partly proven is a digit."""

    whole: str
    found: str
    missing: str
    held: str = "H"
    excluded: str = "x"
    finding: str = "!"

    def of(self, one: Cell) -> str:
        """The sign of a cell, WIDE columns: how it stands, and a mark where something was found in its files."""
        sign = str(one.tenths) if one.state is State.PARTIAL else getattr(self, one.state)
        return sign + (self.finding if one.findings else " ")


FINE = Signs("■", "□", "·")
PLAIN = Signs("#", "o", ".")


def signs(encoding: str | None) -> Signs:
    """Those that an output of this encoding can show."""
    try:
        (FINE.whole + FINE.found + FINE.missing).encode(encoding or "ascii")
    except (UnicodeError, LookupError):
        return PLAIN
    return FINE


# ----------------------------------------------------------------------------------- focal planes


def maps(shown: Maps, drawn_with: Signs, width: int) -> Iterator[RenderableType]:
    """Every map with its title, what its signs mean and how many cells have each; then the visits without a map."""
    for one in shown.maps:
        yield cell(_title(shown, one), "bold")
        yield focal_plane(one.plane, drawn_with)
        yield legend(one.plane, drawn_with, width)
        yield from _beneath(shown, one)
        yield Text("")
    if shown.absent:
        yield cell(f"nothing is there of {visits_named(shown.absent)}", "red")
    if shown.more:
        yield cell(f"not whole either: {visits_named(shown.more)}; `--visit V` draws one")
    if shown.whole and (shown.absent or any(one.visit for one in shown.maps)) and shown.visits > 1:
        yield cell(f"{shown.whole} of {shown.visits} visits are whole", "dim")


def _title(shown: Maps, one: VisitMap) -> str:
    plane = one.plane
    proven = f"{plane.total('done')} of {counted(plane.expected, 'file')} proven"
    where = f"{shown.dataset} at {shown.host}"
    if one.visit is not None:
        return f"{where}, visit {one.visit}: {proven}"
    whole = shown.whole == shown.visits
    what = f"all {shown.visits} visits together{', all whole' if whole else ''}" if shown.visits > 1 else "all files"
    return f"{where}, {what}: {proven}"


def _beneath(shown: Maps, one: VisitMap) -> Iterator[Text]:
    elsewhere = one.plane.elsewhere
    for standing, files in sorted(elsewhere.files.items()):
        yield cell(f"{counted(files, 'file is', 'files are')} {standing} and of no place on the map", "dim")
    if elsewhere.findings:
        yield cell("there are findings about the whole focal plane; `stager registry check` tells them", "yellow")
    for state, files, reason in one.reasons:
        yield cell(f"{state}, {counted(files, 'file')}: {reason}")


def visits_named(some: Sequence[str]) -> str:
    """`visit 7`, `visits 7, 8 and 12 more`."""
    more = f" and {len(some) - MOST_NAMED} more" if len(some) > MOST_NAMED else ""
    if list(some) == ["no visit"]:
        return "no visit"
    return f"visit{'s' if len(some) > 1 else ''} {', '.join(some[:MOST_NAMED])}{more}"


def focal_plane(plane: FocalPlane, drawn_with: Signs) -> Text:
    """The map: a sign for each cell; blocks under their names, rows between the numbers of their ends."""
    canvas = _Canvas()
    _draw(canvas, plane, drawn_with, plane.rule.grids, (), 0, 0)
    return canvas.text()


def _draw(
    canvas: _Canvas,
    plane: FocalPlane,
    drawn_with: Signs,
    grids: Sequence[Grid],
    above: tuple[Value, ...],
    top: int,
    left: int,
) -> None:
    """Draw a grid with its upper left corner there: cells, or blocks that are grids themselves."""
    grid, *inner = grids
    margin = _margin(plane.rule) if not above and not inner else 0
    width, height = _size(inner)
    for value, (row, half) in grid.places.items():
        y, x = top + row * (height + bool(inner)), left + margin + half * (width + (GAP if inner else 0)) // 2
        if inner:
            canvas.put(y, x, f"{cell(value).plain:^{width}.{width}}", "dim")
            _draw(canvas, plane, drawn_with, inner, (*above, value), y + 1, x)
        elif one := plane.cells.get((*above, value)):
            canvas.put(y, x, drawn_with.of(one), STYLES[one.state])
            if one.findings:
                canvas.put(y, x + 1, drawn_with.finding, "bold yellow")
    if margin:
        _name_ends(canvas, plane, grid, margin)


def _name_ends(canvas: _Canvas, plane: FocalPlane, grid: Grid, margin: int) -> None:
    """The first and the last value of each row of which there is something, at its ends."""
    for row, values in enumerate(grid.rows):
        there = [value for value in values if value is not None and (value,) in plane.cells]
        if there:
            canvas.put(row, 0, f"{cell(there[0]).plain:>{margin - 2}.{margin - 2}}", "dim")
            canvas.put(row, margin + grid.width * WIDE + 1, cell(there[-1]).plain[: margin - 2], "dim")


def _size(grids: Sequence[Grid]) -> tuple[int, int]:
    """Columns and lines of a block with these grids in it; of a cell where there are none."""
    if not grids:
        return WIDE, 1
    grid, *inner = grids
    width, height = _size(inner)
    return grid.width * (width + (GAP if inner else 0)), len(grid.rows) * (height + bool(inner))


def _margin(rule: MapRule) -> int:
    return 2 + min(8, max(len(str(value)) for value in rule.grids[-1].places))


def legend(plane: FocalPlane, drawn_with: Signs, width: int) -> Text:
    """What the signs on this map mean, with how many cells have each, in lines of at most `width` columns."""
    counts = plane.counts
    said = [
        Text.assemble((_sign(state, drawn_with), STYLES[state]), f" {counts[state]} {words}")
        for state, words in WORDS.items()
        if counts[state]
    ]
    if plane.findings:
        said.append(Text.assemble((drawn_with.finding, "bold yellow"), f" {plane.findings} with findings"))
    lines = [Text(f"{len(plane.cells)} {plane.rule.ids[-1]}s:")]
    for number, one in enumerate(said, 1):
        one.append("" if number == len(said) else ",")
        if len(lines[-1]) + 1 + len(one) > width:
            lines.append(Text(" "))
        lines[-1].append(" ").append_text(one)
    return Text("\n").join(lines)


def _sign(state: State, drawn_with: Signs) -> str:
    return "1-9" if state is State.PARTIAL else str(getattr(drawn_with, state))


class _Canvas:
    """Signs at rows and columns, in any order."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, tuple[str, str]]] = {}

    def put(self, row: int, column: int, text: str, style: str) -> None:
        for offset, sign in enumerate(text):
            self._rows.setdefault(row, {})[column + offset] = (sign, style)

    def text(self) -> Text:
        """All of it; what does not fit into the terminal is cut off and not folded."""
        lines = []
        for number in range(max(self._rows, default=-1) + 1):
            row = self._rows.get(number, {})
            last = max((column for column, (sign, _) in row.items() if sign != " "), default=-1)
            signs = (row.get(column, (" ", "")) for column in range(last + 1))
            runs = groupby(signs, lambda one: one[1])
            lines.append(Text.assemble(*(("".join(sign for sign, _ in run), style) for style, run in runs)))
        drawn = Text("\n").join(lines)
        drawn.no_wrap, drawn.overflow = True, "crop"
        return drawn
