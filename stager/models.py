"""The tables. One class a table, a row's meaning beside each column.

Times are Unix seconds (float, the database's own clock); file times are nanoseconds. Paths are text
relative to a host's root. A state is changed by `items.py` and `triggers.py` alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

# Phases of an attempt whose connection broke off, so that the far side may not have cleared away its part.
BROKEN_PHASES = "('connect', 'channel', 'run')"
BIG = BigInteger().with_variant(Integer, "sqlite")


class ItemState(StrEnum):
    """Where an item stands; an item that is missing at the source is `waiting` with `missing` set."""

    WAITING = "waiting"  # to be done, from `not_before` on
    RUNNING = "running"  # a worker holds a lease on it
    DONE = "done"  # proven at its final place
    HELD = "held"  # a person must look: `reason` says at what
    EXCLUDED = "excluded"  # the accept list leaves it out: `reason` says why


class Intent(StrEnum):
    """What is to become of a manifest's revision."""

    PLANNING = "planning"  # its items are being written; nothing of it is carried out yet
    ACTIVE = "active"  # to be carried out
    HELD = "held"  # an operator stopped it for now
    CANCELLED = "cancelled"  # an operator gave it up; what is proven stays
    SUPERSEDED = "superseded"  # a later revision took its place


class TriggerState(StrEnum):
    """Where a trigger stands on its queue."""

    PENDING = "pending"  # its group is whole; the inventory is not yet at the destination
    READY = "ready"  # may be claimed
    CLAIMED = "claimed"  # leased to a pipeline until `claimed_until`
    ACKED = "acked"  # a pipeline took it over
    FAILED = "failed"  # a pipeline gave it back as failed; `replay` makes it ready again
    DELIVERED = "delivered"  # its datasets are in the queue's folder, for the pipeline to take from there


class PathText(TypeDecorator[str]):
    """A path in the database: text, readable, able to carry names that are not UTF-8.

    A byte that is not UTF-8 (a lone surrogate in Python) is written `\\xNN`, a backslash `\\\\`.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else encode_path(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else decode_path(value)


def encode_path(path: str) -> str:
    """The path as the database keeps it (see PathText)."""
    if path.isascii() and "\\" not in path:
        return path
    escaped = path.replace("\\", "\\\\")
    return "".join(f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char for char in escaped)


def decode_path(text_: str) -> str:
    """The path that `encode_path` made this text of."""
    if "\\" not in text_:
        return text_
    parts = text_.split("\\\\")
    return "\\".join(_surrogates(part) for part in parts)


def _surrogates(part: str) -> str:
    head, *rest = part.split("\\x")
    return head + "".join(chr(0xDC00 + int(chunk[:2], 16)) + chunk[2:] for chunk in rest)


def _time(index: bool = False) -> Any:
    return Field(default=None, sa_column=Column(Float, nullable=True, index=index))


class Fact(SQLModel, table=True):
    """What the database knows of itself: `instance`, eight hex digits that part names carry."""

    __tablename__ = "facts"
    key: str = Field(primary_key=True)
    value: str


class Host(SQLModel, table=True):
    """What is remembered of a host: its root's marker, whether an operator paused it, and what its breaker knows."""

    __tablename__ = "hosts"
    name: str = Field(primary_key=True)
    root: str | None = None  # as the configuration last said
    marker: str | None = None
    paused: bool = False
    reason: str | None = None
    changed_at: float | None = _time()
    reached: str | None = None  # how it was last reached, in words: client, far Python or SFTP
    trouble_kind: str | None = (
        None  # the kind of the error for which nothing is begun there; None: its breaker is closed
    )
    trouble: str | None = None  # the same as a sentence
    trouble_since: float | None = _time()
    next_look: float | None = _time()  # when it is opened again to see
    looks: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # that failed since work there went well
    no_room: str | None = None  # why nothing more is brought there just now: a sentence
    no_room_at: float | None = _time()  # when that was last seen


