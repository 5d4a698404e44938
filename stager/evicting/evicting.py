"""Evict: choose copies, prove the others of each, move them into quarantine; as many as are needed, and no more.

Lot by lot, each under the lock of its host: tombstones, proofs of the others, the move, the end. Nothing of one lot
counts on a copy of which another, here or on another machine, has written the tombstone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from manifests.errors import shown
from stager.database import Database
from stager.evicting import recovering, tombstones
from stager.evicting.candidates import Named, slots
from stager.evicting.choosing import Slot, just_enough
from stager.evicting.judging import Candidate, Judge, Judged, lots
from stager.evicting.proving import Bad, Outcome, Shortage, Subject, prove
from stager.evicting.reasons import Refusal, Tally, Why
from stager.evicting.tombstones import Claim
from stager.opening import Hosts
from transfers.errors import TransferError
from transfers.hosts import FileInfo, Host

LEAST = 2  # others of a copy that must be proven, where nobody says otherwise
MOST_BYTES = 4 << 30  # of one lot, so that what is proven is proven a moment ago
MOST_COPIES = 200


class Request(NamedTuple):
    """What is asked for: `needed` bytes, to be free on the host in all, or to be freed beside what is (`more`)."""

    named: Named
    needed: int
    more: bool
    least: int = LEAST
    grace_s: float = 86400.0
    transient: bool = False  # only what is transient


class Evicted(NamedTuple):
    """A copy that is in quarantine now, and the others that were proven for it."""

    path: str
    size: int
    others: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What came of it, or would; bytes. `wanted` is what had to go: what is free and what is leaving already counts."""

    host: str
    wanted: int
    free: int
    leaving: int
    grace_s: float
    dry_run: bool = False
    evicted: list[Evicted] = field(default_factory=list)
    refused: dict[Why, Tally] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(one.size for one in self.evicted)

    @property
    def enough(self) -> bool:
        return self.bytes >= self.wanted

    def refuse(self, slot: Slot, copies: Sequence[Candidate], refusal: Refusal) -> None:
        paths = [copy.path for copy in copies] or ["a copy that is listed no more"]
        self.refused.setdefault(refusal.why, Tally()).add(paths, slot.bytes, refusal.detail)

    def as_dict(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "wanted": self.wanted,
            "free": self.free,
            "leaving": self.leaving,
            "dry_run": self.dry_run,
            "enough": self.enough,
            "bytes": self.bytes,
            "grace_s": self.grace_s,
            "evicted": [
                {"path": shown(one.path), "bytes": one.size, "others": [shown(place) for place in one.others]}
                for one in self.evicted
            ],
            "refused": [
                {"why": why.name.lower(), "reason": str(why), "files": tally.files, "bytes": tally.bytes,
                 "examples": tally.examples}
                for why, tally in self.refused.items()
            ],
        }  # fmt: skip


def evict(
    database: Database,
    hosts: Hosts,
    request: Request,
    *,
    dry_run: bool = False,
    tell: Callable[[Evicted], object] = bool,
) -> Report:
    """Make room; with `dry_run` say what would go as far as the database knows, and read and change nothing.

    What has not been evicted is where it was, and `refused` says why; nothing but a host that cannot be used at all is
    raised (TransferError).
    """
    host = hosts[request.named.host]
    if not dry_run:
        with recovering.alone_at(database, host.name):
            recovering.recover(database, hosts, host, request.grace_s)
    report = _begin(database, host, request, dry_run)
    judge = Judge(hosts.config, host.name, request.least, request.transient)
    work = _Work(database, hosts, host, judge, request, report, tell)
    if report.wanted > 0:
        work.plan() if dry_run else work.carry_out()
    return report


def _begin(database: Database, host: Host, request: Request, dry_run: bool) -> Report:
    free, leaving = host.space().free, tombstones.leaving(database, host.name)
    wanted = request.needed if request.more else max(0, request.needed - free - leaving)
    return Report(host.name, wanted, free, leaving, request.grace_s, dry_run)


