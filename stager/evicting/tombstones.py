"""Tombstones: what is written of a copy that goes, before it is touched and after. The only writer of `evictions`, and
of what goes from `copies` and `images` with them, and comes back.

A tombstone is *on its way* while it has no `evicted_at`: its copy is listed still and counts as gone for everybody
else. It is *in quarantine* from `evicted_at` on, and *returning* once `purge_after` is taken from it again. Those on
their way and returning have `purge_after` NULL, by which who comes after a crash finds them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import items, registry
from stager.database import Database, again
from stager.evicting.choosing import Slot
from stager.evicting.judging import COPIES_AT_ONCE, Candidate, Judge, Judged, Other, still_wanted
from stager.models import Eviction, EvictionState, PathText, decode_path

table = Eviction.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type
FOLDER = ".stager/quarantine/evicted"
NAME_BYTES = 200  # of a file's own name, at the most, in the name that it has in quarantine

_OPEN = f"state = '{EvictionState.QUARANTINED}'"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is kept of one copy that goes: `kept` is all that is put back with it."""

    id: int
    host: str
    path: str
    size: int
    digest: str
    quarantine: str
    others: tuple[str, ...]
    kept: Mapping[str, Any]
    evicted_at: float | None
    purge_after: float | None

    @property
    def unit(self) -> int:
        """What goes and comes back together has the same."""
        return int(self.kept["unit"])

    @property
    def copy(self) -> int:
        """The id that its row among the copies had."""
        return int(self.kept["copy"])

    @property
    def mtime_ns(self) -> int | None:
        found: int | None = self.kept["mtime_ns"]
        return found


class Claim(NamedTuple):
    """A slot whose tombstones are written: nobody else counts on its copies any more."""

    judged: Judged
    tombstones: tuple[Tombstone, ...]


# --------------------------------------------------------------------------------------------- writing


@again
def claim(database: Database, judge: Judge, slots: Sequence[Slot]) -> tuple[list[Claim], list[Judged]]:
    """Write the tombstones of those of the slots that may still go; (these, the others with why not).

    Of two evictions that count on each other's copies at the same time only the first to come here finds enough: they
    take turns, by the copies of these digests, and each sees the other's tombstones.
    """
    with database.write() as connection:
        _take_turn(database, connection, [copy for slot in slots for copy in slot.copies])
        judged = judge.judge(connection, slots)
        claims = [
            Claim(one, tuple(_write(connection, judge.host, one.copies))) for one in judged if one.refusal is None
        ]
    return claims, [one for one in judged if one.refusal is not None]


def _take_turn(database: Database, connection: Connection, ids: Sequence[int]) -> None:
    if database.is_sqlite:  # which has one writer at a time anyway
        return
    query = sa.text("""
        SELECT id FROM copies WHERE digest IN (SELECT digest FROM copies WHERE id IN :ids) ORDER BY id FOR UPDATE""")
    connection.execute(query.bindparams(sa.bindparam("ids", list(ids), expanding=True)))


def _write(connection: Connection, host: str, copies: Sequence[Candidate]) -> Iterator[Tombstone]:
    """Tombstones of copies that go together: the number of the first is what they have in common."""
    unit = 0
    insert = sa.text(f"""
        INSERT INTO evictions (host, path, size, digest, state, quarantine, others, kept)
        VALUES (:host, :path, :size, :digest, '{EvictionState.QUARANTINED}', '', '[]', '') RETURNING id""")
    complete = sa.text("UPDATE evictions SET quarantine = :quarantine, kept = :kept WHERE id = :id")
    for copy in copies:
        values = {"host": host, "path": copy.path, "size": copy.size, "digest": copy.digest}
        number = int(connection.execute(insert.bindparams(_path("path")), values).scalar_one())
        unit = unit or number
        kept = _kept(connection, host, copy, unit)
        quarantine = f"{FOLDER}/{number}-{_short(copy.path.rpartition('/')[2])}"
        connection.execute(
            complete.bindparams(_path("quarantine")),
            {"quarantine": quarantine, "kept": json.dumps(kept), "id": number},
        )
        yield Tombstone(number, host, copy.path, copy.size, copy.digest, quarantine, (), kept, None, None)


def _kept(connection: Connection, host: str, copy: Candidate, unit: int) -> dict[str, Any]:
    """All that is put back with a copy, but for what has a column of its own."""
    row = connection.execute(sa.text("SELECT * FROM copies WHERE id = :id"), {"id": copy.id}).one()
    kept = {name: getattr(row, name) for name in ("mtime_ns", "proof", "proven_at", "piece_of")}
    return kept | {"unit": unit, "copy": copy.id, "image": _image(connection, host, copy.path)}


def _path(name: str) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=PathText())


def _short(name: str) -> str:
    """The end of a name that leaves room for a number before it."""
    while len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
        name = name[1:]
    return name


