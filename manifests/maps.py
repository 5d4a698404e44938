"""Where the parts of a focal plane lie, seen from the front, so that they can be drawn as a map.

A camera's file says it with `[[map]]`, once for each id, the outermost first. `rows` are the rows from the top
down, each the id's values from left to right with blanks between them, as people write them (`23` is raft
2,3); `.` is a place that is left empty. A row that is shorter than others stands in their middle, so that a
mosaic of staggered rows, or one with ears, needs no empty places:

    [[map]]                     # of a camera without rafts: one grid of CCDs
    id = "ccd"
    rows = ["0 1 2", "3 4 5 6 7", "8 9 10"]

    [[map]]                     # of one with rafts: a grid of rafts ...
    id = "raft"
    rows = ["01 02", "10 11 12"]

    [[map]]                     # ... each of which is a grid of sensors
    id = "sensor"
    rows = ["00 01", "10 11"]

What is not an id of the map (snap, channel, amplifier) lies within one place of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field

from .errors import CameraError, shown
from .layouts import IdRule, expectation
from .part import Part

HOLE = "."  # in a row: nothing lies here
MOST_PLACES = 10_000  # of a whole map; more than any focal plane has
MOST_LEVELS = 3

Value = int | str


class MapPart(Part):
    """[[map]]: a grid of the values of one id."""

    id: str
    rows: Annotated[tuple[str, ...], Field(min_length=1, max_length=200)]


@dataclass(frozen=True)
class Grid:
    """The values of one id, row by row from the top, None where a place is empty. Rows differ in length: the
    shorter ones stand in the middle."""

    id: str
    rows: tuple[tuple[Value | None, ...], ...]

    @cached_property
    def width(self) -> int:
        """Of its longest row, in places."""
        return max(map(len, self.rows))

    @cached_property
    def places(self) -> Mapping[Value, tuple[int, int]]:
        """Each value's row from the top, and how far it stands from the left in halves of a place."""
        return {
            value: (row, 2 * column + self.width - len(values))
            for row, values in enumerate(self.rows)
            for column, value in enumerate(values)
            if value is not None
        }


@dataclass(frozen=True)
class MapRule:
    """How a camera's focal plane is drawn: a grid, in each place of which lies a whole grid of the next."""

    grids: tuple[Grid, ...]  # the outermost first

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that tell one place from another, such as ("raft", "sensor")."""
        return tuple(grid.id for grid in self.grids)

    def places(self) -> Iterator[tuple[Value, ...]]:
        """The ids' values of every place, row by row of the outermost grid, then of the next."""
        return itertools.product(*(grid.places for grid in self.grids))

    def key(self, ids: Mapping[str, Value]) -> tuple[Value, ...] | None:
        """The place that something with these ids belongs to; None where an id is lacking or lies on no map."""
        key = []
        for grid in self.grids:
            value = ids.get(grid.id)
            if value is None or value not in grid.places:
                return None
            key.append(value)
        return tuple(key)


def map_rule(
    parts: Sequence[MapPart], ids: Mapping[str, IdRule], sets: Mapping[str, Sequence[Value]] | None = None
) -> MapRule | None:
    """The rule that the `[[map]]` tables of a camera's file give; None where there are none.

    `sets` are the values that a whole visit has of each id (`[expected]`): all of an id that is on the map must
    be there. Raises CameraError, one sentence with all that is wrong.
    """
    if not parts:
        return None
    wrong: list[str] = []
    grids = [_grid(part, ids, wrong) for part in parts]
    names = [part.id for part in parts]
    if len(parts) > MOST_LEVELS or len(set(names)) < len(names):
        wrong.append(
            f"[[map]] is given for {', '.join(map(_said, names))}; expected at most {MOST_LEVELS} ids, each once"
        )
    for grid in grids:
        lacking = [str(value) for value in (sets or {}).get(grid.id, ()) if value not in grid.places]
        if lacking and grid.id in ids:
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            wrong.append(f"[[map]] of {grid.id} lacks {' '.join(lacking[:5])}{more}, which [expected] has")
    count = 1
    for grid in grids:
        count *= max(1, len(grid.rows) * grid.width)
    if count > MOST_PLACES:
        wrong.append(f"the map would have {count} places; expected at most {MOST_PLACES}")
    if wrong:
        raise CameraError("; ".join(wrong))
    return MapRule(tuple(grids))


def _grid(part: MapPart, ids: Mapping[str, IdRule], wrong: list[str]) -> Grid:
    """The grid, what is wrong with it added to `wrong`."""
    rule = ids.get(part.id)
    if rule is None:
        wrong.append(f"[[map]] has the id {_said(part.id)}, which [ids] does not describe")
        return Grid(part.id, ((None,),))
    seen = set[Value]()
    rows = []
    for text in part.rows:
        row: list[Value | None] = []
        for word in text.split():
            value = None if word == HOLE else rule.own(word)
            if word != HOLE and value is None:
                wrong.append(f"[[map]] of {part.id} has {_said(word)}; expected {expectation(rule)}")
            elif value is not None and value in seen:
                wrong.append(f"[[map]] of {part.id} has {value} twice")
            if value is not None:
                seen.add(value)
            row.append(value)
        rows.append(tuple(row))
    if not seen and not wrong:
        wrong.append(f"[[map]] of {part.id} has no value in its rows")
    return Grid(part.id, tuple(rows))


def _said(text: str) -> str:
    return f'"{shown(text, 40)}"'