class _Work:
    """One eviction on its way."""

    def __init__(
        self,
        database: Database,
        hosts: Hosts,
        host: Host,
        judge: Judge,
        request: Request,
        report: Report,
        tell: Callable[[Evicted], object],
    ) -> None:
        self.database = database
        self.hosts = hosts
        self.host = host
        self.judge = judge
        self.request = request
        self.report = report
        self.tell = tell
        self.coming = lots(slots(database, request.named))
        self.down: dict[str, Bad] = {}  # other hosts that could not be used
        self.ready: dict[Slot, Judged] = {}  # those that may go, as far as the database knows

    @property
    def left(self) -> int:
        return self.report.wanted - self.report.bytes

    def plan(self) -> None:
        for slot in self._chosen():
            judged = self.ready[slot]
            for copy in judged.copies:
                places = tuple(other.place for other in judged.others[copy.digest])
                self.report.evicted.append(Evicted(copy.path, copy.size, places))

    def carry_out(self) -> None:
        while self.left > 0 and (chosen := self._chosen()):
            lot = _first_of(chosen)
            for slot in lot:
                del self.ready[slot]
            with recovering.alone_at(self.database, self.host.name):
                self._carry_out(lot)

    def _chosen(self) -> list[Slot]:
        """What is to go next: as much as is wanted still, of what may."""
        while sum(slot.bytes for slot in self.ready) < self.left and (lot := next(self.coming, None)):
            with self.database.read() as connection:
                judged = self.judge.judge(connection, lot)
            for one in judged:
                if one.refusal is None:
                    self.ready[one.slot] = one
                else:
                    self.report.refuse(one.slot, one.copies, one.refusal)
        return just_enough(list(self.ready), self.left)

    def _carry_out(self, lot: Sequence[Slot]) -> None:
        claims, refused = tombstones.claim(self.database, self.judge, lot)
        for one in refused:
            assert one.refusal is not None
            self.report.refuse(one.slot, one.copies, one.refusal)
        if claims:  # what is raised on the way leaves tombstones that whoever comes next finds and ends
            going = self._proven(claims)
            moved = self._moved(going)
            for proven in going:
                self._end(proven, moved)

    # Proofs.

    def _proven(self, claims: Sequence[Claim]) -> list[tuple[Claim, dict[int, tuple[str, ...]]]]:
        """The claims whose others are proven, and that are themselves as they were, each with these others by the
        tombstone's number; the rest is told of and forgotten."""
        subjects = [
            Subject(copy.path, claim.judged.others[copy.digest], self.request.least)
            for claim in claims
            for copy in claim.judged.copies
        ]
        outcomes = iter(prove(self.database, self.hosts, self.host, subjects, self.down))
        changed = self._changed(claims)
        proven: list[tuple[Claim, list[Outcome]]] = []
        for claim in claims:
            found = [next(outcomes) for _ in claim.judged.copies]
            short = [one.refusal for one in found if isinstance(one, Shortage)]
            untellable = [one for one in short if one.why is Why.UNTELLABLE]  # and perhaps no exact times either
            if refusal := next(iter([*untellable, *changed.get(claim.judged.slot, []), *short]), None):
                self._give_up(claim, refusal)
            else:
                proven.append((claim, found))
        return list(self._confirmed(proven))

    def _changed(self, claims: Sequence[Claim]) -> dict[Slot, list[Refusal]]:
        """Of those that are not as they were proven: what is not a copy of the others must not go for their sake."""
        copies = [(claim.judged.slot, copy) for claim in claims for copy in claim.judged.copies]
        found = list(self.host.find([copy.path for _, copy in copies]))
        changed: dict[Slot, list[Refusal]] = {}
        for (slot, copy), info in zip(copies, found, strict=True):
            if isinstance(info, TransferError):
                changed.setdefault(slot, []).append(Refusal(Why.CHANGED, str(info)))
            elif not recovering.is_as_it_was(copy, info):
                changed.setdefault(slot, []).append(Refusal(Why.CHANGED, _how(copy, info)))
        timeless = [(slot, copy) for slot, copy in copies if copy.mtime_ns is None and slot not in changed]
        for (slot, copy), read in zip(
            timeless, list(self.host.digest([copy.path for _, copy in timeless], reread=True)), strict=True
        ):
            if isinstance(read, TransferError) or read[1:] != (copy.size, copy.digest):
                changed.setdefault(slot, []).append(Refusal(Why.CHANGED, "it has another digest"))
        return changed

    def _confirmed(
        self, proven: Sequence[tuple[Claim, list[Outcome]]]
    ) -> Iterator[tuple[Claim, dict[int, tuple[str, ...]]]]:
        others = {
            one.id: outcome
            for claim, outcomes in proven
            for one, outcome in zip(claim.tombstones, outcomes, strict=True)
            if not isinstance(outcome, Shortage)
        }
        sound = tombstones.confirm(self.database, others) if others else set()
        for claim, _ in proven:
            if all(one.id in sound for one in claim.tombstones):
                yield claim, {one.id: tuple(other.place for other in others[one.id]) for one in claim.tombstones}
            else:
                self._give_up(claim, Refusal(Why.UNPROVEN, "another is listed no more"))

    def _give_up(self, claim: Claim, refusal: Refusal) -> None:
        tombstones.drop(self.database, claim.tombstones)
        self.report.refuse(claim.judged.slot, claim.judged.copies, refusal)

    # Moves.

    def _moved(self, going: Sequence[tuple[Claim, Any]]) -> dict[int, TransferError | None]:
        """Move the files; what went wrong with each, by its tombstone's number."""
        files = [one for claim, _ in going for one in claim.tombstones]
        results = list(self.host.move([(one.path, one.quarantine) for one in files]))
        return {
            one.id: result if isinstance(result, TransferError) else None
            for one, result in zip(files, results, strict=True)
        }

    def _end(self, going: tuple[Claim, dict[int, tuple[str, ...]]], moved: dict[int, TransferError | None]) -> None:
        """Finish what was moved in full; else put it back."""
        claim, others = going
        errors = [error for one in claim.tombstones if (error := moved[one.id])]
        if not errors and tombstones.finish(self.database, claim.tombstones, self.request.grace_s):
            for one in claim.tombstones:
                evicted = Evicted(one.path, one.size, others[one.id])
                self.report.evicted.append(evicted)
                self.tell(evicted)
            return
        refusal = Refusal(Why.UNMOVED, str(errors[0])) if errors else Refusal(Why.NEEDED, "since a moment ago")
        self.report.refuse(claim.judged.slot, claim.judged.copies, refusal)
        recovering.settle(self.database, self.hosts, self.host, claim.tombstones, self.request.grace_s, back=True)


def _first_of(chosen: Sequence[Slot]) -> list[Slot]:
    """As many of the chosen, at least one, as are proven and moved at a time."""
    lot: list[Slot] = []
    for slot in chosen:
        copies, size = sum(len(one.copies) for one in lot), sum(one.bytes for one in lot)
        if lot and (copies + len(slot.copies) > MOST_COPIES or size + slot.bytes > MOST_BYTES):
            break
        lot.append(slot)
    return lot


def _how(copy: Candidate, info: FileInfo | None) -> str:
    if info is None:
        return "it is gone"
    return f"{info.size} bytes instead of {copy.size}" if info.size != copy.size else "it has another time"
