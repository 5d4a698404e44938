"""Landing over SFTP: the agent's own windows, groups and rules, over files that are on the far side of a wire.

A part is written over one session and proven over another beside it: synced, where the server offers that,
and read back over the wire. There are no numbers of files in SFTP, so that a part is still the one that was
proven is told from its size and time.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from transfers.agent import (
    QUARANTINE,
    Buffer,
    Fault,
    Landing,
    Part,
    Placing,
    Proven,
    Stop,
    fault_of,
    part_name,
    raw,
    stopped,
)
from transfers.errors import TransferError
from transfers.sftp.reading import digest_at
from transfers.sftp.tree import SYNC, Tree
from transfers.sftp.wire import FAILURE, FOR_A_NEW_FILE, FOR_READING, Session, Writing, attributes

LAST_SECOND = (1 << 32) - 1  # SFTP 3 counts them in 32 bits
CHANGED = "the part is not what it was when it was proven: another file has taken its place"


class FarPart(Part):
    """One file on its way to its final name, over SFTP."""

    def __init__(self, facts: dict[str, Any], tree: Tree) -> None:
        super().__init__(facts)
        self.far = tree
        self.writing: Writing | None = None
        self.place = b""  # of the part

    def make_in(self, folder: Any, instance: str) -> None:
        item, epoch = self.facts["item"], self.facts["epoch"]
        for turn in range(100):
            name = part_name(self.last_name, item, epoch, turn, instance)
            place = folder.rstrip(b"/") + b"/" + name
            try:
                handle = self.far.session.open(place, FOR_A_NEW_FILE)
            except OSError as error:
                if error.errno == FAILURE and self.far.is_there(place):
                    continue
                raise self.far.explained(error) from error
            self.writing = Writing(self.far.session, handle)
            self.name, self.place = name, place
            return
        raise Fault("conflict", "a hundred parts of this attempt are there already; sweep them")

    def write(self, data: Buffer) -> None:
        assert self.writing is not None
        try:
            self.writing.write(data)
        except OSError as error:
            raise self.far.explained(error) from error
        self.size += len(memoryview(data).cast("B"))

    def written(self) -> None:
        """Wait until the server has written all that was sent."""
        assert self.writing is not None
        try:
            self.writing.finish()
        except OSError as error:
            raise self.far.explained(error) from error

    def finish(self, file_mode: int | None) -> None:
        """Give the written part its time, in whole seconds, and mode, and close it."""
        mtime_ns = self.facts.get("mtime_ns")
        seconds = None if mtime_ns is None else min(max(0, mtime_ns // 10**9), LAST_SECOND)
        writing, self.writing = self.writing, None
        assert writing is not None
        try:
            writing.close(attributes(file_mode, seconds) if (file_mode, seconds) != (None, None) else None)
        except OSError as error:
            raise self.far.explained(error) from error

    def abandon(self) -> None:
        """No more is written; the settling, where there is one, ends."""
        writing, self.writing = self.writing, None
        if writing is not None and self.far.session.alive:
            with suppress(OSError, TransferError):  # whatever is wrong with it, it is removed
                writing.close()
        if self.settling is not None:
            self.hand_over(None)
        self.handed_over = True

    def remove(self, tree: Any) -> None:
        """Take the part away. What cannot be taken away is said in the fault, and is a sweep's work."""
        if self.placed or not self.name or not tree.session.alive:
            return
        try:
            tree.session.remove(self.place)
        except FileNotFoundError:
            pass
        except TransferError:
            return  # the session is lost: see `left`
        except OSError as error:
            self.trouble("remove", error)
        self.name = b""