class Route(SQLModel, table=True):
    """What a route last did, and its limits: told by the daemon for who asks, and read by nothing that works."""

    __tablename__ = "routes"
    source: str = Field(primary_key=True)
    destination: str = Field(primary_key=True)
    streams: int  # side by side now
    why: str  # in words
    rate_bytes_per_s: float | None = Field(default=None, sa_column=Column(Float))
    failures: int = 0  # tries that failed since one went well
    busy: bool = False  # whether a batch was under way
    bytes_per_s: int | None = Field(default=None, sa_column=Column(BigInteger))  # the limit
    hours: str | None = None
    at: float | None = _time()


class Worker(SQLModel, table=True):
    """A process that claims items, for as long as it lives."""

    __tablename__ = "workers"
    name: str = Field(primary_key=True)
    started_at: float | None = _time()
    seen_at: float | None = _time()


class Manifest(SQLModel, table=True):
    """One revision of a manifest."""

    __tablename__ = "manifests"
    __table_args__ = (UniqueConstraint("name", "revision"), Index("ix_manifests_intent", "intent"))
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    name: str
    revision: int
    kind: str
    dataset: str
    lead: str
    source: str  # as written in the manifest
    destination: str
    source_host: str
    destination_host: str
    document: str  # canonical JSON: all that the manifest says
    digest: str  # sha256 of the document
    intent: str
    priority: int
    note: str | None = None  # what planning found worth saying
    submitted_at: float | None = _time()
    planned_at: float | None = _time()


class Group(SQLModel, table=True):
    """A part of a dataset that a trigger waits for; its wholeness is derived from its items."""

    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("manifest_id", "label"),)
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    manifest_id: int = Field(sa_column=Column(BIG, ForeignKey("manifests.id"), nullable=False))
    label: str  # "visit=1257365", "" for the whole dataset
    ids: str  # the same as JSON


