"""Large files cut over several streams: blocks that all lanes fill, and one landing that proves the whole.

The landing opens a part for each file; lanes read blocks of the source and write them into the part, in any order;
as the beginning of the part becomes complete, the landing is told, and syncs and reads back behind the writers. The
source is hashed beside it, in one pass of its own. Proof and placing are those of every landing.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from transfers.agent import facts_of
from transfers.errors import Congested, HostDown, SourceChanged, SourceCorrupt, TransferError, Transient, to_fault
from transfers.hosts import Frame, Host, Opened, Receipt, Want
from transfers.streams import Streams

BLOCK_BYTES = 4 << 20
OPEN_FILES = 2  # filled at the same time: the second, so that no lane waits for the first to end
BLOCK_TRIES = 3
TRIES = 3  # of a landing's conversation, and of one that hashes
PAUSE_S = 0.5  # before a far side that had too many at once is asked again
BROKEN = (Transient, Congested, HostDown)  # what may befall one stream and not the file

numbers = itertools.count(1)


def _blocks_of(want: Want) -> int:
    return -(-(want.size or 0) // BLOCK_BYTES)


@dataclass(eq=False, slots=True)
class LargeFile:
    """A file that is being filled."""

    want: Want
    blocks: int = 0  # that are not filled yet
    upto: int = 0  # all before is filled
    beyond: dict[int, int] = field(default_factory=dict)  # offset to size of what is filled after a gap
    digest: str | None = None  # of the source
    opened: bool = False  # the landing was asked to make its part
    over: bool = False  # closed or dropped: nothing more is to be done for it


@dataclass(eq=False, slots=True)
class Block:
    """A stretch of a file and where it goes: what the source is asked for, and what the destination is told."""

    file: LargeFile
    want: Want
    facts: dict[str, Any]
    tries: int = 0


class Feed:
    """A landing's frames, as they are put. Any thread may `end` it: who waits for a frame is let go then."""

    def __init__(self) -> None:
        self._frames: queue.Queue[Frame | None] = queue.Queue()
        self.begun = False  # somebody has taken a frame

    def put(self, name: str, body: Any) -> None:
        self._frames.put((name, body))

    def end(self) -> None:
        self._frames.put(None)

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Frame:
        frame = self._frames.get()
        if frame is None:
            self._frames.put(None)  # for whoever asks once more
            raise StopIteration
        self.begun = True
        return frame


class Team(Protocol):
    """Who fills: the lanes of one batch, as far as a filling knows them."""

    source: Host
    destination: Host
    proof: str
    streams: Streams
    changed: threading.Condition  # the one lock of the batch

    def stop(self) -> bool: ...

    def tell(self, result: tuple[Want, Receipt | TransferError] | None) -> None: ...

    def failed(self, error: TransferError, number: int | None = None) -> None: ...

    def broke(self, error: BaseException) -> None: ...


