"""Moving and removing objects: by copies, and deletions. The store makes the copies, but for those of objects that are
too large for that: they go through this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from transfers.agent import Fault, Stop, fault_of, may_change, stopped
from transfers.hosts import never
from transfers.s3.bucket import Object, part_bytes
from transfers.s3.errors import Missing
from transfers.s3.reading import Shelf, close, sha256_of

COPY_MOST = 5 << 30  # bytes of what the store copies in one request


def move(shelf: Shelf, path: str, new: str, stop: Stop = never) -> None:
    """Give an object another path; Fault "conflict" where that is taken. For a moment it has both, and never none.

    The new name is looked at first, and given on the condition that nothing has it, where the store knows conditions:
    that of an object that goes through this process is looked at once more just before. Such a move ends when it is to
    `stop`, with everything as it was.
    """
    bucket = shelf.bucket
    here = shelf.head(may_change(path))
    there = shelf.key(may_change(new))
    if bucket.head(there) is not None:
        raise name_taken(new)
    if here.st_size > COPY_MOST:
        Passing(shelf, path, here, new, stop).run()
    else:
        bucket.copy(shelf.key(path), there)
        made = bucket.head(there)
        if made is None or made.st_size != here.st_size:
            text = "the store's copy is not the object that was to be moved"
            raise Fault("transient", text, new, "destination", "move")
    bucket.delete(shelf.key(path))


class Passing:
    """Copies one object by way of this process: it is read, put in parts with what is kept beside its bytes, and read
    back. Where that fails nothing is left of it at its new path."""

    def __init__(self, shelf: Shelf, path: str, here: Object, new: str, stop: Stop) -> None:
        self.bucket = shelf.bucket
        self.path, self.key, self.here = path, shelf.key(path), here
        self.new, self.new_key = new, shelf.key(new)
        self.stop = stop
        self.sent = hashlib.sha256()

    def run(self) -> None:
        kept = self.bucket.kept(self.key)
        found, data = self.bucket.get(self.key)
        try:
            if found != self.here:
                raise self.changed()
            self.put(data, kept)
        finally:
            close(data)
        self.check()

    def put(self, data: Iterator[memoryview], kept: dict[str, str]) -> None:
        with ThreadPoolExecutor(1, "s3-moving") as asking:
            self.bucket.upload(self.new_key, self.parts(data, asking), part_bytes(self.here.st_size), kept)

    def parts(self, data: Iterator[memoryview], asking: ThreadPoolExecutor) -> Iterator[memoryview]:
        """The bytes, asked for by another thread, as obstore cannot be called from within what it calls."""
        left = self.here.st_size
        while left:
            if self.stop():
                raise stopped()
            chunk = asking.submit(next, data).result()
            left -= len(chunk)
            if not left and asking.submit(self.bucket.head, self.new_key).result() is not None:
                raise name_taken(self.new)
            self.sent.update(chunk)
            yield chunk

    def check(self) -> None:
        """See that the copy is what was read, and that what was read is still what is there."""
        made, data = self.bucket.get(self.new_key)
        try:
            if sha256_of(data, self.stop) != self.sent.hexdigest():
                text = "what was read back is not what was read before"
                raise Fault("corrupted on the way", text, self.new, "route", "move")
            if self.bucket.head(self.key) not in (None, self.here):  # where it is gone the copy is all there is of it
                raise self.changed()
        except BaseException:
            self.take_back(made)
            raise

    def take_back(self, made: Object) -> None:
        """Delete the copy, if it still is that."""
        if self.bucket.head(self.new_key) == made:
            self.bucket.delete(self.new_key)

    def changed(self) -> Fault:
        return Fault("source changed", "it was changed while it was moved", self.path, "source", "move")


def name_taken(path: str) -> Fault:
    return Fault("conflict", "another file has the name", path, "destination", "move")


def moved(shelf: Shelf, path: str, new: str, stop: Stop = never) -> str | Fault:
    """The new path of an object that was moved, or the Fault, as the agent says it."""
    try:
        move(shelf, path, new, stop)
    except Fault as fault:
        missing = isinstance(fault, Missing)
        found = fault_of(fault, path if missing else new, "source" if missing else "destination", "move")
        found.facts.update({"from": path, "to": new})
        return found
    return new


def removed(shelf: Shelf, path: str) -> str | Fault:
    """The path when its object is gone, also when it was not there, or the Fault."""
    try:
        shelf.bucket.delete(shelf.key(may_change(path)))
    except Fault as fault:
        return fault_of(fault, path, "destination", "remove")
    return path
