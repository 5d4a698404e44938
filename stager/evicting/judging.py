"""What the database says of copies that are to go: which must stay, and where the others of each are.

Asked twice: to choose, and again within the transaction that writes the tombstones. No disk is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.parts import Location
from manifests.patterns import Pattern
from stager.config import Config
from stager.evicting.candidates import CURRENT, Wishes, wishes
from stager.evicting.choosing import Slot
from stager.evicting.reasons import Refusal, Why
from stager.models import BundleState, EvictionState, TriggerState, decode_path

AT_EACH = 4  # others of one digest that are looked at, of each host
COPIES_AT_ONCE = 500  # of slots that are judged together, unless one alone has more
OPEN = "('waiting', 'running', 'held')"  # states of items that still need their source, and their destination
WORKED_ON = "('active', 'held', 'planning')"  # intents of revisions whose items do
_TAKEN_OVER = f"('{TriggerState.ACKED}', '{TriggerState.FAILED}', '{TriggerState.DELIVERED}')"


class Candidate(NamedTuple):
    """A copy that is to go, as the database knows it."""

    id: int
    path: str
    size: int
    digest: str
    mtime_ns: int | None
    proven_at: float | None


class Other(NamedTuple):
    """A copy of the same bytes at another host; `bundle` and its digest are of the one that it is a member of."""

    id: int
    host: str
    path: str
    size: int
    digest: str
    bundle: str | None
    bundle_digest: str | None

    @property
    def place(self) -> str:
        return f"{self.host}:{self.path}"


Others = Mapping[str, Sequence[Other]]  # by digest


@dataclass(frozen=True, slots=True)
class Judged:
    """A slot whose copies may go as far as the database knows, or why they may not."""

    slot: Slot
    copies: tuple[Candidate, ...]
    others: Others
    refusal: Refusal | None = None


@dataclass(slots=True)
class Judge:
    """Judges copies at one host. `least`: how many others must be proven; `transient`: whether only copies that are
    transient may go."""

    config: Config
    host: str
    least: int
    transient: bool = False
    wishes: dict[int, Wishes] = field(default_factory=dict)  # of revisions, as they were read before

    def judge(self, connection: Connection, slots: Sequence[Slot]) -> list[Judged]:
        """Every slot with its copies, and with what keeps them."""
        ids = [copy for slot in slots for copy in slot.copies]
        found = _candidates(connection, ids)
        others = other_copies(connection, self.config, self.host, {copy.digest for copy in found.values()})
        keeps = self._keeps(connection, ids)
        listed = {row.id for row in _rows(connection, "SELECT id FROM copies WHERE id IN :ids", ids)}
        keeps |= {copy: Refusal(Why.GONE) for copy in ids if copy not in listed}
        return [self._judged(slot, found, others, keeps) for slot in slots]

    def _judged(
        self, slot: Slot, found: Mapping[int, Candidate], others: Others, keeps: Mapping[int, Refusal]
    ) -> Judged:
        copies = tuple(found[copy] for copy in slot.copies if copy in found)
        mine = {copy.digest: [one for one in others.get(copy.digest, ()) if one.size == copy.size] for copy in copies}
        refusal = next((keeps[copy] for copy in slot.copies if copy in keeps), None)
        if refusal is None and len(copies) < len(slot.copies):
            refusal = Refusal(Why.TROUBLED)
        if refusal is None and slot.partly:
            refusal = Refusal(Why.PIECES)
        if refusal is None:
            refusal = next((why for copy in copies if (why := self._too_few(mine[copy.digest]))), None)
        return Judged(slot, copies, mine, refusal)

    def _too_few(self, others: Sequence[Other]) -> Refusal | None:
        hosts = {one.host for one in others}
        if len(hosts) < self.least:
            return Refusal(Why.FEW, f"at {', '.join(sorted(hosts)) or 'no other host'}; {self.least} are needed")
        if not any(self.config.hosts[host].kind == "store" for host in hosts):
            return Refusal(Why.NO_STORE, f"only at {', '.join(sorted(hosts))}")
        return None

    def _keeps(self, connection: Connection, ids: Collection[int]) -> dict[int, Refusal]:
        """What keeps each copy, by its id; the gravest of it last, so that it stays."""
        kept: dict[int, Refusal] = {}
        for said in (
            self._wished(connection, ids),
            _untold(connection, ids),
            _awaited(connection, ids),
            _needed(connection, self.host, ids),
            self._shared(connection, ids),
            _leaving(connection, ids),
        ):
            kept.update(said)
        return kept

    def _wished(self, connection: Connection, ids: Collection[int]) -> Iterator[tuple[int, Refusal]]:
        """Copies that a manifest pins; with `transient`, those too that are not transient."""
        said = wishes(connection, self.host, self.wishes)
        brought: dict[int, set[int]] = {copy: set() for copy in ids}
        for copy, manifest in _rows(connection, _BROUGHT, ids):
            brought[copy].add(manifest)
        for copy, manifests in brought.items():
            known = [said[manifest] for manifest in manifests if manifest in said]
            if any(one.pin for one in known):
                yield copy, Refusal(Why.PINNED)
            elif self.transient and not (known and all(one.transient for one in known)):
                yield copy, Refusal(Why.KEPT)

    def _shared(self, connection: Connection, ids: Collection[int]) -> Iterator[tuple[int, Refusal]]:
        """Copies whose files are copies of another host's too, because its root is the same: they would go from there
        with all that speaks for them there unheard."""
        for alias in _aliases(connection, self.host):
            if alias not in self.config.hosts:  # a name that it had before
                continue
            for row in _rows(connection, _SHARED, ids, alias=alias):
                yield row.id, Refusal(Why.SHARED, f"at {alias}")


def lots(slots: Iterable[Slot]) -> Iterator[list[Slot]]:
    """The slots in lots that are judged together."""
    lot: list[Slot] = []
    count = 0
    for slot in slots:
        if lot and count + len(slot.copies) > COPIES_AT_ONCE:
            yield lot
            lot, count = [], 0
        lot.append(slot)
        count += len(slot.copies)
    if lot:
        yield lot


def _rows(connection: Connection, query: str, ids: Collection[int], **values: Any) -> list[Any]:
    """The rows of a query about copies, whose ids it has as `:ids`."""
    named = sa.text(query).bindparams(sa.bindparam("ids", expanding=True))
    listed = list(ids)
    return [
        row
        for start in range(0, len(listed), COPIES_AT_ONCE)
        for row in connection.execute(named, {"ids": listed[start : start + COPIES_AT_ONCE], **values})
    ]


def _candidates(connection: Connection, ids: Collection[int]) -> dict[int, Candidate]:
    """The copies of these ids that no look found trouble with."""
    query = """
        SELECT id, path, size, digest, mtime_ns, proven_at FROM copies
        WHERE id IN :ids AND trouble IS NULL AND bundle_id IS NULL"""
    rows = _rows(connection, query, ids)
    return {row.id: Candidate(row.id, decode_path(row.path), *row[2:]) for row in rows}


# A copy that another eviction has written a tombstone of, and not moved yet, counts as gone.
CLAIMED = f"""EXISTS (SELECT 1 FROM evictions e WHERE e.host = {{0}}.host AND e.path = {{0}}.path
    AND e.state = '{EvictionState.QUARANTINED}' AND e.evicted_at IS NULL)"""

_OTHERS = f"""
    SELECT id, host, path, size, digest, bundle, bundle_digest FROM (
        SELECT o.id, o.host, o.path, o.size, o.digest, b.path AS bundle, b.digest AS bundle_digest,
               row_number() OVER (PARTITION BY o.digest, o.host ORDER BY o.id) AS turn
        FROM copies o LEFT JOIN bundles b ON b.id = o.bundle_id
        WHERE o.digest IN :digests AND o.host IN :hosts AND o.trouble IS NULL
          AND (o.bundle_id IS NULL OR (b.state = '{BundleState.STORED}' AND b.trouble IS NULL))
          AND NOT {CLAIMED.format("o")}) AS found
    WHERE turn <= {AT_EACH} ORDER BY id"""


def other_copies(connection: Connection, config: Config, host: str, digests: Collection[str]) -> dict[str, list[Other]]:
    """The copies with these digests at other hosts of the configuration: those without trouble, and on no way out."""
    elsewhere = _elsewhere(connection, config, host)
    found: dict[str, list[Other]] = {}
    listed = sorted(digests)
    query = sa.text(_OTHERS).bindparams(
        sa.bindparam("digests", expanding=True), sa.bindparam("hosts", elsewhere, expanding=True)
    )
    for start in range(0, len(listed) if elsewhere else 0, COPIES_AT_ONCE):
        for row in connection.execute(query, {"digests": listed[start : start + COPIES_AT_ONCE]}):
            bundle = None if row.bundle is None else decode_path(row.bundle)
            path = decode_path(row.path)
            other = Other(row.id, row.host, path, row.size, row.digest, bundle, row.bundle_digest)
            found.setdefault(row.digest, []).append(other)
    return found


def _elsewhere(connection: Connection, config: Config, host: str) -> list[str]:
    """The other hosts whose root is not this one's under another name; of several with one root, only the first."""
    rows = connection.execute(sa.text("SELECT name, marker FROM hosts WHERE marker IS NOT NULL"))
    markers = {row.name: row.marker for row in rows}
    seen = {markers.get(host)}
    others = []
    for name in sorted(set(config.hosts) - {host}):
        marker = markers.get(name)
        if marker is None or marker not in seen:
            others.append(name)
        seen.add(marker)
    return others