class Filling:
    """The large files of one batch. Their landing runs in one thread, the source's hashing in another.

    The methods that lanes call hold the lanes' lock, and so does all that changes something here.
    """

    def __init__(self, lanes: Team) -> None:
        self._lanes = lanes
        self._unopened: deque[LargeFile] = deque()
        self._files: dict[int, LargeFile] = {}  # by item: those that have no result yet
        self._blocks: deque[Block] = deque()
        self._feed = Feed()
        self._to_hash: queue.Queue[LargeFile | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._closed = False  # no more files come
        self._landed = False  # the landing's thread has ended...
        self._why: TransferError = Transient("stopped before the file was done", phase="stopped", side="local")  # of it

    def add(self, want: Want) -> None:
        """One file more."""
        if not self._threads:
            for name, run in (("filling", self._land), ("hashing", self._hash)):
                thread = threading.Thread(target=run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        file = LargeFile(want)
        self._files[want.item] = file
        if self._landed:
            file.over = True
            self._answer(file, self._why)
            return
        self._unopened.append(file)
        self._to_hash.put(file)
        self._open_more()

    def close(self) -> None:
        """No more files come."""
        self._closed = True
        self._to_hash.put(None)
        self._end_if_over()

    def end(self) -> None:
        """Wait for the threads, after `close`; what is under way ends early where the lanes were told to stop."""
        with self._lanes.changed:
            self._feed.end()
        for thread in self._threads:
            thread.join()

    def is_over(self) -> bool:
        return self._closed and (self._landed or not self._threads)

    # For the lanes.

    def has_blocks(self) -> bool:
        return bool(self._blocks)

    def may_have_blocks(self) -> bool:
        """Whether there are blocks to take, or some may come back from a lane, or come from files not yet opened."""
        return bool(self._blocks) or any(not file.over for file in self._files.values())

    def blocks_to_come(self) -> int:
        """How many blocks there are now, or will be soon."""
        return len(self._blocks) + sum(_blocks_of(file.want) for file in self._files.values() if not file.opened)

    def take(self) -> Block | None:
        return self._blocks.popleft() if self._blocks else None

    def put_back(self, block: Block) -> None:
        """A block that was taken and not tried."""
        if not block.file.over:
            self._blocks.appendleft(block)
            self._lanes.changed.notify_all()

    def filled(self, block: Block, error: TransferError | None) -> None:
        """A block was written, or it failed for good."""
        if error is not None:
            self._fail(block.file, error)
        elif not block.file.over:
            self._count(block)

    def lost(self, block: Block, error: TransferError) -> None:
        """The stream broke off with the block on it: another may bring it."""
        block.tries += 1
        if not isinstance(error, BROKEN) or error.phase == "stopped" or block.tries >= BLOCK_TRIES:
            self._fail(block.file, error)
        else:
            self.put_back(block)

    def give_up(self, error: TransferError) -> None:
        """No lane is left, and none will come: nothing more will be filled."""
        for file in list(self._files.values()):
            if file.blocks or not file.opened:
                self._fail(file, error)

    # Within the lock.

    def _open_more(self) -> None:
        """Have parts opened for as many files as are filled at once."""
        filling = sum(1 for file in self._files.values() if file.opened and file.blocks and not file.over)
        while self._unopened and filling < OPEN_FILES:
            file = self._unopened.popleft()
            file.opened, file.blocks = True, _blocks_of(file.want)
            self._feed.put("open", facts_of(file.want, file.want.size, file.want.mtime_ns)[1])
            filling += 1

    def _count(self, block: Block) -> None:
        file = block.file
        file.blocks -= 1
        file.beyond[block.facts["offset"]] = block.facts["size"]
        before = file.upto
        while file.upto in file.beyond:
            file.upto += file.beyond.pop(file.upto)
        if file.upto != before:
            self._feed.put("wrote", {"item": file.want.item, "upto": file.upto})
        if not file.blocks:
            self._open_more()
            self._close(file)

    def _close(self, file: LargeFile) -> None:
        """End a file whose blocks are all filled and whose source is hashed."""
        if file.blocks or file.digest is None or file.over or not file.opened:
            return
        file.over = True
        said = {"item": file.want.item, "size": file.want.size, "digest": file.digest}
        self._feed.put("close", said)
        self._end_if_over()

    def _end_if_over(self) -> None:
        """End the landing's frames once every file is closed or given up: it answers for the last ones then."""
        if self._closed and all(file.over for file in self._files.values()):
            self._feed.end()

    def _fail(self, file: LargeFile, error: TransferError) -> None:
        if file.over:
            return
        self._leave(file)
        if file in self._unopened:
            self._unopened.remove(file)
            self._answer(file, error)
        else:
            fault = to_fault(error)
            fault.facts.setdefault("host", error.host or self._lanes.source.name)
            self._feed.put("drop", {"item": file.want.item, "fault": fault})
        self._open_more()
        self._end_if_over()

    def _leave(self, file: LargeFile) -> None:
        """Nothing more is to be filled of this file."""
        file.over, file.blocks = True, 0
        self._blocks = deque(block for block in self._blocks if block.file is not file)

    def _answer(self, file: LargeFile, result: Receipt | TransferError) -> None:
        """Tell a file's result, once."""
        if self._files.pop(file.want.item, None) is None:
            return
        if isinstance(result, TransferError):
            result = result.about(file.want.destination, self._lanes.destination.name)
        self._lanes.tell((file.want, result))
        self._lanes.changed.notify_all()

    # The landing's thread.

    def _land(self) -> None:
        lanes = self._lanes
        try:
            turn = 1
            while (error := self._landing()) is not None:
                lanes.failed(error)
                with lanes.changed:
                    self._why = error
                    if turn == TRIES or not isinstance(error, Transient | Congested) or not self._begin_anew(error):
                        break
                if isinstance(error, Congested):
                    time.sleep(PAUSE_S)
                turn += 1
        except BaseException as error:  # noqa: BLE001  it is raised again by who asks for the results
            lanes.broke(error)
        finally:
            with lanes.changed:
                for file in list(self._files.values()):
                    self._leave(file)
                    self._answer(file, self._why)
                self._unopened.clear()
                self._landed = True
                lanes.changed.notify_all()
            lanes.tell(None)

    def _landing(self) -> TransferError | None:
        """One conversation; the error that it was broken off by."""
        lanes = self._lanes
        try:
            for result in lanes.destination.land(self._feed, lanes.proof, lanes.stop):
                with lanes.changed:
                    self._take_result(result)
        except TransferError as error:
            return error
        return None

    def _begin_anew(self, error: TransferError) -> bool:
        """After a landing broke off: the files that were open in it are lost; whether others are left to land."""
        if self._lanes.stop():
            return False
        if self._feed.begun:
            self._feed = Feed()
            for file in [file for file in self._files.values() if file.opened]:
                self._leave(file)
                self._answer(file, error)
            self._open_more()
            self._end_if_over()
        return bool(self._files) or not self._closed

    def _take_result(self, result: Receipt | TransferError | Opened) -> None:
        item = result.facts["item"] if isinstance(result, TransferError) else result.item
        file = self._files.get(item)
        if file is None:
            return
        if isinstance(result, Opened):
            if not file.over:
                self._blocks.extend(self._cut(file, result))
                self._lanes.changed.notify_all()
            return
        self._leave(file)
        self._answer(file, result)
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

    def _hash(self) -> None:
        """The digests of the sources, in the order in which they are filled."""
        while (file := self._to_hash.get()) is not None:
            if file.over or self._landed:
                continue
            try:
                result = self._digest(file)
            except BaseException as error:  # noqa: BLE001  it is raised again by who asks for the results
                self._lanes.broke(error)
                return
            with self._lanes.changed:
                self._hashed(file, result)

    def _digest(self, file: LargeFile) -> tuple[str, int, str] | TransferError:
        """What the source holds; asked again where the conversation, and not the file, was the trouble."""

        def stop() -> bool:
            return file.over or self._landed or self._lanes.stop()

        turn = 1
        while True:
            try:
                (result,) = self._lanes.source.digest([file.want.source], stop=stop)  # to its end, so that it is kept
                return result
            except TransferError as error:
                if turn == TRIES or stop() or not isinstance(error, Transient | Congested):
                    return error
                if isinstance(error, Congested):
                    self._lanes.streams.congested(time.monotonic())
                    time.sleep(PAUSE_S)
            turn += 1

    def _hashed(self, file: LargeFile, result: tuple[str, int, str] | TransferError) -> None:
        host, want = self._lanes.source.name, file.want
        if isinstance(result, TransferError):
            self._fail(file, result if result.side == "route" else result.at("source"))
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
