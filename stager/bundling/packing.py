"""One bundle carried out: its members looked into, packed on their way to the store, proven there, and only then known.

Nothing is written of a bundle before it is proven at its place: then all of it in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from stager import items
from stager.batches import Batch, failed
from stager.bundling import choosing
from stager.bundling.choosing import Chosen
from stager.copies import Stored
from stager.items import Claimed, Finished
from stager.looking import Looking
from stager.second_stores import check_apart
from transfers.bundles.packing import MemberFault, Packed, pack
from transfers.bundles.store import BundledStore
from transfers.copying import already_there, land_bytes
from transfers.errors import TransferError, Transient
from transfers.hosts import Host, Receipt, Want


def carry_out(batch: Batch, chosen: Chosen) -> int:
    """Bring the members of a bundle to the store, or say of each why not; returns how many came. Never raises a
    TransferError. What is not begun is given back."""
    work = _Work(batch, chosen)
    try:
        work.carry_out()
    except TransferError as error:  # of the bundle as a whole, or of a host
        work.fail_rest(error)
    return work.write()


class _Work:
    """A bundle on its way, and what is known of its members so far."""

    def __init__(self, batch: Batch, chosen: Chosen) -> None:
        self.batch = batch
        self.chosen = chosen
        self.looking = Looking(batch, batch.source, batch.destination)
        self.begun = time.monotonic()
        self.open = {item.id: item for item in chosen.members}
        self.finished: list[Finished] = []
        self.stored: list[Stored] = []
        self.first: dict[int, tuple[Receipt, bool]] = {}  # of members at the first store: whether in a bundle

    def carry_out(self) -> None:
        batch = self.batch
        try:
            wants = self._bring(batch.destination, self._sound())
            if batch.second is not None and wants and not batch.ends():
                check_apart(batch.destination, batch.second)
                self._bring(batch.second, wants)
        except MemberFault as fault:
            self._failed(self.open[fault.item], fault.error.at("source"))
            choosing.let_go(batch.database, self.chosen)  # the others need not wait for it
        else:
            if not batch.ends() and all(one.host != self.chosen.host for one in self.stored):
                choosing.let_go(batch.database, self.chosen)  # there is no such bundle to be

    def _sound(self) -> list[Want]:
        """What the members are wanted for; those that a look held are finished."""
        wants = []
        for one in self.looking.wants():
            if isinstance(one, Want):
                wants.append(one)
            else:
                want, trouble = one
                assert isinstance(trouble, TransferError)  # a look gives no receipts
                self._failed(self.open[want.item], trouble)
        return wants

    def _bring(self, store: Host, wants: Sequence[Want]) -> list[Want]:
        """Bring members to a store; returns those that are there now, each with the digest that was proven: no other
        bytes are to come to the second one."""
        there, missing = self._looked_for(store, wants)
        if missing and not self.batch.ends():
            there += self._pack(store, missing)
        return there

    def _looked_for(self, store: Host, wants: Sequence[Want]) -> tuple[list[Want], list[Want]]:
        """Those of which the store has a file of the name, adopted, and those of which it has none; what is in the way
        of one is told of it."""
        looked = already_there(self.batch.source, store, wants, self.batch.stop)
        found = {want.item: result for want, result in looked}
        there: list[Want] = []
        for want in wants:
            result = found.get(want.item)
            if isinstance(result, TransferError):
                self._failed(self.open[want.item], result)
            elif result is not None:
                there.append(self._arrived(store, want, result, bundled=False))
        return there, [want for want in wants if want.item not in found]

    def _pack(self, store: Host, wants: Sequence[Want]) -> list[Want]:
        if store is self.batch.destination and len(wants) < len(self.chosen.members):
            kept = {one.item for one in wants}
            self.chosen = choosing.shrink(self.batch.database, self.chosen, self.batch.manifest, kept)
        packed = self._packed(store, wants)
        self._store(store.name, packed)
        entries = {entry.path: entry for entry in packed.index.entries}
        proof, adopted = packed.receipt.proof, packed.receipt.adopted
        there = []
        for want in wants:
            entry = entries[want.destination]
            receipt = Receipt(want.item, entry.path, entry.size, entry.digest, entry.mtime_ns, proof, adopted)
            there.append(self._arrived(store, want, receipt, bundled=True))
        return there

    def _packed(self, store: Host, wants: Sequence[Want]) -> Packed:
        """Pack the members onto a store: the bundle and beside it its index, both proven there."""
        batch, chosen = self.batch, self.chosen
        assert isinstance(store, BundledStore)
        packed = pack(
            batch.source,
            store.physical,
            wants,
            choosing.path_of(batch.manifest, chosen.label, wants),
            chosen.label,
            proof=batch.manifest.proof,
            on_bytes=batch.throttle,
            stop=batch.stop,
        )
        first = wants[0]
        land_bytes(store.physical, packed.index_path, packed.index_bytes, first.epoch, first.item)
        return packed

    def _store(self, host: str, packed: Packed) -> None:
        receipt = packed.receipt
        self.stored.append(
            Stored(
                host,
                receipt.path,
                self.chosen.label,
                receipt.size,
                receipt.digest,
                receipt.proof,
                packed.index.entries,
                self.chosen.members[0].manifest_id,
            )
        )

    def _arrived(self, store: Host, want: Want, receipt: Receipt, *, bundled: bool) -> Want:
        """A member is proven at a store. It is done when it is at the last of them."""
        if store is self.batch.destination:
            self.first[want.item] = receipt, bundled
            if self.batch.second is None:
                self._done(want.item)
        elif bundled:
            self._done(want.item)
        else:
            self._done(want.item, (store.name, receipt))
        return want._replace(digest=receipt.digest)

    def _done(self, item_id: int, *second: tuple[str, Receipt]) -> None:
        item = self.open.pop(item_id)
        receipt, bundled = self.first[item_id]
        images, found = self.looking.seen.pop(item_id, ((), None))
        one = Finished(item, self._seconds(), (receipt,), images, findings=found, bundled=bundled, second=second)
        self.finished.append(one)

    def _failed(self, item: Claimed, error: TransferError) -> None:
        _, found = self.looking.seen.pop(item.id, ((), None))
        del self.open[item.id]
        self.finished.append(failed(self.batch, item, error, self._seconds(), found))

    def _seconds(self) -> float:
        return time.monotonic() - self.begun

    def fail_rest(self, error: TransferError) -> None:
        """Say of every member that is left why it did not come; where a host is to blame, of the first alone."""
        for item in list(self.open.values()):
            stopped = Transient("it was not begun", side="local", phase="stopped")
            self._failed(item, stopped if self.batch.ends() else error)

    def write(self) -> int:
        """Write all that became of the bundle, in one transaction; what was not begun is given back."""
        self.fail_rest(Transient("it was not begun", side="local", phase="stopped"))
        batch = self.batch
        for one in self.finished:
            if one.decision is None or not one.decision.released:
                batch.traffic.finished(one.error is None)
        written = items.finish(
            batch.database, batch.worker, self.finished, stored=self.stored, folders=batch.config.camera_folders
        )
        batch.progress.items += written.done
        return written.done
