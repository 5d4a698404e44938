"""Putting one file on an S3 store: a small one in one request, a large one in parts as they come; and proving it.

An object appears whole or not at all, so there are no parts beside it: it gets its own name when its last byte is
there, and when those bytes are what the source says that it sent. Proven it is after that. Until its receipt it is a
file that nobody was told of; if what is read back is not what was sent, this attempt takes away what it put there, and
nothing else. An upload in parts makes its object whatever has the name by then, as obstore sets no condition on it: the
name is looked at before the first part and before the last.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, NamedTuple

from transfers.agent import QUARANTINE, Arrival, Buffer, Fault, Stop, hasher, stopped
from transfers.s3.bucket import Object, mtime_text, part_bytes
from transfers.s3.changing import move
from transfers.s3.reading import Shelf, sha256_of

PATIENCE_S = 0.2


class Landed(NamedTuple):
    """What was proven of a file at its place."""

    found: Object
    digest: str
    adopted: bool


class Taken(Exception):
    """The name is another object's already."""


class Upload(Arrival):
    """A file on its way to its object. The landing's thread feeds it; once it is begun, a thread of its own puts it
    there and proves it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(facts)
        self.held = bytearray()
        self.size = 0
        self.part_bytes = part_bytes(facts.get("size") or 0)
        self.feed: queue.Queue[Any] = queue.Queue(1)  # parts, then what the source said at the end, or None
        self.whole = True  # it is put in one request
        self.said: dict[str, Any] = {}
        self.job: Future[Landed] | None = None
        self.aside = ""  # where the object is that had the name, if this attempt set it aside

    @property
    def attributes(self) -> dict[str, str]:
        mtime_ns = self.facts.get("mtime_ns")
        return {} if mtime_ns is None else {"mtime": mtime_text(mtime_ns)}

    def offer(self, what: Any) -> None:
        """Hand a part over, or the end, unless the job is over."""
        assert self.job is not None
        while not self.job.done():
            with suppress(queue.Full):
                self.feed.put(what, timeout=PATIENCE_S)
                return

    def landed(self) -> Landed | None:
        """What it came to, if it is done; waits for nothing."""
        if self.job is None or not self.job.done() or self.job.cancelled() or self.job.exception() is not None:
            return None
        return self.job.result()


class Sums:
    """sha256 of what is put, and where the store's own digest is to be held against it, those that it may be."""

    def __init__(self, own: bool) -> None:
        self.sha256 = hashlib.sha256()
        self.whole = hasher("md5") if own else None
        self.parts: list[bytes] = []
        self.size = 0

    def part(self, data: Buffer) -> None:
        self.size += len(data)
        self.sha256.update(data)
        if self.whole is not None:
            self.whole.update(data)
            md5 = hasher("md5")
            md5.update(data)
            self.parts.append(md5.digest())

    def check(self, said: dict[str, Any]) -> None:
        """Fault "corrupted on the way" unless this is what the source says that it sent."""
        found = {"size": self.size, "digest": "sha256:" + self.sha256.hexdigest()}
        if found != {"size": said["size"], "digest": said["digest"]}:
            text = "what came is not what the source sent"
            raise Fault("corrupted on the way", text, "", "route", "write", facts={"expected": said, "found": found})

    def tags(self) -> set[str]:
        """What the ETag is by S3's rules: the MD5, or that of the parts' MD5s with their number."""
        together = hasher("md5")
        for part in self.parts:
            together.update(part)
        assert self.whole is not None
        return {self.whole.hexdigest(), f"{together.hexdigest()}-{len(self.parts)}"}