def _aliases(connection: Connection, host: str) -> list[str]:
    """The other names that this host's root has."""
    query = sa.text("""
        SELECT name FROM hosts
        WHERE name <> :host AND marker = (SELECT marker FROM hosts WHERE name = :host) ORDER BY name""")
    return list(connection.scalars(query, {"host": host}))


# --------------------------------------------------------------------------------------- what keeps them

_SHARED = "SELECT c.id FROM copies c JOIN copies o ON o.host = :alias AND o.path = c.path WHERE c.id IN :ids"

# Manifests whose items the copies are, or are pieces of.
_BROUGHT = f"""
    SELECT c.id, i.manifest_id FROM copies c
    JOIN manifests m ON m.destination_host = c.host AND m.intent IN {CURRENT}
    JOIN items i ON i.manifest_id = m.id AND i.destination = c.path WHERE c.id IN :ids
    UNION
    SELECT c.id, i.manifest_id FROM copies c JOIN items i ON i.id = c.piece_of WHERE c.id IN :ids"""

_AWAITED = f"""
    SELECT c.id, m.name FROM copies c
    JOIN manifests m ON m.destination_host = c.host AND m.intent IN {WORKED_ON}
    JOIN items i ON i.manifest_id = m.id AND i.destination = c.path AND i.state IN {OPEN} WHERE c.id IN :ids
    UNION
    SELECT c.id, m.name FROM copies c JOIN items i ON i.id = c.piece_of AND i.state IN {OPEN}
    JOIN manifests m ON m.id = i.manifest_id AND m.intent IN {WORKED_ON} WHERE c.id IN :ids"""


