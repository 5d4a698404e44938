"""Second copies on another store: two that are lost together are one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stager.batches import Batch, failed
from stager.items import Finished
from transfers.agent import MARKER
from transfers.copying import copy
from transfers.errors import Refused, TransferError
from transfers.hosts import Host, Want, identity_of


def why_together(first: Host, second: Host) -> str | None:
    """Why copies at these two stores would be lost together; None where they would not, as far as can be known: a host
    that is spoken to by SFTP alone cannot say on which disk its files lie."""
    one, other = (identity_of(host, MARKER) or identity_of(host) for host in (first, second))  # a dry run marks none
    if one is None or other is None:
        return None
    if one == other:
        return f"{first.name} and {second.name} are one folder: a second copy there would be the first one"
    if one.system == other.system:
        return f"{first.name} and {second.name} lie on one file system: two copies on it are lost together"
    return None


def check_apart(first: Host, second: Host) -> None:
    """Raises Refused where copies at these two stores would be lost together."""
    if why := why_together(first, second):
        raise Refused(f"{why}; name another store as `second`", host=second.name, side="store", phase="check")


def both(batch: Batch, second: Host, brought: Iterator[Finished]) -> Iterator[Finished]:
    """What was brought to the first store, brought to the second too, from the same source and held against the same
    digest; an item is done when it is proven at both."""
    done: dict[int, Finished] = {}
    for one in brought:
        if one.error is None:
            done[one.item.id] = one
        else:
            yield one
    if not done:
        return
    try:
        check_apart(batch.destination, second)
    except TransferError as error:
        yield from (failed(batch, one.item, error, one.seconds, one.findings) for one in done.values())
        return
    wants = [_want(batch, one) for one in done.values()]
    for want, result in copy(
        batch.source,
        second,
        wants,
        proof=batch.manifest.proof,
        streams=batch.traffic.streams,
        on_bytes=batch.throttle,
        stop=batch.stop,
    ):
        one = done.pop(want.item)
        if isinstance(result, TransferError):
            yield failed(batch, one.item, result, one.seconds, one.findings)
        else:
            yield replace(one, second=((second.name, result),))


def _want(batch: Batch, one: Finished) -> Want:
    item, (receipt,) = one.item, one.receipts
    assert item.destination is not None  # it was brought there
    return Want(
        item.id,
        item.epoch,
        item.source,
        item.destination,
        receipt.size,
        item.mtime_ns,
        receipt.digest,
        batch.manifest.replace,
    )
