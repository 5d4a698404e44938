"""Recalls for people: how many there are of each store, and what keeps those that do not come.

Nothing heavy is imported, so that `stager status` may ask: what is given is a query of the database's own driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from manifests.errors import shown
from stager.counts import counted
from stager.durations import duration

MOST_NAMED = 3  # files in trouble that are told of, for each store
MOST_TEXT = 500  # characters of a path or of a reason

Ask = Callable[[str], Sequence[Any]]  # the rows of a query


@dataclass(frozen=True, slots=True)
class OpenRecall:
    """The recall of one file of a store that is under way. Seconds: since it is wanted, since the store was last asked,
    and until something is done about it. `path` is written as the database writes paths."""

    store: str
    path: str
    state: str
    volume: str | None
    position: int | None
    bytes: int | None
    asks: int
    wanted_s: float
    asked_s: float | None
    next_s: float
    reason: str | None

    @property
    def sentence(self) -> str:
        """How it stands, fit for people."""
        volume = f" (volume {shown(self.volume)})" if self.volume else ""
        said = [f"{self.store}:{shown(self.path, MOST_TEXT)}{volume} wanted for {duration(self.wanted_s)}"]
        if self.asks:
            said.append(f"asked {counted(self.asks, 'time')}")
        said.append(self._standing)
        return ", ".join(said)

    @property
    def _standing(self) -> str:
        why = f": {shown(self.reason, MOST_TEXT)}" if self.reason else ""
        if self.state == "refused":
            return f"refused, asked again in {duration(max(0.0, self.next_s))}{why}"
        return {"wanted": f"to be asked for{why}", "asked": f"still not online{why}"}.get(self.state, "online")


def trouble(state: str, asks: int, reason: str | None) -> str:
    """What keeps a recall, for those who know already what it is of; nothing where it is just on its way."""
    why = f": {shown(reason, MOST_TEXT)}" if reason else ""
    times = f"asked for {counted(asks, 'time')}"
    if state == "refused":
        return f"the store refused it, {times}{why}"
    if state == "asked" and (asks > 1 or reason):
        return f"still not online, {times}{why}"
    return shown(reason, MOST_TEXT) if state == "wanted" and reason else ""


@dataclass(frozen=True, slots=True)
class StoreRecalls:
    """The recalls of one store by state, since when the oldest of those that did not come is wanted, and some of those
    that are in trouble, as sentences."""

    store: str
    asked: int = 0
    wanted: int = 0
    refused: int = 0
    online: int = 0
    oldest_s: float | None = None
    troubles: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        counts = {state: getattr(self, state) for state in ("asked", "wanted", "refused", "online")}
        told = [f"{count} {state}" for state, count in counts.items() if count]
        oldest = [] if self.oldest_s is None else [f"the oldest for {duration(self.oldest_s)}"]
        return f"{self.store}: recalls: {', '.join(told + oldest)}"


def snapshot(ask: Ask, now: str) -> list[StoreRecalls]:
    """How the recalls of each store stand; `now` is SQL for the database's time."""
    counts = ask(f"""
        SELECT host, state, count(*), {now} - min(wanted_at) FROM recalls WHERE not_before IS NOT NULL
        GROUP BY host, state ORDER BY host, state""")
    stores: dict[str, dict[str, Any]] = {}
    for store, state, count, oldest_s in counts:
        told = stores.setdefault(store, {"oldest_s": None})
        told[state] = int(count)
        if state != "online":
            told["oldest_s"] = max(told["oldest_s"] or 0.0, float(oldest_s))
    troubles = _troubles(ask, now) if stores else {}
    return [StoreRecalls(store, **told, troubles=troubles.get(store, [])) for store, told in stores.items()]


def lines(stores: Sequence[StoreRecalls]) -> list[str]:
    """How recalls stand in sentences, those of each store followed by those of its files that are in trouble."""
    return [line for one in stores for line in (one.sentence, *one.troubles)]


def of_manifest(ask: Ask, now: str, manifest_id: int, most: int = 20) -> list[OpenRecall]:
    """The recalls that items of a manifest wait for, those in trouble first."""
    waited = f"""
        id IN (SELECT recall_id FROM items WHERE manifest_id = {int(manifest_id)} AND recall_id IS NOT NULL
               AND state IN ('waiting', 'running'))"""
    worst = "CASE state WHEN 'refused' THEN 0 WHEN 'asked' THEN 1 WHEN 'wanted' THEN 2 ELSE 3 END, asks DESC, id"
    rows = ask(f"SELECT {_columns(now)} FROM recalls WHERE {waited} ORDER BY {worst} LIMIT {int(most)}")
    return [OpenRecall(*row) for row in rows]


def said(now: str) -> str:
    """SQL for what is said of a recall. What kept one from being asked for counts until it is thought of again: then it
    may be its turn alone that it waits for."""
    return f"CASE WHEN state = 'wanted' AND not_before <= {now} THEN NULL ELSE reason END"


def _columns(now: str) -> str:
    times = f"{now} - wanted_at, {now} - asked_at, not_before - {now}"
    return f"host, path, state, volume, position, bytes, asks, {times}, {said(now)}"


def _troubles(ask: Ask, now: str) -> dict[str, list[str]]:
    """By store, the files that were refused, that did not come in time, or that the store says nothing of."""
    told = f"(state <> 'online' AND {said(now)} IS NOT NULL)"
    trouble = f"(state = 'refused' OR (state = 'asked' AND asks > 1) OR {told})"
    found: dict[str, list[str]] = {}
    rows = ask(f"""
        SELECT {_columns(now)} FROM (
            SELECT *, row_number() OVER (PARTITION BY host ORDER BY asks DESC, id) AS place FROM recalls
            WHERE not_before IS NOT NULL AND {trouble}) AS troubled
        WHERE place <= {MOST_NAMED} ORDER BY host, place""")
    for row in rows:
        found.setdefault(row[0], []).append(OpenRecall(*row).sentence)
    return found