def _awaited(connection: Connection, ids: Collection[int]) -> Iterator[tuple[int, Refusal]]:
    for copy, manifest in _rows(connection, _AWAITED, ids):
        yield copy, Refusal(Why.AWAITED, f"manifest {manifest}")


# Manifests that have nothing open are passed over by their tallies: no index leads from a source to its items.
_NEEDED = f"""
    SELECT i.source, m.name FROM manifests m JOIN items i ON i.manifest_id = m.id
    WHERE m.source_host = :host AND m.intent IN {WORKED_ON} AND i.state IN {OPEN} AND i.source IN :paths
      AND EXISTS (SELECT 1 FROM tallies t WHERE t.manifest_id = m.id AND t.items > 0
                  AND t.state NOT IN ('done', 'excluded'))"""


def _needed(connection: Connection, host: str, ids: Collection[int]) -> Iterator[tuple[int, Refusal]]:
    paths = {row.path: row.id for row in _rows(connection, "SELECT id, path FROM copies WHERE id IN :ids", ids)}
    query = sa.text(_NEEDED).bindparams(sa.bindparam("paths", expanding=True))
    listed = sorted(paths)
    for name in (host, *_aliases(connection, host)):
        yield from _listed_now(connection, name, paths)
        for start in range(0, len(listed), COPIES_AT_ONCE):
            values = {"host": name, "paths": listed[start : start + COPIES_AT_ONCE]}
            for source, manifest in connection.execute(query, values):
                yield paths[source], Refusal(Why.NEEDED, f"manifest {manifest}")