class Job:
    """Puts one file there and proves it; runs in a thread of its own."""

    def __init__(self, shelf: Shelf, upload: Upload, proof: str, halted: Stop, looking: Executor) -> None:
        self.bucket = shelf.bucket
        self.shelf = shelf
        self.upload = upload
        self.key = shelf.key(upload.path)
        self.proof = proof
        self.halted = halted
        self.looking = looking
        self.sums = Sums(proof == "store")
        self.seen: Object | None = None  # what this attempt put there, once it was seen

    def run(self) -> Landed:
        upload = self.upload
        there = self.bucket.head(self.key)
        if there is not None and upload.facts["replace"]:
            self.set_aside()
            there = None
        try:
            if there is None:
                try:
                    self.put()
                    return self.proven_or_gone()
                except Taken:
                    pass
            while not self.upload.said:
                for _ in self.parts():
                    pass  # what is there is held against what the source says at the end
            return self.adopted()
        except BaseException:
            self.give_back()
            raise

    def parts(self) -> Iterator[bytes | bytearray]:
        """The parts as they come; at their end it is known what the source says of them."""
        while True:
            data = self.upload.feed.get()
            if data is None or self.halted():
                raise stopped()
            if isinstance(data, dict):
                self.upload.said = data
                return
            yield data

    def checked_parts(self) -> Iterator[bytes | bytearray]:
        """The parts, held against what the source says before the last of them makes the object."""
        for data in self.parts():
            self.sums.part(data)
            yield data
        self.sums.check(self.upload.said)
        if not self.upload.whole and self.looking.submit(self.bucket.head, self.key).result() is not None:
            raise Taken  # looked at by another thread, as obstore cannot be called from within what it calls

    def put(self) -> None:
        upload = self.upload
        try:
            if upload.whole:
                (data,) = self.checked_parts()
                self.bucket.put(self.key, data, upload.attributes)
            else:
                self.bucket.upload(self.key, self.checked_parts(), upload.part_bytes, upload.attributes)
        except Fault as fault:
            if fault.kind == "conflict":
                raise Taken from fault
            if fault.facts.get("status") == 500:
                self.explain()
            raise

    def explain(self) -> None:
        """Fault "conflict" where the server shows a disk, on which no name can be a file's and a folder's."""
        names = self.upload.path.split("/")
        above = ("/".join(names[:count]) for count in range(1, len(names)))
        taken = next((path for path in above if self.bucket.head(self.shelf.key(path)) is not None), None)
        if taken is not None:
            raise Fault("conflict", f"the file {taken} is in the way, where the store needs a folder", self.upload.path)
        if next(self.bucket.keys(self.key), None) is not None:
            raise Fault("conflict", "the name is taken by a folder, not a file", self.upload.path)

    def proven_or_gone(self) -> Landed:
        """What is there, proven; else it is taken away again. Where that cannot be, it is found there next time."""
        try:
            return self.proven()
        except Fault as fault:
            if self.seen is not None:
                try:
                    self.take_back(self.seen)
                except Fault as trouble:
                    fault.facts["not_removed"] = trouble.text
            raise

    def proven(self) -> Landed:
        """What is there, held against what the source says."""
        said = self.upload.said
        found: Object | None
        if self.proof == "reread":
            found, digest = self.reread()
        else:
            found, digest = self.bucket.head(self.key), said["digest"]
            if found is None:
                raise Fault("transient", "the object is gone again, just after it was put", self.upload.path)
            self.seen = found
            if self.proof == "store" and found.tag not in self.sums.tags():
                found, digest = self.judged(found)
        if (found.st_size, digest) == (said["size"], said["digest"]):
            return Landed(found, digest, adopted=False)
        facts = {"expected": dict(said), "found": {"size": found.st_size, "digest": digest}}
        text = "what was read back is not what the source sent"
        raise Fault("corrupted on the way", text, self.upload.path, "route", "reread", facts=facts)

    def judged(self, found: Object) -> tuple[Object, str]:
        """The store's own digest is not that of what was sent: read back, to tell damage from a digest of another kind.

        Fault "unsupported" where the bytes are right and the digest is none of them.
        """
        now, digest = self.reread()
        if (now.st_size, digest) == (self.upload.said["size"], self.upload.said["digest"]):
            text = f"the store's own digest, the ETag {found.tag or 'that it does not give'}, is no MD5 of the object: "
            raise Fault("unsupported", text + 'it proves nothing; let the proof be "reread"', self.upload.path)
        return now, digest

    def reread(self) -> tuple[Object, str]:
        """The object, and the sha256 of what the store gives when it is asked for it."""
        found, data = self.bucket.get(self.key)
        self.seen = found
        return found, "sha256:" + sha256_of(data, self.halted)

    def adopted(self) -> Landed:
        """What has the name, if it is the same: read back, whatever the proof asked for."""
        said = self.upload.said
        found = self.bucket.head(self.key)
        digest = ""
        if found is not None and found.st_size == said["size"]:
            found, digest = self.reread()
        if found is None:
            raise Fault("transient", "the object that had the name is gone by now", self.upload.path)
        if (found.st_size, digest) == (said["size"], said["digest"]):
            return Landed(found, digest, adopted=True)
        facts = {"expected": dict(said), "found": {"size": found.st_size, "digest": digest}}
        raise Fault("conflict", "another file has the name", self.upload.path, facts=facts)

    def take_back(self, found: Object) -> None:
        """Delete what this attempt put there, if it still is that."""
        if self.bucket.head(self.key) == found:
            self.bucket.delete(self.key)

    def set_aside(self) -> None:
        """Move the object that has the name into quarantine."""
        facts = self.upload.facts
        for turn in range(100):
            attempt = f"{facts['item']}-{facts['epoch']}{f'-{turn}' if turn else ''}"
            aside = f"{QUARANTINE}/{attempt}/{self.upload.path}"
            try:
                move(self.shelf, self.upload.path, aside, self.halted)
            except Fault as fault:
                if fault.kind != "conflict":
                    raise
                continue
            self.upload.aside = aside
            return
        raise Fault("conflict", "the quarantine holds a hundred files of this attempt and name", self.upload.path)

    def give_back(self) -> None:
        """Give the object that was set aside its name again; where that fails it stays in quarantine, not lost."""
        aside, self.upload.aside = self.upload.aside, ""
        if aside:
            with suppress(Fault):
                move(self.shelf, aside, self.upload.path)