def _image(connection: Connection, host: str, path: str) -> dict[str, Any] | None:
    query = sa.text("SELECT * FROM images WHERE host = :host AND path = :path").bindparams(_path("path"))
    row = connection.execute(query, {"host": host, "path": path}).mappings().first()
    return None if row is None else {name: value for name, value in row.items() if name not in ("id", "path", "host")}


@again
def confirm(database: Database, claims: Mapping[int, Sequence[Other]]) -> set[int]:
    """Write against which others, proven a moment ago, each tombstone (its number) is; returns those for which all of
    them are listed still, and sound."""
    ids = {other.id for others in claims.values() for other in others}
    with database.write() as connection:
        listed = _listed(connection, ids)
        sound = {number for number, others in claims.items() if all(listed.get(one.id) == one.digest for one in others)}
        for number in sorted(sound):
            statement = sa.text("UPDATE evictions SET others = :others WHERE id = :id")
            places = json.dumps([one.place for one in claims[number]])
            connection.execute(statement, {"others": places, "id": number})
    return sound


def _listed(connection: Connection, ids: Collection[int]) -> dict[int, str]:
    """The digests of the copies of these ids that are listed without trouble."""
    query = sa.text("SELECT id, digest FROM copies WHERE id IN :ids AND trouble IS NULL")
    rows = connection.execute(query.bindparams(sa.bindparam("ids", list(ids), expanding=True)))
    return {row.id: row.digest for row in rows}


@again
def finish(database: Database, tombstones: Sequence[Tombstone], grace_s: float) -> bool:
    """The files of one unit lie in quarantine: take the copies out of what is known, and exclude the items that they
    were proven for. False, and nothing is written, where a copy is another now, or is wanted by an item that was not
    there before: then the files are to be put back."""
    ids = [one.copy for one in tombstones]
    with database.write() as connection:
        if not _as_claimed(connection, tombstones) or still_wanted(connection, tombstones[0].host, ids):
            return False
        items.exclude_evicted(connection, ids, _reason(connection, tombstones))
        for one in tombstones:
            _forget(connection, one)
            statement = sa.text(f"""
                UPDATE evictions SET evicted_at = {database.now}, purge_after = {database.now} + :grace
                WHERE id = :id""")
            connection.execute(statement, {"grace": grace_s, "id": one.id})
    return True


def _as_claimed(connection: Connection, tombstones: Sequence[Tombstone]) -> bool:
    """Whether nobody has brought other bytes to these places, or found trouble with the copies, since the tombstones
    were written."""
    found = _listed(connection, [one.copy for one in tombstones])
    return all(found.get(one.copy) == one.digest for one in tombstones)


def _reason(connection: Connection, tombstones: Sequence[Tombstone]) -> str:
    """The sentence that the items keep; the hosts in the order in which they were counted, a store first."""
    query = sa.text("SELECT others FROM evictions WHERE id IN :ids ORDER BY id")
    rows = connection.scalars(query.bindparams(sa.bindparam("ids", [one.id for one in tombstones], expanding=True)))
    places = [place for others in rows for place in json.loads(others)]
    hosts = list(dict.fromkeys(place.partition(":")[0] for place in places))
    return f"evicted to make room; proven at {', '.join(hosts)}"


def _forget(connection: Connection, one: Tombstone) -> None:
    for statement in (
        "DELETE FROM images WHERE host = :host AND path = :path",
        "DELETE FROM copies WHERE host = :host AND path = :path",
    ):
        connection.execute(sa.text(statement).bindparams(_path("path")), {"host": one.host, "path": one.path})


@again
def drop(database: Database, tombstones: Iterable[Tombstone]) -> None:
    """Forget tombstones of copies that are where they were."""
    with database.write() as connection:
        for one in tombstones:
            connection.execute(sa.text("DELETE FROM evictions WHERE id = :id"), {"id": one.id})


@again
def keep(database: Database, tombstones: Iterable[Tombstone]) -> None:
    """Their files stay in quarantine though others have come to their places since: due for removal from now on."""
    with database.write() as connection:
        for one in tombstones:
            statement = sa.text(f"""
                UPDATE evictions SET evicted_at = COALESCE(evicted_at, {database.now}), purge_after = {database.now}
                WHERE id = :id""")
            connection.execute(statement, {"id": one.id})


@again
def removed(database: Database, tombstones: Iterable[Tombstone], reason: str | None = None) -> None:
    """Their files are gone for good."""
    with database.write() as connection:
        for one in tombstones:
            _end(database, connection, one, EvictionState.REMOVED, reason)


@again
def returning(database: Database, tombstones: Iterable[Tombstone]) -> None:
    """Their files are about to be put back."""
    with database.write() as connection:
        for one in tombstones:
            connection.execute(sa.text("UPDATE evictions SET purge_after = NULL WHERE id = :id"), {"id": one.id})


@again
def returned(database: Database, tombstones: Sequence[Tombstone]) -> list[int]:
    """Files of one unit are where they were: they are copies again, with the proofs that they had, and done is what
    has all of its files again. Returns the copies' ids."""
    with database.write() as connection:
        ids = [_restore(connection, one) for one in tombstones]
        registry.add(database, connection, [_image_again(one) for one in tombstones if one.kept["image"]])
        for one in tombstones:
            _end(database, connection, one, EvictionState.RETURNED, None)
        items.bring_back(connection, ids)
    return ids