def _listed_now(connection: Connection, host: str, paths: Mapping[str, int]) -> Iterator[tuple[int, Refusal]]:
    """Copies that a revision may mean whose source is being listed just now: its items are written a moment after."""
    query = sa.text("SELECT name, source FROM manifests WHERE source_host = :host AND intent = 'planning'")
    for row in connection.execute(query, {"host": host}).all():
        source = Pattern(Location.parse(row.source).path)
        for path, copy in paths.items():
            if source.matches(decode_path(path)):
                yield copy, Refusal(Why.NEEDED, f"manifest {row.name}, which is being submitted")


# Groups of revisions that are worked on and that have no trigger, or one that no pipeline took over.
_UNTOLD = f"""
    SELECT p.id, g.label FROM (
        SELECT c.id, i.group_id FROM copies c
        JOIN manifests m ON m.destination_host = c.host AND m.intent IN ('active', 'held')
        JOIN items i ON i.manifest_id = m.id AND i.destination = c.path
        WHERE c.id IN :ids AND i.group_id IS NOT NULL AND i.state <> 'excluded'
        UNION
        SELECT c.id, i.group_id FROM copies c JOIN items i ON i.id = c.piece_of
        WHERE c.id IN :ids AND i.group_id IS NOT NULL AND i.state <> 'excluded') AS p
    JOIN groups g ON g.id = p.group_id
    JOIN manifests m ON m.id = g.manifest_id AND m.intent IN ('active', 'held')
    WHERE EXISTS (SELECT 1 FROM triggers t WHERE t.group_id = g.id AND t.state NOT IN {_TAKEN_OVER})
       OR NOT EXISTS (SELECT 1 FROM triggers t WHERE t.group_id = g.id OR (
            t.dataset = m.dataset AND t.revision = m.revision AND t.group_label = g.label))"""


def _untold(connection: Connection, ids: Collection[int]) -> Iterator[tuple[int, Refusal]]:
    for copy, label in _rows(connection, _UNTOLD, ids):
        yield copy, Refusal(Why.UNTOLD, f"group {label or 'of the whole dataset'}")


def _leaving(connection: Connection, ids: Collection[int]) -> Iterator[tuple[int, Refusal]]:
    query = f"SELECT c.id FROM copies c WHERE c.id IN :ids AND {CLAIMED.format('c')}"
    for row in _rows(connection, query, ids):
        yield row.id, Refusal(Why.LEAVING)


def still_wanted(connection: Connection, host: str, ids: Collection[int]) -> bool:
    """Whether an item that was not there before needs one of these copies now, or is to bring one anew."""
    return any(True for _ in _needed(connection, host, ids)) or any(True for _ in _awaited(connection, ids))
