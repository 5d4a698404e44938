"""One bundle from a host to a store: its members read, packed as they come, and landed there like any other file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from transfers.bundles.frames import Packing
from transfers.bundles.index import BUNDLE, INDEX, Index, Layout, layout_of
from transfers.errors import SourceCorrupt, TransferError, Transient
from transfers.hosts import Frame, Host, Opened, Receipt, Stop, Want, never, only


@dataclass(frozen=True, slots=True)
class Packed:
    """A bundle that was proven on a store, and the file that is to lie beside it."""

    receipt: Receipt
    index: Index
    index_path: str
    index_bytes: bytes


class MemberFault(Exception):
    """A member could not be packed, and so its bundle was not made."""

    def __init__(self, item: int, error: TransferError) -> None:
        super().__init__(str(error))
        self.item = item
        self.error = error


def pack(
    source: Host,
    store: Host,
    wants: Sequence[Want],
    path: str,
    label: str,
    *,
    proof: str = "reread",
    on_bytes: Callable[[int], None] | None = None,
    stop: Stop = never,
) -> Packed:
    """Pack what is wanted of the source into a bundle at `path` of the store. The destinations of the wants are the
    members' paths.

    Raises MemberFault when one of them could not be read as it should be, and the TransferError that the landing
    ended with; then nothing of the bundle is there.
    """
    by_path = {want.destination: want for want in wants}
    try:
        layout = layout_of(label, [(want.destination, want.size or 0, want.mtime_ns or 0) for want in wants])
    except SourceCorrupt as error:
        if (bad := by_path.get(str(error.facts.get("member")))) is None:
            raise
        raise MemberFault(bad.item, error.about(bad.source, source.name)) from error
    in_order = [by_path[member.path] for member in layout.members]
    packing = Packing(layout, in_order[0]._replace(destination=path, replace=False), source.name)
    frames = packing.frames(_read(source, in_order, on_bytes))
    try:
        result = only(one for one in store.land(frames, proof, stop) if not isinstance(one, Opened))
    except ValueError:  # it was told to stop before the bundle began
        raise Transient("stopped before it was begun", host=store.name, side="local", phase="stopped") from None
    finally:
        frames.close()
    if isinstance(result, TransferError):
        raise _told(result, packing)
    return _packed(layout, packing, result, path)


def _read(source: Host, wants: Sequence[Want], on_bytes: Callable[[int], None] | None) -> Generator[Frame, None, None]:
    """The source's frames, counted."""
    frames: Iterator[Frame] = source.read(wants)
    try:
        for frame in frames:
            if frame[0] == "data" and on_bytes is not None:
                on_bytes(len(frame[1]))
            yield frame
    finally:
        if isinstance(frames, Generator):
            frames.close()


def _told(error: TransferError, packing: Packing) -> BaseException:
    """The error that a landing ended with: a member's, where one is to blame and its host is not."""
    if packing.broken is not None:
        return packing.broken
    item, path = error.facts.get("member_item"), error.facts.get("member")
    if not isinstance(item, int) or not isinstance(path, str):
        return error
    return MemberFault(item, error.about(path, error.host))


def _packed(layout: Layout, packing: Packing, receipt: Receipt, path: str) -> Packed:
    assert packing.index is not None  # the landing had the end of it
    assert packing.beside is not None
    return Packed(receipt, packing.index, path.removesuffix(BUNDLE) + INDEX, packing.beside)