def _restore(connection: Connection, one: Tombstone) -> int:
    """A copy as it was listed; one that was listed anew since stays as it is."""
    insert = sa.text("""
        INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at, piece_of)
        VALUES (:host, :path, :size, :digest, :mtime_ns, :proof, :proven_at, :piece_of)
        ON CONFLICT DO NOTHING""").bindparams(_path("path"))
    values = {name: one.kept[name] for name in ("mtime_ns", "proof", "proven_at")}
    values |= {"host": one.host, "path": one.path, "size": one.size, "digest": one.digest}
    connection.execute(insert, {**values, "piece_of": _item_now(connection, one.kept["piece_of"])})
    query = sa.text("SELECT id FROM copies WHERE host = :host AND path = :path").bindparams(_path("path"))
    return int(connection.execute(query, {"host": one.host, "path": one.path}).scalar_one())


def _item_now(connection: Connection, item: int | None) -> int | None:
    """The item that stands for this one in the newest revision that carried it over."""
    query = sa.text("SELECT id FROM items WHERE carried_from = :id")
    while item is not None and (newer := connection.execute(query, {"id": item}).scalar()) is not None:
        item = int(newer)
    return item


def _image_again(one: Tombstone) -> dict[str, Any]:
    return {**one.kept["image"], "host": one.host, "path": one.path}


def _end(database: Database, connection: Connection, one: Tombstone, state: EvictionState, reason: str | None) -> None:
    statement = sa.text(f"""
        UPDATE evictions SET state = '{state}', ended_at = {database.now}, reason = :reason WHERE id = :id""")
    connection.execute(statement, {"reason": reason, "id": one.id})


# --------------------------------------------------------------------------------------------- reading


def unfinished(database: Database, host: str) -> list[Tombstone]:
    """Those on their way and returning: of evictions under way, or of what a crash broke off."""
    return _select(database, f"host = :host AND {_OPEN} AND purge_after IS NULL", host=host)


def in_quarantine(database: Database, host: str) -> list[Tombstone]:
    """Those whose files lie in quarantine."""
    return _select(database, f"host = :host AND {_OPEN} AND purge_after IS NOT NULL", host=host)


def due(database: Database, host: str) -> list[Tombstone]:
    """Those whose files may be removed now."""
    return _select(database, f"host = :host AND {_OPEN} AND purge_after <= {database.now}", host=host)


def hosts_with(database: Database, *, only_due: bool = False) -> list[str]:
    """The hosts that have anything in quarantine; with `only_due`, anything to be removed or ended now."""
    now = f"AND (purge_after IS NULL OR purge_after <= {database.now})" if only_due else ""
    with database.read() as connection:
        return list(connection.scalars(sa.text(f"SELECT DISTINCT host FROM evictions WHERE {_OPEN} {now} ORDER BY 1")))


def leaving(database: Database, host: str) -> int:
    """Bytes at a host that lie in quarantine, and are free once they are removed."""
    query = sa.text(f"""
        SELECT COALESCE(sum(size), 0) FROM evictions WHERE host = :host AND {_OPEN} AND purge_after IS NOT NULL""")
    with database.read() as connection:
        return int(connection.execute(query, {"host": host}).scalar_one())


def listed(database: Database, tombstones: Sequence[Tombstone]) -> set[int]:
    """Those tombstones (their numbers) at whose places a copy is listed."""
    found: set[int] = set()
    query = sa.text("""
        SELECT e.id FROM evictions e JOIN copies c ON c.host = e.host AND c.path = e.path
        WHERE e.id IN :ids""").bindparams(sa.bindparam("ids", expanding=True))
    ids = [one.id for one in tombstones]
    with database.read() as connection:
        for start in range(0, len(ids), COPIES_AT_ONCE):
            found |= set(connection.scalars(query, {"ids": ids[start : start + COPIES_AT_ONCE]}))
    return found


def _select(database: Database, where: str, **values: Any) -> list[Tombstone]:
    query = sa.text(f"""
        SELECT id, host, path, size, digest, quarantine, others, kept, evicted_at, purge_after
        FROM evictions WHERE {where} ORDER BY id""")
    with database.read() as connection:
        return [
            Tombstone(
                row.id,
                row.host,
                decode_path(row.path),
                row.size,
                row.digest,
                decode_path(row.quarantine),
                tuple(json.loads(row.others)),
                json.loads(row.kept),
                row.evicted_at,
                row.purge_after,
            )
            for row in connection.execute(query, values)
        ]


def units(tombstones: Iterable[Tombstone]) -> list[list[Tombstone]]:
    """The tombstones by what goes and comes back together."""
    found: dict[int, list[Tombstone]] = {}
    for one in tombstones:
        found.setdefault(one.unit, []).append(one)
    return list(found.values())
