"""Which columns a camera's registry.sqlite3 has, as the mappers of DC3b want it.

The registries of 2010 have one shape for all cameras: a table `raw` with the ids of a file, its time and its exposure
time, `raw_skyTile`, and `raw_visit` with what is the same in all files of a visit. So the columns follow from the
layout of raw files and from what a whole visit has; `[registry]` in a camera's file says what is otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from .errors import CameraError, shown
from .layouts import IdRule
from .part import Part

VISIT = "visit"
OWN_COLUMNS = ("id", "taiobs", "exptime")  # that every table raw has, whatever the case of their letters


class RegistryPart(Part):
    """[registry]"""

    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=30)] | None = None
    unique: Literal["table", "index"] = "index"


@dataclass(frozen=True)
class RegistryRule:
    """The columns of `raw` beside id, taiObs and expTime, each with its type; those that no two rows share; those of
    `raw_visit`, the visit first. `in_table`: uniqueness is a constraint of the tables, else an index beside them."""

    columns: Mapping[str, str]
    key: tuple[str, ...]
    of_visit: tuple[str, ...]
    in_table: bool = False


def registry_rule(
    part: RegistryPart | None, in_path: Sequence[str], sets: Mapping[str, object], ids: Mapping[str, IdRule]
) -> RegistryRule | None:
    """The rule for a camera whose raw files have these ids in their paths, and whose whole visits have these sets.

    None for a camera whose raw files have no visit, where nothing is said of a registry. Raises CameraError for
    columns that its raw files do not have.
    """
    if part is None and (VISIT not in in_path or ids[VISIT].kind != "int"):
        return None
    part = part or RegistryPart()
    names = part.columns or tuple(name for name in in_path if name not in OWN_COLUMNS)
    for name in names:
        if name not in in_path or name in OWN_COLUMNS or names.count(name) > 1:
            usable = ", ".join(one for one in in_path if one not in OWN_COLUMNS)
            raise CameraError(f'columns has "{shown(name, 40)}"; expected ids of raw files, each once: {usable}')
    if VISIT not in names:
        raise CameraError("columns lacks visit, by which the visits of a registry are told apart")
    if ids[VISIT].kind != "int":
        raise CameraError("a registry needs an id visit that is a whole number")
    return RegistryRule(
        columns={name: "int" if ids[name].kind == "int" else "text" for name in names},
        key=(VISIT, *(name for name in names if name in sets and name != VISIT)),
        of_visit=(VISIT, *(name for name in names if name not in sets and name != VISIT)),
        in_table=part.unique == "table",
    )