class FarLanding(Landing):
    """Takes frames, writes parts, has them proven, and puts them in place window by window."""

    def __init__(self, tree: Tree, host: Any, proof: str, stop: Stop, beside: Callable[[], Session]) -> None:
        super().__init__(tree, host, proof, stop)  # type: ignore[arg-type] # the trees are used alike
        self.far = tree
        self.beside = beside
        self.proving: Session | None = None
        self.pool.shutdown()
        self.pool = ThreadPoolExecutor(1, "sftp-proof")  # a session is for one thread

    # The frames.

    def new(self, facts: dict[str, Any]) -> FarPart:
        return FarPart(facts, self.far)

    def write(self, data: Buffer) -> None:
        part = self.part
        if not isinstance(part, FarPart) or part.fault is not None or part.broken:
            return
        try:
            part.write(data)
            if self.proof == "stream":
                part.stream.update(data)
            if part.size - part.marked >= self.STEP:
                part.written()
                self.mark(part, part.size)
        except (OSError, Fault) as error:
            self.give_up(part, fault_of(error, part.path, "destination", "write"))

    def open(self, facts: dict[str, Any]) -> None:
        raise ValueError("a host over SFTP cannot be filled by others: its `cuts` is False")

    STEP = 8 << 20  # bytes after which what is written so far is read back beside the writing

    def mark(self, part: Part, upto: int, last: bool = False) -> None:
        """Tell the proving thread how far the part is written; the first mark starts it."""
        assert isinstance(part, FarPart)
        if part.settling is None:
            self.room.acquire()
            part.settling = self.pool.submit(self.settle, part)
        if last:
            part.hand_over((upto, True))
        else:
            part.marks.put((upto, False))
        part.marked = upto

    # Proving, in a thread and a session of its own.

    def settle(self, part: FarPart) -> Proven:
        """Read a part back as its marks come, synced at the last. An error of a sync is final."""
        try:
            if self.proving is None:
                self.proving = self.beside()
            return self.proven(part, self.proving)
        except BaseException:
            part.broken = True
            raise
        finally:
            self.room.release()

    def proven(self, part: FarPart, session: Session) -> Proven:
        handle = session.open(part.place, FOR_READING)
        digest = hashlib.sha256() if self.proof == "reread" else part.stream
        at = 0
        try:
            for upto, last in iter(part.marks.get, None):
                if last and SYNC in session.extensions:
                    session.sync(handle)
                if self.proof == "reread":
                    for data in session.stretch(handle, at, upto - at):
                        if self.halted():
                            raise stopped()
                        digest.update(data)
                at = upto
                if last:
                    state = session.fstat(handle)
                    return Proven(state.st_size, "sha256:" + digest.hexdigest(), state.st_mtime_ns, 0)
        finally:
            if session.alive:
                session.close_handle(handle)
        raise stopped()

    # Putting in place.

    def placing(self) -> FarPlacing:
        return FarPlacing(self.far, self.halted)

    def clear(self) -> None:
        """Stop the proving and remove every part that has not come into place, while the session lives."""
        try:
            super().clear()
        finally:
            if self.proving is not None:
                self.proving.close()

    def left(self) -> list[FarPart]:
        """The parts that could not be removed because the session was lost."""
        groups = [group for window in [*self.windows, self.window] for group in window] + [self.group]
        parts = [part for group in groups for part in group]
        if self.part is not None:
            parts.append(self.part)
        return [part for part in parts if isinstance(part, FarPart) and not part.placed and part.name]


class FarPlacing(Placing):
    """Gives the proven parts of one group their final names; all, or it undoes what it did."""

    def __init__(self, tree: Tree, halted: Stop) -> None:
        super().__init__(tree, halted)  # type: ignore[arg-type] # the trees are used alike
        self.far = tree

    def found(self, part: Part) -> Proven | None:
        """What is at the final name: None, or its size and, synced and read back, its digest."""
        try:
            _, state = self.far.look(part.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise Fault("conflict", "a symbolic link has the name", part.path) from error
        try:
            digest = ""
            if state.st_size == part.said["size"]:
                digest = digest_at(self.far, part.path, "sha256", True, self.halted)[2]
            else:
                handle, state = self.far.open_file(part.path)
                self.far.session.close_handle(handle)
        except Fault as fault:
            if not fault.facts.get("not_a_file"):
                raise
            raise Fault("conflict", fault.text, part.path, facts=fault.facts) from fault
        except EOFError:
            raise Fault("conflict", "the file that has the name is being changed", part.path) from None
        return Proven(state.st_size, digest, state.st_mtime_ns, 0)

    def make_way(self, part: Part) -> None:
        """Move the file that has the name into quarantine, and make that durable before its name is taken."""
        place = self.far.place(part.path)
        for turn in range(100):
            attempt = f"{part.facts['item']}-{part.facts['epoch']}{f'-{turn}' if turn else ''}"
            aside = "/".join(filter(None, (QUARANTINE, attempt, part.folder)))
            try:
                folder = self.far.make_folder(aside, None)
                self.far.rename_new(place, folder + b"/" + raw(part.last_name))
            except FileExistsError:
                continue
            self.set_aside.append((part, aside))
            self.far.sync(aside)
            return
        raise Fault("conflict", "the quarantine holds a hundred files of this attempt and name", part.path)

    def rename(self, part: Part) -> None:
        assert isinstance(part, FarPart)
        assert part.settling is not None
        proven = part.settling.result()
        final = self.far.place(part.path)
        state = self.far.session.lstat(part.place)
        if (state.st_size, state.st_mtime_ns) != (proven.size, proven.mtime_ns):
            raise Fault("conflict", CHANGED)
        try:
            self.far.rename_new(part.place, final)
        except FileExistsError:
            found = self.found(part)  # it came since we looked
            if found is None or not self.adopt(part, found):
                raise
            return
        part.placed = True
        self.placed.append(part)

    def take_back(self, part: Part) -> None:
        """Rename a file that this placing put in place to a part again, if it still looks like that file."""
        assert isinstance(part, FarPart)
        assert part.settling is not None
        proven = part.settling.result()
        final = self.far.place(part.path)
        state = self.far.session.lstat(final)
        if (state.st_size, state.st_mtime_ns) == (proven.size, proven.mtime_ns):
            self.far.rename_new(final, part.place)
            part.placed = False

    def give_back(self, part: Part, aside: str) -> None:
        """Rename a file that was set aside to its own name again."""
        old = self.far.place(f"{aside}/{part.last_name}")
        self.far.rename_new(old, self.far.place(part.path))
