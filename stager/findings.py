"""What is wrong with the headers of what landed, told by visit and fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from stager.database import Database
from stager.models import decode_path


@dataclass(frozen=True, slots=True)
class Finding:
    """An image with something wrong in its header, in a sentence."""

    dataset: str
    location: str
    ids: dict[str, Any]
    problem: str


def findings(database: Database, dataset: str | None = None) -> list[Finding]:
    """All images whose headers have something wrong in them."""
    query = sa.text("""
        SELECT dataset, host, path, ids, problem FROM images
        WHERE problem IS NOT NULL AND (dataset = :dataset OR :every) ORDER BY dataset, host, path""")
    with database.read() as connection:
        rows = connection.execute(query, {"dataset": dataset or "", "every": dataset is None})
        found = [(row.dataset, f"{row.host}:{decode_path(row.path)}", row.ids, row.problem) for row in rows]
    return [Finding(name, location, json.loads(ids), problem) for name, location, ids, problem in found]


MOST_VALUES = 4  # of one id that are written out; more are left unsaid


def summaries(found: Sequence[Finding]) -> list[str]:
    """A sentence for all images of a visit at a host that have the same thing wrong: a bad sensor is one, not 32.

    An id is said with its values where they are few.
    """
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for one in found:
        host = one.location.partition(":")[0]
        groups.setdefault((one.dataset, host, str(one.ids.get("visit")), one.problem), []).append(one)
    return [_summary(*key, alike) for key, alike in groups.items()]


def _summary(dataset: str, host: str, visit: str, problem: str, alike: Sequence[Finding]) -> str:
    if len(alike) == 1:
        return f"{alike[0].location}: {problem}"
    names = dict.fromkeys(name for one in alike for name in one.ids if name != "visit")
    values = {name: sorted({str(one.ids[name]) for one in alike if name in one.ids}) for name in names}
    said = [f"{name} {' and '.join(few)}" for name, few in values.items() if len(few) <= MOST_VALUES]
    return f"{dataset} at {host}, {', '.join([f'visit {visit}', *said])}: {len(alike)} images: {problem}"
