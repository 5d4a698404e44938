"""How long a restore is likely to take, by what is remembered: of the route, and of the store's recalls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from stager.counts import counted
from stager.database import Database
from stager.drawing import size
from stager.durations import duration

MOST_TRIES = 2000  # past tries of a route that its pace is taken from
MOST_MANIFESTS = 20  # of a route, the newest, whose tries are looked at
MOST_RECALLS = 2000
ENOUGH_BYTES = 10**8  # that past tries must have brought, for their pace to go before what the route told last


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, None where nothing is known, and what that rests on in words."""

    seconds: float | None
    rests_on: str

    def __str__(self) -> str:
        said = "not known yet" if self.seconds is None else duration(self.seconds)
        return f"{said} ({self.rests_on})"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pace:
    """What was done in how many seconds: bytes or files."""

    amount: float
    seconds: float

    @property
    def per_s(self) -> float:
        return self.amount / max(0.001, self.seconds)


def transfer(database: Database, source: str, destination: str, nbytes: int) -> Estimate:
    """How long so many bytes will take on a route: by its last tries, or by what it told last."""
    route = f"{source} > {destination}"
    if nbytes == 0:
        return Estimate(0.0, f"nothing is to come by {route}")
    past = of_tries(database, source, destination)
    told, limit = _told(database, source, destination)
    if past and (past.amount >= ENOUGH_BYTES or told is None):
        rate, why = past.per_s, f"{size(past.amount)} that {route} brought last came at {size(past.per_s)}/s"
    elif told is not None:
        rate, why = told, f"{route} last did {size(told)}/s"
    else:
        return Estimate(None, f"nothing was brought by {route} yet")
    if limit is not None and limit < rate:
        rate, why = float(limit), f"{route} is limited to {size(limit)}/s"
    return Estimate(nbytes / max(1.0, rate), why)


def recalls(database: Database, store: str, files: int) -> Estimate:
    """How long a store will take to bring so many files from tape, by its past recalls."""
    if files == 0:
        return Estimate(0.0, f"{store} has all of it online")
    past = of_recalls(database, store)
    if past is None:
        return Estimate(None, f"no recall of {store} has ended yet")
    seconds = files / past.per_s
    last = counted(round(past.amount), "recall")
    return Estimate(seconds, f"{store} took {duration(past.seconds)} for its last {last}")


def together(estimates: Iterable[Estimate]) -> Estimate:
    """Of things that go on side by side: what takes longest, unknown where one of them is."""
    every = [one for one in estimates if one.seconds != 0.0]
    if not every:
        return Estimate(0.0, "nothing is to come")
    unknown = [one for one in every if one.seconds is None]
    seconds = None if unknown else max(one.seconds or 0.0 for one in every)
    return Estimate(seconds, "; ".join(dict.fromkeys(one.rests_on for one in unknown or every)))


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of time in which at least one of the spans (begin, end) was under way."""
    total, upto = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, upto))
        upto = max(upto, end)
    return total


def of_tries(database: Database, source: str, destination: str) -> Pace | None:
    """What the last tries of a route brought, and for how long any of them was under way."""
    manifests = sa.text(f"""
        SELECT id FROM manifests WHERE source_host = :source AND destination_host = :destination
        ORDER BY id DESC LIMIT {MOST_MANIFESTS}""")
    tries = sa.text(f"""
        SELECT bytes, ended_at - seconds, ended_at FROM attempts
        WHERE manifest_id = :id AND outcome = 'done' AND seconds IS NOT NULL
        ORDER BY ended_at DESC LIMIT {MOST_TRIES}""")
    with database.read() as connection:
        ids = list(connection.scalars(manifests, {"source": source, "destination": destination}))
        rows = [row for number in ids for row in connection.execute(tries, {"id": number})]
    last = sorted(rows, key=lambda row: row[2], reverse=True)[:MOST_TRIES]
    brought = sum(row[0] for row in last)
    return Pace(brought, covered([(row[1], row[2]) for row in last])) if brought else None


def of_recalls(database: Database, store: str) -> Pace | None:
    """How many of the last recalls of a store ended, and for how long any of them was under way."""
    query = sa.text(f"""
        SELECT COALESCE(asked_at, wanted_at), online_at FROM recalls
        WHERE host = :host AND online_at IS NOT NULL AND COALESCE(asked_at, wanted_at) IS NOT NULL
        ORDER BY online_at DESC LIMIT {MOST_RECALLS}""")
    with database.read() as connection:
        rows = connection.execute(query, {"host": store}).all()
    return Pace(len(rows), covered([(row[0], row[1]) for row in rows])) if rows else None


def _told(database: Database, source: str, destination: str) -> tuple[float | None, int | None]:
    """What a route told of itself last: bytes a second, and its limit."""
    query = sa.text("""
        SELECT rate_bytes_per_s, bytes_per_s FROM routes WHERE source = :source AND destination = :destination""")
    with database.read() as connection:
        row = connection.execute(query, {"source": source, "destination": destination}).first()
    return (row[0], row[1]) if row else (None, None)
