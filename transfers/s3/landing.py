"""Landing on an S3 store: files are put and proven beside the frames that come, and results are given in order."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from transfers.agent import Buffer, Fault, Intake, Receipt, Stop, fail_unit, fault_of
from transfers.s3.putting import Job, Upload
from transfers.s3.reading import Shelf

AT_ONCE = 8  # small files that are put and proven side by side: most of it is waiting for answers
HELD = 32 << 20  # bytes of small files that wait for that
PENDING = 100  # files whose results are waited for before more are taken
PATIENCE_S = 0.2

Result = Receipt | Fault


class S3Landing(Intake[Upload]):
    """Takes frames, puts objects, and gives one result for each file begun, in order."""

    def __init__(self, shelf: Shelf, proof: str, reread: str, stop: Stop) -> None:
        super().__init__(stop)
        self.shelf = shelf
        self.proof = proof
        self.reread = reread
        self.pool = ThreadPoolExecutor(AT_ONCE, "s3-landing")
        self.looking = ThreadPoolExecutor(1, "s3-looking")
        self.groups: deque[list[Upload]] = deque()  # whole, and not yet answered
        self.down: Fault | None = None  # the store is not there: nothing more is tried

    def job(self, upload: Upload) -> Job:
        return Job(self.shelf, upload, self.proof, self.halted, self.looking)

    def ready(self, over: bool) -> Iterator[Result]:
        """The results of the groups that are done. A store that is down ends it with that Fault, raised."""
        while self.groups and (over or len(self.groups) > PENDING or is_done(self.groups[0])):
            yield from self.resolved(self.groups.popleft())

    # The frames, one method each.

    def new(self, facts: dict[str, Any]) -> Upload:
        return Upload(facts)

    def make(self, part: Upload) -> None:
        self.shelf.key(part.path)

    def write(self, data: Buffer) -> None:
        upload = self.part
        if upload is None or upload.fault is not None:
            return
        view = memoryview(data).cast("B")
        upload.size += len(view)
        while len(view):
            room = upload.part_bytes - len(upload.held)
            if not room:
                self.feed(upload)
                continue
            upload.held += view[:room]
            view = view[room:]

    def feed(self, upload: Upload) -> None:
        """A part is full, and more is to come."""
        if upload.job is None:
            upload.whole = False
            upload.job = self.pool.submit(self.job(upload).run)
        upload.offer(upload.held)
        upload.held = bytearray()

    def end(self, said: dict[str, Any]) -> None:
        upload = self.part
        if upload is None:
            return
        if upload.fault is None:
            if upload.job is None:
                self.make_room(len(upload.held))
                upload.feed = queue.Queue()
                upload.feed.put(upload.held)
                upload.feed.put(said)
                upload.job = self.pool.submit(self.job(upload).run)
            else:
                upload.offer(upload.held)
                upload.offer(said)
            upload.held = bytearray()
        self.complete(upload)

    def give_up(self, part: Upload, fault: Fault) -> None:
        super().give_up(part, fault)
        if part.job is not None:
            part.offer(None)

    def hand_over(self, group: list[Upload]) -> None:
        self.groups.append(group)

    def make_room(self, size: int) -> None:
        """Wait until the small files that wait to be put are few enough for one more."""
        while True:
            flying = [
                upload
                for group in [*self.groups, self.group]
                for upload in group
                if upload.whole and upload.job is not None and not upload.job.done()
            ]
            if not flying or sum(upload.size for upload in flying) + size <= HELD:
                return
            wait([upload.job for upload in flying if upload.job is not None], PATIENCE_S, FIRST_COMPLETED)

    def clear(self) -> None:
        """End all that is under way. Units of which a part is missing do not stay."""
        self.halt.set()
        left = [*self.groups, self.group + ([self.part] if self.part is not None else [])]
        for upload in (upload for group in left for upload in group):
            if upload.job is not None:
                upload.offer(None)
        self.pool.shutdown()
        self.looking.shutdown()
        for group in left:
            if len(group) > 1 and any(upload.landed() is None for upload in group):
                self.undo(group)

    # What it came to.

    def resolved(self, group: list[Upload]) -> Iterator[Result]:
        """The results of a group: all of it in place, or none of it."""
        for upload in group:
            upload.fault = upload.fault or self.outcome(upload)
        cause = next((upload for upload in group if upload.fault is not None and upload.begun), None)
        if cause is not None:
            self.undo(group)
            fail_unit(group, cause)
        for upload in group:
            yield self.result(upload)
        if self.down is not None:
            raise self.down

    def outcome(self, upload: Upload) -> Fault | None:
        """Wait for an upload; the Fault that it ended with."""
        assert upload.job is not None
        try:
            upload.job.result()
        except Fault as fault:
            if fault.kind == "host down":
                self.down = Fault(fault.kind, fault.text, phase="write")
            return fault_of(fault, upload.path, "destination", "write")
        except OSError as error:
            return fault_of(error, upload.path, "local", "write")
        return None

    def result(self, upload: Upload) -> Result:
        if upload.fault is not None:
            return upload.named(upload.fault)
        landed = upload.landed()
        assert landed is not None
        proof = self.reread if landed.adopted or self.proof == "reread" else self.proof
        found = landed.found
        return Receipt(
            upload.facts["item"], upload.path, found.st_size, landed.digest, found.st_mtime_ns, proof, landed.adopted
        )

    def undo(self, group: list[Upload]) -> None:
        """Take away what was put there of a group that is not whole, and give back what had the names."""
        for upload in group:
            landed = upload.landed()
            if landed is None or landed.adopted:
                continue
            job = self.job(upload)
            try:
                job.take_back(landed.found)
                job.give_back()
            except Fault as fault:
                if upload.fault is not None:
                    upload.fault.facts.setdefault("not_undone", []).append(f"{upload.path}: {fault}")


def is_done(group: list[Upload]) -> bool:
    return all(upload.job is None or upload.job.done() for upload in group)
