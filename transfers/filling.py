"""Large files cut over several streams: blocks that all lanes fill, and one landing that proves the whole.

The landing opens a part for each file; lanes read blocks of the source and write them into the part, in any order;
as the beginning of the part becomes complete, the landing is told, and syncs and reads back behind the writers. The
source is hashed beside it, in one pass of its own. Proof and placing are those of every landing.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transfers.agent import facts_of
from transfers.errors import Congested, HostDown, SourceChanged, SourceCorrupt, TransferError, Transient, to_fault
from transfers.hosts import Frame, Opened, Receipt, Want

if TYPE_CHECKING:
    from transfers.lanes import Lanes

BLOCK_BYTES = 4 << 20
OPEN_FILES = 2  # filled at the same time: the second, so that no lane waits for the first to end
BLOCK_TRIES = 3
BROKEN = (Transient, Congested, HostDown)  # what may befall one stream and not the file

numbers = itertools.count(1)


@dataclass(eq=False, slots=True)
class LargeFile:
    """A file that is being filled."""

    want: Want
    blocks: int = 0  # that are not filled yet
    upto: int = 0  # all before is filled
    beyond: dict[int, int] = field(default_factory=dict)  # offset to size of what is filled after a gap
    digest: str | None = None  # of the source
    over: bool = False  # closed or dropped: nothing more is to be done for it


@dataclass(eq=False, slots=True)
class Block:
    """A stretch of a file and where it goes: what the source is asked for, and what the destination is told."""

    file: LargeFile
    want: Want
    facts: dict[str, Any]
    tries: int = 0


class Filling:
    """The large files of one batch. Its landing runs in one thread, the source's hashing in another."""

    LEAST = 32 << 20  # bytes of a file that is worth cutting

    def __init__(self, lanes: Lanes, wants: Sequence[Want]) -> None:
        self._lanes = lanes
        self._changed = threading.Condition()
        self._unopened = deque(LargeFile(want) for want in wants)
        self._files = {file.want.item: file for file in self._unopened}
        self._blocks: deque[Block] = deque()
        self._opened: set[int] = set()
        self._events: queue.Queue[Frame | None] = queue.Queue()
        self._unanswered = set(self._files)
        self._ended = threading.Event()
        self._landing = threading.Thread(target=self._land, name="filling", daemon=True)
        self._hashing = threading.Thread(target=self._hash, args=(list(self._unopened),), name="hashing", daemon=True)

    def start(self) -> None:
        with self._changed:
            self._open_more()
        self._landing.start()
        self._hashing.start()

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    def leave(self) -> None:
        """End early: the lanes are going."""
        with self._changed:
            self._events.put(None)
            self._changed.notify_all()

    def join(self) -> None:
        self._landing.join()
        self._hashing.join()

    # For the lanes.

    def left(self) -> int:
        """How many blocks could be taken now, or soon."""
        with self._changed:
            return len(self._blocks) + sum(
                1 + file.want.size // BLOCK_BYTES for file in self._unopened if file.want.size
            )

    def take(self) -> Block | None:
        with self._changed:
            return self._blocks.popleft() if self._blocks else None

    def wait_for_more(self, number: int) -> bool:
        """Wait until there is a block to take; False when there will be none for this lane."""
        with self._changed:
            while self._unanswered and not self._ended.is_set():
                if self._lanes.stop() or number >= self._lanes.streams.allowed():
                    return False
                if self._blocks:
                    return True
                if not self._unopened and not any(file.blocks for file in self._files.values() if not file.over):
                    return False
                self._changed.wait(0.2)
        return False

    def filled(self, block: Block, error: TransferError | None) -> None:
        """A block was written, or it failed for good."""
        with self._changed:
            if error is not None:
                self._fail(block.file, error)
            elif not block.file.over:
                self._count(block)

    def lost(self, block: Block, error: TransferError) -> None:
        """The stream broke off with the block on it: another may bring it."""
        with self._changed:
            block.tries += 1
            if isinstance(error, BROKEN) and error.phase != "stopped" and block.tries < BLOCK_TRIES:
                if not block.file.over:
                    self._blocks.appendleft(block)
                    self._changed.notify_all()
            else:
                self._fail(block.file, error)

    def lane_ended(self, last_error: TransferError | None) -> None:
        """A lane is gone; with an error, it was the last one, and nothing more will be filled."""
        with self._changed:
            if last_error is not None:
                for file in list(self._files.values()):
                    if file.blocks or file in self._unopened:
                        self._fail(file, last_error)
            self._changed.notify_all()

    # Within the condition.

    def _open_more(self) -> None:
        """Have parts opened for as many files as are filled at once."""
        filling = [
            file for file in self._files.values() if file.want.item in self._opened and file.blocks and not file.over
        ]
        for _ in range(OPEN_FILES - len(filling)):
            if not self._unopened:
                return
            file = self._unopened.popleft()
            file.blocks = -(-(file.want.size or 0) // BLOCK_BYTES)
            self._opened.add(file.want.item)
            self._events.put(("open", facts_of(file.want, file.want.size, file.want.mtime_ns)[1]))

    def _count(self, block: Block) -> None:
        file = block.file
        file.blocks -= 1
        file.beyond[block.facts["offset"]] = block.facts["size"]
        before = file.upto
        while file.upto in file.beyond:
            file.upto += file.beyond.pop(file.upto)
        if file.upto != before:
            self._events.put(("wrote", {"item": file.want.item, "upto": file.upto}))
        if not file.blocks:
            self._open_more()
            self._close(file)

    def _close(self, file: LargeFile) -> None:
        """End a file whose blocks are all filled and whose source is hashed."""
        if file.blocks or file.digest is None or file.over or file.want.item not in self._opened:
            return
        file.over = True
        said = {"item": file.want.item, "size": file.want.size, "digest": file.digest}
        self._events.put(("close", said))
        self._end_if_over()

    def _end_if_over(self) -> None:
        """End the landing's frames once every file is closed or given up: it answers for the last ones then."""
        if all(file.over for file in self._files.values()):
            self._events.put(None)

    def _fail(self, file: LargeFile, error: TransferError) -> None:
        if file.over:
            return
        file.over = True
        file.blocks = 0
        self._blocks = deque(block for block in self._blocks if block.file is not file)
        if file in self._unopened:
            self._unopened.remove(file)
            self._answer(file, error)
            self._end_if_over()
            return
        fault = to_fault(error)
        fault.facts.setdefault("host", error.host or self._lanes.source.name)
        self._events.put(("drop", {"item": file.want.item, "fault": fault}))
        self._open_more()
        self._end_if_over()

    def _answer(self, file: LargeFile, result: Receipt | TransferError) -> None:
        from transfers.lanes import as_result

        self._unanswered.discard(file.want.item)
        if isinstance(result, Receipt):
            self._lanes.tell((file.want, result))
        else:
            self._lanes.tell(as_result(file.want, result, self._lanes.destination))
        self._changed.notify_all()

    # The landing's thread.

    def _land(self) -> None:
        error: TransferError | None = None
        try:
            for result in self._lanes.destination.land(self._frames(), self._lanes.proof, self._lanes.stop):
                with self._changed:
                    self._take_result(result)
        except TransferError as broken:
            error = broken
            self._lanes.failed(broken)
        finally:
            with self._changed:
                why = error or Transient("stopped before the file was done", phase="stopped", side="local")
                for item in list(self._unanswered):
                    self._files[item].over = True
                    self._answer(self._files[item], why)
                self._blocks.clear()
                self._ended.set()
                self._changed.notify_all()
            self._lanes.tell(None)

    def _frames(self) -> Iterator[Frame]:
        while (event := self._events.get()) is not None:
            yield event

    def _take_result(self, result: Receipt | TransferError | Opened) -> None:
        item = result.facts["item"] if isinstance(result, TransferError) else result.item
        file = self._files[item]
        if not isinstance(result, Opened):
            if isinstance(result, TransferError):
                self._fail_quietly(file)
            self._answer(file, result)
        elif not file.over:
            self._blocks.extend(self._cut(file, result))
            self._changed.notify_all()

    def _fail_quietly(self, file: LargeFile) -> None:
        """The landing has given a file up: its blocks are of no use any more."""
        file.over = True
        file.blocks = 0
        self._blocks = deque(block for block in self._blocks if block.file is not file)
        self._open_more()
        self._end_if_over()

    def _cut(self, file: LargeFile, opened: Opened) -> Iterator[Block]:
        want = file.want
        assert want.size is not None
        for offset in range(0, want.size, BLOCK_BYTES):
            size = min(BLOCK_BYTES, want.size - offset)
            # A number of its own, so that no two blocks are taken for one unit; the whole is proven, not its blocks.
            asked = want._replace(item=next(numbers), epoch=0, digest=None, stretch=(offset, size))
            facts = {"part": opened.part, "inode": opened.inode, "offset": offset, "size": size}
            yield Block(file, asked, facts)

    # The hashing thread.

    def _hash(self, files: Sequence[LargeFile]) -> None:
        """The digests of the sources, in the order in which they are filled."""
        try:
            found = self._lanes.source.digest([file.want.source for file in files], stop=self._stopped)
            for file, result in zip(files, found, strict=True):
                with self._changed:
                    self._hashed(file, result)
        except TransferError as error:
            with self._changed:
                for file in files:
                    if file.digest is None:
                        self._fail(file, error)

    def _stopped(self) -> bool:
        return self._ended.is_set() or self._lanes.stop()

    def _hashed(self, file: LargeFile, result: tuple[str, int, str] | TransferError) -> None:
        host, want = self._lanes.source.name, file.want
        if isinstance(result, TransferError):
            self._fail(file, result.at("source"))
        elif result[1] != want.size:
            text, facts = f"it has {result[1]} bytes instead of {want.size}", {"size": result[1]}
            self._fail(file, SourceChanged(text, host=host, side="source", path=want.source, facts=facts))
        elif want.digest is not None and result[2] != want.digest.lower():
            text, found = (
                "the file does not have the digest expected of it",
                {"expected": want.digest, "found": result[2]},
            )
            self._fail(file, SourceCorrupt(text, host=host, side="source", path=want.source, facts=found))
        else:
            file.digest = result[2]
            self._close(file)