class Item(SQLModel, table=True):
    """One thing to bring to its place: a file, or a focal plane to chop."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("manifest_id", "destination"),
        Index(
            "ix_items_waiting",
            "manifest_id",
            "not_before",
            "id",  # in the order in which they are claimed
            sqlite_where=text("state = 'waiting' AND NOT missing"),
            postgresql_where=text("state = 'waiting' AND NOT missing"),
        ),
        Index(
            "ix_items_running",
            "claimed_until",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index(
            "ix_items_open",
            "group_id",
            sqlite_where=text("state NOT IN ('done', 'excluded') AND group_id IS NOT NULL"),
            postgresql_where=text("state NOT IN ('done', 'excluded') AND group_id IS NOT NULL"),
        ),
        Index(
            "ix_items_group",
            "group_id",
            sqlite_where=text("group_id IS NOT NULL"),
            postgresql_where=text("group_id IS NOT NULL"),
        ),
        Index(
            "ix_items_troubled",
            "manifest_id",
            "progressed_at",
            sqlite_where=text("reason IS NOT NULL AND state IN ('waiting', 'held')"),
            postgresql_where=text("reason IS NOT NULL AND state IN ('waiting', 'held')"),
        ),
        Index(
            "ix_items_lost",
            "kind",
            sqlite_where=text("kind = 'lost'"),
            postgresql_where=text("kind = 'lost'"),
        ),
        Index(
            "ix_items_evicted",
            "manifest_id",
            sqlite_where=text("state = 'excluded' AND kind = 'evicted'"),
            postgresql_where=text("state = 'excluded' AND kind = 'evicted'"),
        ),
        Index(
            "ix_items_bundled",
            "manifest_id",
            "bundle_key",
            "id",  # in the order in which they are packed
            sqlite_where=text("bundle_key IS NOT NULL AND state NOT IN ('done', 'excluded')"),
            postgresql_where=text("bundle_key IS NOT NULL AND state NOT IN ('done', 'excluded')"),
        ),
        Index(
            "ix_items_packing",
            "bundle_id",
            sqlite_where=text("bundle_id IS NOT NULL"),
            postgresql_where=text("bundle_id IS NOT NULL"),
        ),
        Index(
            "ix_items_recalled",
            "recall_id",
            sqlite_where=text("recall_id IS NOT NULL"),
            postgresql_where=text("recall_id IS NOT NULL"),
        ),
        Index(
            "ix_items_carried",
            "carried_from",
            sqlite_where=text("carried_from IS NOT NULL"),
            postgresql_where=text("carried_from IS NOT NULL"),
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    manifest_id: int = Field(sa_column=Column(BIG, ForeignKey("manifests.id"), nullable=False))
    source: str = Field(sa_column=Column(PathText, nullable=False))
    destination: str | None = Field(default=None, sa_column=Column(PathText, nullable=True))
    size: int | None = Field(default=None, sa_column=Column(BigInteger))  # of the source, bytes
    mtime_ns: int | None = Field(default=None, sa_column=Column(BigInteger))  # of the source
    digest: str | None = None  # what a list says the source must hold, "algorithm:hex"
    files: int  # files it brings to the destination
    bytes: int | None = Field(default=None, sa_column=Column(BigInteger))  # of those; unknown before a chop
    ids: str | None = None  # JSON: visit, ccd, ...
    group_id: int | None = Field(default=None, sa_column=Column(BIG, ForeignKey("groups.id")))
    state: str
    missing: bool = False  # expected, and not at the source
    reason: str | None = None  # why it waits, is held or excluded: a sentence
    kind: str | None = None  # the kind of the error behind the reason
    epoch: int = 0  # of the lease; every claim adds one
    worker: str | None = None
    tries: int = 0  # failed attempts in a row that count
    claimed_until: float | None = _time()
    not_before: float | None = _time()
    progressed_at: float | None = _time()
    carried_from: int | None = Field(default=None, sa_column=Column(BIG))  # the item of the revision before
    bundle_key: str | None = None  # what it is bundled with; None: it goes as it is
    bundle_id: int | None = Field(default=None, sa_column=Column(BIG))  # the bundle that it is being packed into
    recall_id: int | None = Field(default=None, sa_column=Column(BIG))  # the recall that it waits for


class Attempt(SQLModel, table=True):
    """One try at an item; append-only."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("ix_attempts_ended", "manifest_id", "ended_at"),
        Index(
            "ix_attempts_lost",
            "ended_at",
            sqlite_where=text("outcome = 'lost'"),
            postgresql_where=text("outcome = 'lost'"),
        ),
        Index(
            "ix_attempts_broken",
            "ended_at",
            sqlite_where=text(f"outcome = 'failed' AND phase IN {BROKEN_PHASES}"),
            postgresql_where=text(f"outcome = 'failed' AND phase IN {BROKEN_PHASES}"),
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    item_id: int = Field(sa_column=Column(BIG, ForeignKey("items.id"), nullable=False, index=True))
    manifest_id: int = Field(sa_column=Column(BIG, nullable=False))
    epoch: int
    worker: str
    ended_at: float | None = _time()
    seconds: float | None = _time()
    outcome: str  # done, failed, lost
    bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    kind: str | None = None
    side: str | None = None
    phase: str | None = None
    host: str | None = None
    path: str | None = Field(default=None, sa_column=Column(PathText, nullable=True))
    errno: int | None = None
    text: str | None = None


class Copy(SQLModel, table=True):
    """A place where a receipt says a file is."""

    __tablename__ = "copies"
    __table_args__ = (
        UniqueConstraint("host", "path"),
        Index("ix_copies_digest", "digest"),  # by which the other copies of a file are found
        Index(
            "ix_copies_piece_of",
            "piece_of",
            sqlite_where=text("piece_of IS NOT NULL"),
            postgresql_where=text("piece_of IS NOT NULL"),
        ),
        Index(
            "ix_copies_bundle_id",
            "bundle_id",
            sqlite_where=text("bundle_id IS NOT NULL"),
            postgresql_where=text("bundle_id IS NOT NULL"),
        ),
        Index(  # by bytes, whatever the database's collation is: see catalogue.py
            "ix_copies_members",
            "host",
            "path",
            sqlite_where=text("bundle_id IS NOT NULL"),
            postgresql_where=text("bundle_id IS NOT NULL"),
            postgresql_ops={"path": "text_pattern_ops"},
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    host: str
    path: str = Field(sa_column=Column(PathText, nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    digest: str
    mtime_ns: int | None = Field(default=None, sa_column=Column(BigInteger))
    proof: str  # reread, wire, stream, store
    proven_at: float | None = _time()
    trouble: str | None = None  # what the last look found wrong: missing, corrupt
    piece_of: int | None = Field(default=None, sa_column=Column(BIG, ForeignKey("items.id")))
    bundle_id: int | None = Field(default=None, sa_column=Column(BIG, ForeignKey("bundles.id")))  # that it lies in
    data_offset: int | None = Field(default=None, sa_column=Column(BigInteger))  # of its first byte there


class BundleState(StrEnum):
    """Where a bundle stands."""

    PACKING = "packing"  # its members are chosen; it may be on its way
    STORED = "stored"  # proven on the store: its members are copies


class Bundle(SQLModel, table=True):
    """A tar of items on a mass store. While it is packed its items carry its id; stored, its members' copies do."""

    __tablename__ = "bundles"
    __table_args__ = (
        UniqueConstraint("host", "path"),
        Index(
            "ix_bundles_packing",
            "manifest_id",
            sqlite_where=text("state = 'packing'"),
            postgresql_where=text("state = 'packing'"),
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    host: str
    path: str = Field(sa_column=Column(PathText, nullable=False))  # as it lies on the store
    label: str  # what its members have in common
    manifest_id: int | None = Field(default=None, sa_column=Column(BIG))  # None: found on the store
    state: str
    files: int
    size: int = Field(sa_column=Column(BigInteger, nullable=False))  # bytes of the tar
    digest: str | None = None  # of the tar, once it is stored
    proof: str | None = None
    made_at: float | None = _time()
    proven_at: float | None = _time()
    trouble: str | None = None  # what the last look found wrong


class RecallState(StrEnum):
    """Where the recall of one file of a store stands."""

    WANTED = "wanted"  # items wait for it; the store was not asked yet
    ASKED = "asked"  # the store was asked
    ONLINE = "online"  # it can be read
    REFUSED = "refused"  # the store refused the request: asked again from `not_before` on


class Recall(SQLModel, table=True):
    """A file of a store that items wait for, offline when it was last looked at."""

    __tablename__ = "recalls"
    __table_args__ = (UniqueConstraint("host", "path"), Index("ix_recalls_state", "host", "state"))
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    host: str
    path: str = Field(sa_column=Column(PathText, nullable=False))  # as it lies on the store: a bundle, not a member
    state: str
    volume: str | None = None  # where it is on tape, as far as the store tells
    position: int | None = Field(default=None, sa_column=Column(BigInteger))
    bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    asks: int = 0  # how often the store was asked
    wanted_at: float | None = _time()
    asked_at: float | None = _time()  # the last time
    not_before: float | None = _time()  # when it may be asked (again)
    online_at: float | None = _time()
    reason: str | None = None  # why it is not here yet: a sentence


class Reservation(SQLModel, table=True):
    """Room at a host that work under way was promised."""

    __tablename__ = "reservations"
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    host: str = Field(index=True)
    system: str  # the file system: hosts that share one share its room
    worker: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    made_at: float | None = _time()


class EvictionState(StrEnum):
    """Where an evicted copy stands."""

    QUARANTINED = "quarantined"  # out of the data's way; may be put back until `purge_after`
    REMOVED = "removed"  # its room is free
    RETURNED = "returned"  # it was put back


class Eviction(SQLModel, table=True):
    """The tombstone of a copy that was moved out of the way to make room; written before the copy is touched."""

    __tablename__ = "evictions"
    __table_args__ = (
        Index("ix_evictions_place", "host", "path"),
        Index(
            "ix_evictions_quarantined",
            "host",
            "purge_after",
            sqlite_where=text("state = 'quarantined'"),
            postgresql_where=text("state = 'quarantined'"),
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    host: str
    path: str = Field(sa_column=Column(PathText, nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    digest: str
    state: str
    quarantine: str = Field(sa_column=Column(PathText, nullable=False))  # where it lies now, below .stager/quarantine
    others: str  # JSON: the copies that it was evicted against, "host:path"
    kept: str  # JSON: what is known of it, to be put back with it: see evicting/tombstones.py
    reason: str | None = None
    evicted_at: float | None = _time()  # None: it is on its way out, and where it was unless that was broken off
    purge_after: float | None = _time()
    ended_at: float | None = _time()


class Trigger(SQLModel, table=True):
    """The message that a group of a dataset revision is whole at a host."""

    __tablename__ = "triggers"
    __table_args__ = (
        UniqueConstraint("dataset", "revision", "group_label", "queue"),
        Index("ix_triggers_queue", "queue", "state", "created_at"),
    )
    id: str = Field(primary_key=True)  # deterministic: see triggers.trigger_id
    manifest_id: int = Field(sa_column=Column(BIG, ForeignKey("manifests.id"), nullable=False))
    group_id: int = Field(sa_column=Column(BIG, ForeignKey("groups.id"), nullable=False))
    dataset: str
    revision: int
    group_label: str
    queue: str
    host: str
    data: str  # JSON: the CloudEvent's data but for the inventory
    inventory: str | None = Field(default=None, sa_column=Column(PathText, nullable=True))
    content: str | None = None  # sha256 of the inventory: what the group held
    state: str
    created_at: float | None = _time()
    ready_at: float | None = _time()
    claimed_by: str | None = None
    claimed_until: float | None = _time()
    claims: int = 0
    ended_at: float | None = _time()
    note: str | None = None


class Image(SQLModel, table=True):
    """A landed raw image by its header: the registry."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("host", "path"), Index("ix_images_dataset", "dataset", "visit"))
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    dataset: str
    host: str
    path: str = Field(sa_column=Column(PathText, nullable=False))
    camera: str
    layout: str
    visit: int | None = Field(default=None, sa_column=Column(BigInteger))
    ids: str  # JSON, all of them
    mjd: float | None = Field(default=None, sa_column=Column(Float))
    scale: str | None = None  # of mjd: utc or tai
    exptime: float | None = Field(default=None, sa_column=Column(Float))
    registered_at: float | None = _time()


class Finding(SQLModel, table=True):
    """One thing that a look into an item's file found worth saying."""

    __tablename__ = "findings"
    __table_args__ = (
        Index(
            "ix_findings_serious",
            "manifest_id",
            "severity",
            sqlite_where=text("severity <> 'note'"),
            postgresql_where=text("severity <> 'note'"),
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True))
    item_id: int = Field(sa_column=Column(BIG, ForeignKey("items.id"), nullable=False, index=True))
    manifest_id: int = Field(sa_column=Column(BIG, nullable=False))
    host: str  # where the file lay that was looked into
    path: str = Field(sa_column=Column(PathText, nullable=False))
    code: str
    severity: str  # note, warn, fail
    hdus: str  # JSON: the HDUs it is about, 0 the primary; [] for the file
    text: str
    found_at: float | None = _time()


class Making(SQLModel, table=True):
    """How the pieces of a focal plane were made, so that they can be made again, or told apart from better ones."""

    __tablename__ = "makings"
    item_id: int = Field(sa_column=Column(BIG, ForeignKey("items.id"), primary_key=True, autoincrement=False))
    host: str  # of the focal plane
    path: str = Field(sa_column=Column(PathText, nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    digest: str  # of the focal plane as it was cut, "algorithm:hex"
    camera: str
    camera_digest: str  # of the camera's file, which has the rule
    readout: str  # of the camera's readouts, the one it was
    crpix: str  # the manifest's word for the shift: exact or historic
    shift: int  # what was added to CRPIX1 of amplifiers after the first; 0 for none
    made_at: float | None = _time()


class Spooled(SQLModel, table=True):
    """A file of the spool folder as it was last read."""

    __tablename__ = "spooled"
    path: str = Field(sa_column=Column(PathText, primary_key=True))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    mtime_ns: int = Field(sa_column=Column(BigInteger, nullable=False))
    problem: str | None = None  # why it was refused
    read_at: float | None = _time()


class Tally(SQLModel, table=True):
    """How many items a manifest has in a state: kept by the database's own triggers on `items`."""

    __tablename__ = "tallies"
    manifest_id: int = Field(sa_column=Column(BIG, primary_key=True, autoincrement=False))
    state: str = Field(primary_key=True)  # an item state, or "missing"
    items: int = Field(sa_column=Column(BigInteger, nullable=False))
    files: int = Field(sa_column=Column(BigInteger, nullable=False))
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    unknown: int = Field(sa_column=Column(BigInteger, nullable=False))  # items whose bytes are unknown
