"""Make a store's bundles, the indexes beside them and the database agree, whichever of them was lost."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stager import breakers
from stager.counts import counted
from stager.database import Database
from stager.rebuilding import rows
from stager.rebuilding.bringing import brought, online
from stager.rebuilding.evidence import BESIDE, DATABASE, Settled, digest_of, lacking, named, settle
from stager.rebuilding.listing import Listing
from stager.rebuilding.rows import UNREAD, Found, Known, Place
from stager.rebuilding.telling import ADDED, MENDED, NOTE, TROUBLE, UNKNOWN, Counts, Told, sentence
from transfers.bundles import Entry, beside_bytes
from transfers.bundles.store import BundledStore
from transfers.copying import land_bytes
from transfers.errors import SourceMissing, TransferError, shown
from transfers.hosts import FileInfo, only

Elsewhere = tuple[Entry, Place]
QUARANTINE = ".stager/quarantine/indexes"
CONFLICT = "members of it have other bytes elsewhere"  # what a trouble that is one begins with
AT_ONCE = 64  # bundles whose files a store with tapes is asked for at a time, at the most
PATIENCE_S = 3600.0  # for a tape


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One pass over a store. With `dry_run` nothing is changed, and what would be is told as if it were."""

    database: Database
    store: BundledStore
    deep: bool = False
    dry_run: bool = False
    at_once: int = AT_ONCE
    patience_s: float = PATIENCE_S
    counts: Counts = field(default_factory=Counts)

    def run(self) -> Iterator[Told]:
        """Look at everything and mend what can be, telling of each thing that was not as it should be. One bundle that
        cannot be believed or read holds up no other. Raises TransferError when the store itself cannot be used."""
        with self.database.alone(f"rebuild {self.store.name}"), Listing() as listing:
            before = rows.bundles(self.database, self.store.name)
            listing.read(self.store.physical)
            gone = self._gone(before, listing)
            for told in self._all(before, listing, gone):
                self.counts.troubles += told.what == TROUBLE
                yield told

    def _gone(self, before: Mapping[str, Known], listing: Listing) -> dict[str, Known]:
        """The bundles that the database knew before the store was listed, and that are not there."""
        unlisted = [one for path, one in sorted(before.items()) if one.is_stored and path not in listing.bundles]
        found = list(self.store.physical.find([one.path for one in unlisted])) if unlisted else []
        return {one.path: one for one, info in zip(unlisted, found, strict=True) if info is None}

    def _all(self, before: Mapping[str, Known], listing: Listing, gone: Mapping[str, Known]) -> Iterator[Told]:
        yield from (Told(one.path, NOTE, f"it is {one.why}, and left out") for one in listing.skipped)
        found = sorted(listing.bundles.values())
        for start in range(0, len(found), self.at_once):
            yield from self._bundles(found[start : start + self.at_once], listing, gone)
        for path, known in gone.items():
            text = "it is not there, and was proven there"
            self._remember(known, text)
            yield Told(path, TROUBLE, text)
        for path in sorted(listing.indexes):
            bundle = path.removesuffix(".index")
            if bundle not in listing.bundles and bundle not in before:
                yield Told(path, TROUBLE, "the bundle that it is of is not there")
        for files in listing.others():
            yield from self._files(files)

    # ----------------------------------------------------------------------------------- bundles

    def _bundles(self, lot: list[FileInfo], listing: Listing, gone: Mapping[str, Known]) -> Iterator[Told]:
        """Some bundles, each as soon as what is read of it can be; one that is needed whole after all comes again."""
        host = self.store.physical
        needs = {info: [f"{info.path}.index"] if f"{info.path}.index" in listing.indexes else [] for info in lot}
        for info in lot if self.deep else ():
            needs[info].append(info.path)
        for final in (False, True):
            again: dict[FileInfo, list[str]] = {}
            for info, late in brought(host, needs, self.patience_s):
                told = self._bundle(info, gone, late, final)
                if told is None:
                    again[info] = [*needs[info], info.path]
                yield from told or ()
            needs = again

    def _bundle(
        self, info: FileInfo, gone: Mapping[str, Known], late: TransferError | None, final: bool
    ) -> list[Told] | None:
        """One bundle; what is wrong with it is told, and no trouble to the next. None where it is needed and on tape,
        and this is not the `final` try."""
        known = rows.bundle(self.database, self.store.name, info.path)
        if known is not None and not known.is_stored:
            self.counts.bundles += 1
            return [Told(info.path, NOTE, "it is being packed, and left alone")]
        told: list[Told] = []
        try:
            if late is not None:
                raise late
            told.extend(self._mended(info, known, gone))
        except TransferError as error:
            if breakers.is_of_host(error):
                raise
            if late is None and not final and not online(self.store.physical, [info.path])[info.path]:
                return None
            told.append(Told(info.path, TROUBLE, sentence(error)))
        self.counts.bundles += 1
        self.counts.agree += not told
        troubles = [one.text for one in told if one.what == TROUBLE]
        if troubles or self.deep:
            known = known or rows.bundle(self.database, self.store.name, info.path)
            self._remember(known, min(troubles, key=_conflicts_first) if troubles else None)
        return told

    def _remember(self, known: Known | None, trouble: str | None) -> None:
        """Keep with a bundle what is wrong with it; only who read all of it says that nothing is."""
        if known is not None and not self.dry_run and known.trouble != trouble:
            rows.set_trouble(self.database, known.id, trouble)

    def _mended(self, info: FileInfo, known: Known | None, gone: Mapping[str, Known]) -> Iterator[Told]:
        members = rows.members(self.database, known.id) if known else []
        host = self.store.physical
        settled = settle(host, info, known, members, look=host.seeks, deep=self.deep)
        yield from (Told(info.path, TROUBLE, remark) for remark in settled.remarks)
        if self.deep and known is not None and not self.dry_run:
            rows.read_again(self.database, known.id, settled.rotten)
        digest = settled.digest
        if settled.beside is not None and not (digest is None and settled.rotten):  # nobody knows what it should be
            if digest is None and not self.dry_run:
                digest = digest_of(host, info.path)
            yield self._write_beside(info, settled, settled.beside, digest or "")
        new = tuple(one for one in lacking(settled.index, members) if one.path not in settled.rotten)
        if new or known is None:
            proof = "reread" if self.deep else UNREAD
            files = len(settled.index.entries)
            label = settled.index.label
            found = Found(self.store.name, info.path, label, info.size, digest, proof, files, new)
            yield from self._add(found, known, settled.origin, gone)
        self.counts.members += len(settled.index.entries)

    def _write_beside(self, info: FileInfo, settled: Settled, trouble: TransferError, digest: str) -> Told:
        """Write the index beside a bundle again; one that cannot be believed is moved out of the way before."""
        path = f"{info.path}.index"
        missing = isinstance(trouble, SourceMissing)
        aside = f"{QUARANTINE}/{time.time_ns()}.{posixpath.basename(path)}"
        if not self.dry_run:
            if not missing:
                moved = only(self.store.physical.move([(path, aside)]))
                if isinstance(moved, TransferError):
                    raise moved
            land_bytes(self.store.physical, path, beside_bytes(settled.index.to_bytes(), info.size, digest))
        self.counts.indexes_written += 1
        origin = DATABASE if settled.origin == BESIDE else settled.origin
        why = "was missing" if missing else f"could not be believed ({trouble.text}), is in {aside}"
        return Told(path, MENDED, f"it {why}, and is written again from {origin}")

    def _add(self, found: Found, known: Known | None, origin: str, gone: Mapping[str, Known]) -> Iterator[Told]:
        """Have the database know what it lacks of a bundle."""
        if self.dry_run:
            places = rows.places(self.database, found.host, [one.path for one in found.entries])
            added = rows.sorted_out(found.entries, places, known.id if known else None)
        else:
            added = rows.add(self.database, found)
        self.counts.members_added += added.new
        if known is None:
            are = counted(found.files, "member is", "members are")
            yield Told(found.path, ADDED, f"{added.new} of its {are} known now, by {origin}")
        elif added.new:
            are = "is" if added.new == 1 else "are"
            yield Told(found.path, ADDED, f"{added.new} of its members {are} known again, by {origin}")
        others: dict[str | None, list[tuple[Entry, Place]]] = {}
        for entry, place in added.elsewhere:
            others.setdefault(place.bundle, []).append((entry, place))
        for other, members in others.items():
            yield from self._elsewhere(found.path, known, other, members, gone)

    def _elsewhere(
        self, path: str, known: Known | None, other: str | None, members: list[Elsewhere], gone: Mapping[str, Known]
    ) -> Iterator[Told]:
        """What is to be said of members whose paths the database has in another bundle, or as files of their own."""
        lost = members if other in gone else self._not_there(members) if other is None else []
        same = [entry for entry, place in members if is_same(entry, place)]
        here = [one for one in lost if is_same(*one)]
        if here:
            if not self.dry_run:
                rows.lay_into(self.database, self.store.name, path, here)
            where = f"from {shown(other)}, which is" if other else "as files of their own, which are"
            yield Told(
                path, MENDED, f"{named([one.path for one, _ in here])}: known {where} not there; served from here"
            )
        if known is not None and not (known.trouble or "").startswith(CONFLICT):
            return  # the database knew both: what is in the other place took the place of what is here
        where = f"in {shown(other)}" if other else "as files of their own"
        if len(same) > len(here):
            left = [one.path for one in same if one not in {entry for entry, _ in here}]
            yield Told(path, NOTE, f"{named(left)}: {where} too, with the same bytes, and served from there")
        if refused := [entry.path for entry, place in members if not is_same(entry, place)]:
            text = f"{CONFLICT}: {named(refused)} {where}, from where they are served; move what is wrong elsewhere"
            yield Told(path, TROUBLE, text)

    def _not_there(self, members: list[Elsewhere]) -> list[Elsewhere]:
        """Those that the database has as files of their own, and that are no such files."""
        found = list(self.store.physical.find([entry.path for entry, _ in members]))
        return [one for one, info in zip(members, found, strict=True) if info is None]

    # ------------------------------------------------------------------------- files of their own

    def _files(self, lot: list[FileInfo]) -> Iterator[Told]:
        """Files that are no bundles: what the database does not know is told, or read and added."""
        places = rows.places(self.database, self.store.name, [info.path for info in lot])
        unknown = [info for info in lot if info.path not in places]
        for info in lot:
            if (place := places.get(info.path)) is not None:
                self.counts.files_known += 1
                yield from self._known_file(info, place)
        if self.deep:
            yield from self._read_files(unknown)
        else:
            self.counts.files_unknown += len(unknown)
            yield from (Told(info.path, UNKNOWN, "the database does not know it; `--deep` adds it") for info in unknown)

    def _known_file(self, info: FileInfo, place: Place) -> Iterator[Told]:
        if place.bundle is not None:
            digest = place.digest
            if self.deep and info.size == place.size:
                found = only(self.store.physical.digest([info.path], reread=True))
                if isinstance(found, TransferError):
                    yield Told(info.path, TROUBLE, sentence(found))
                    return
                digest = found[2]
            same = (info.size, digest) == (place.size, place.digest)
            what = "the same bytes" if same and self.deep else "as many bytes" if same else "other bytes"
            yield Told(
                info.path, NOTE if same else TROUBLE, f"it is a member of {shown(place.bundle)} too, with {what}"
            )
        elif info.size != place.size:
            yield Told(info.path, TROUBLE, f"it has {info.size} bytes, and had {place.size} when it was proven")

    def _read_files(self, lot: list[FileInfo]) -> Iterator[Told]:
        """Read files of their own, and add them as copies."""
        host = self.store.physical
        ready: list[FileInfo] = []
        for info, late in brought(host, {info: [info.path] for info in lot}, self.patience_s):
            if late is None:
                ready.append(info)
            else:
                yield Told(info.path, TROUBLE, sentence(late))
        read: list[tuple[FileInfo, str]] = []
        for info, found in zip(ready, host.digest([one.path for one in ready], reread=True), strict=True):
            if isinstance(found, TransferError):
                yield Told(info.path, TROUBLE, sentence(found))
            elif found[1] != info.size:
                yield Told(info.path, TROUBLE, "it is being changed: it had another size when it was listed")
            else:
                read.append((info, found[2]))
        self.counts.files_added += len(read)
        if not self.dry_run:
            rows.add_files(self.database, self.store.name, read, "reread")
        yield from (Told(info.path, ADDED, "it is known now, and was read") for info, _ in read)


def is_same(entry: Entry, place: Place) -> bool:
    return (entry.size, entry.digest) == (place.size, place.digest)


def _conflicts_first(trouble: str) -> bool:
    """What sorts a conflict before all else: it is what the next pass must know of."""
    return not trouble.startswith(CONFLICT)
