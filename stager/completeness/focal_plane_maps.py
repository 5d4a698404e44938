"""How the parts of a focal plane stand, one cell for each place of the camera's map. Pure: data in, cells out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from manifests.maps import MapRule, Value

Place = tuple[Value, ...]
TENTHS = 10


class State(StrEnum):
    """What a cell says, the worst first."""

    HELD = "held"  # a person must look at some of its files
    MISSING = "missing"  # none of its files is at the source
    PARTIAL = "partial"  # some are proven, some not
    FOUND = "found"  # its files are there, and none is proven yet; some may be missing
    EXCLUDED = "excluded"  # the accept list leaves all of them out
    WHOLE = "whole"  # all of its files are proven


class Standing(NamedTuple):
    """So many files of one kind that belong together: where they belong, and how they stand (an item's state, or
    "missing"); `findings` of them have something worse than a note."""

    ids: Mapping[str, Any]
    standing: str
    files: int = 1
    findings: int = 0


@dataclass(slots=True)
class Cell:
    """The files of one place, by how they stand. What is excluded is not expected."""

    files: dict[str, int] = field(default_factory=dict)
    findings: int = 0

    def add(self, one: Standing) -> None:
        if one.files:
            self.files[one.standing] = self.files.get(one.standing, 0) + one.files
        self.findings += one.findings

    def as_dict(self) -> dict[str, Any]:
        """Plain data, `files` by how they stand."""
        return {"state": str(self.state), "expected": self.expected, "files": self.files, "findings": self.findings}

    @property
    def expected(self) -> int:
        return sum(self.files.values()) - self.files.get("excluded", 0)

    @property
    def proven(self) -> int:
        return self.files.get("done", 0)

    @property
    def tenths(self) -> int:
        """How much is proven, 1 to 9 where it is neither nothing nor all."""
        if self.proven in (0, self.expected):
            return TENTHS if self.proven else 0
        return min(TENTHS - 1, max(1, TENTHS * self.proven // self.expected))

    @property
    def state(self) -> State:
        if self.files.get("held"):
            return State.HELD
        if not self.expected:
            return State.EXCLUDED
        if self.proven == self.expected:
            return State.WHOLE
        if self.proven:
            return State.PARTIAL
        return State.MISSING if self.files.get("missing", 0) == self.expected else State.FOUND


@dataclass(frozen=True, slots=True)
class FocalPlane:
    """The cells of one visit, or of several together, by place; a place without files has none. `elsewhere` is what
    lies nowhere on the map: files with other ids, and findings about a whole focal plane."""

    rule: MapRule
    cells: Mapping[Place, Cell]
    elsewhere: Cell

    @property
    def counts(self) -> dict[State, int]:
        """How many cells there are of each state."""
        counts = dict.fromkeys(State, 0)
        for cell in self.cells.values():
            counts[cell.state] += 1
        return counts

    @property
    def findings(self) -> int:
        """How many cells have files with findings."""
        return sum(1 for cell in self.cells.values() if cell.findings)

    @property
    def files(self) -> int:
        """How many files there are, on the map or off it, expected or not."""
        return sum(sum(cell.files.values()) for cell in (*self.cells.values(), self.elsewhere))

    def total(self, standing: str) -> int:
        """How many files stand so, on the map or off it."""
        return sum(cell.files.get(standing, 0) for cell in (*self.cells.values(), self.elsewhere))

    @property
    def expected(self) -> int:
        """How many files are expected, on the map or off it."""
        return sum(cell.expected for cell in (*self.cells.values(), self.elsewhere))

    def as_dict(self) -> dict[str, Any]:
        """Plain data: a list of the cells in the order of the map, each with the ids of its place."""
        names = self.rule.ids
        cells = [
            {**dict(zip(names, place, strict=True)), **cell.as_dict()}
            for place in self.rule.places()
            if (cell := self.cells.get(place))
        ]
        return {"ids": list(names), "cells": cells, "elsewhere": self.elsewhere.as_dict()}


def focal_plane(rule: MapRule, standings: Iterable[Standing]) -> FocalPlane:
    """The cells that files come to; those of one place are put together, whatever visit, snap or amplifier they are."""
    cells: dict[Place, Cell] = {}
    elsewhere = Cell()
    for one in standings:
        place = rule.key(one.ids)
        (elsewhere if place is None else cells.setdefault(place, Cell())).add(one)
    return FocalPlane(rule, cells, elsewhere)
