"""Many files made one: the frames of members become the frames of their bundle, as they flow."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from transfers.agent import CHUNK, Buffer, Fault, Frame, Want, facts_of
from transfers.bundles.headers import END, Laid, header_of, padding
from transfers.bundles.index import Entry, Index, Layout, beside_bytes, index_bytes
from transfers.errors import TransferError, shown, to_fault

GATHERED = 64 << 10  # bytes of data that are rather copied than sent for themselves...
SENT = 512 << 10  # ...until so many are together
HASHED_HERE = 16 << 10  # bytes that are hashed sooner than a thread is told of them


class Packing:
    """One bundle on its way.

    `want` says where it goes: of it item, epoch, destination and replace are used. `host` is the name of the source,
    which faults are laid to. After `frames` has come to its "end", `index` and `beside` (the bytes of the file to be
    put beside the bundle), `size` and `digest` are there.
    """

    def __init__(self, layout: Layout, want: Want, host: str = "") -> None:
        self.layout = layout
        self.want = want
        self.host = host
        self.index: Index | None = None
        self.beside: bytes | None = None
        self.size = 0
        self.digest = ""
        self.broken: TransferError | None = None  # that the source's frames ended with
        self._hash = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1)
        self._gathered = bytearray()
        self._digests: list[str] = []
        self._item: int | None = None  # of the member that is coming

    def frames(self, source: Iterable[Frame]) -> Generator[Frame, None, None]:
        """The bundle's frames: "file", "data" and an "end", or a "fault" that names a member in its facts.

        The source's frames are those of all members in the order of the layout, none of them in a unit, each
        "file" with the size and time that the layout has (the time may be unknown). What a member really is has been
        held against its digest by the source.
        """
        coming = iter(source)
        try:
            yield facts_of(self.want, self.layout.size, self.layout.mtime_ns)
            for member in self.layout.members:
                yield from self._packed(member, coming)
            yield from self._closed()
        except Fault as fault:
            yield "fault", fault
        else:
            yield "end", {"size": self.size, "digest": self.digest}
        finally:
            self._hashing.shutdown()
            if isinstance(source, Generator):
                source.close()

    def _packed(self, member: Laid, coming: Iterator[Frame]) -> Iterator[Frame]:
        self._begin(member, coming)
        self._gathered += header_of(*member[:3])
        left = member.size
        while (frame := self._next(member, coming))[0] == "data":
            data = frame[1]
            left -= len(data)
            if left < 0:
                raise self._changed(member, f"it has more than the {member.size} bytes that it had")
            yield from self._put(data)
        name, said = frame
        digest = said.get("digest") if name == "end" else None
        if not isinstance(digest, str) or not digest.startswith("sha256:"):
            raise self._fault(member, Fault("transient", f"{name} without a digest came of the file", phase="read"))
        if left or said["size"] != member.size:
            raise self._changed(member, f"it has {member.size - left} bytes, and had {member.size}")
        self._digests.append(digest)
        yield from self._put(padding(member.size))

    def _begin(self, member: Laid, coming: Iterator[Frame]) -> None:
        """The "file" frame of the member; Fault if it is no longer what it was when it was chosen."""
        self._item = None
        name, facts = self._next(member, coming)
        if name != "file":
            raise self._fault(member, Fault("transient", f"{name} came where a file was to begin", phase="read"))
        self._item = facts["item"]
        for what, found, known in (
            ("size", facts["size"], member.size),
            ("mtime_ns", facts["mtime_ns"], member.mtime_ns),
        ):
            if found is not None and found != known:
                fault = self._changed(member, f"{what} was {known} when it was planned and is {found}")
                fault.facts |= {"size": facts["size"], "mtime_ns": facts["mtime_ns"]}
                raise fault

    def _next(self, member: Laid, coming: Iterator[Frame]) -> Frame:
        """The next frame; the fault that comes in its place, or that there is none, is the member's."""
        try:
            frame = next(coming, None)
        except TransferError as error:
            self.broken = error
            raise self._fault(member, to_fault(error)) from error
        if frame is None:
            raise self._fault(member, Fault("transient", "the source broke off", phase="read"))
        if frame[0] == "fault":
            raise self._fault(member, frame[1])
        return frame

    def _changed(self, member: Laid, text: str) -> Fault:
        return self._fault(member, Fault("source changed", text, member.path, "source", "pack"))

    def _fault(self, member: Laid, fault: Fault) -> Fault:
        """The fault as the bundle's, told of the member."""
        fault.text = f"{shown(member.path)} could not be packed: {fault.text}"
        fault.side = fault.side or "source"
        fault.facts |= {"member": member.path, "member_item": self._item}
        if self.host:
            fault.facts["host"] = self.host
        return fault

    # The stream.

    def _closed(self) -> Iterator[Frame]:
        """The index, and the tar's end."""
        layout = self.layout
        data = index_bytes(layout, self._digests)
        assert len(data) == layout.index_size
        ending = padding(len(data)) + END
        rest = memoryview(header_of(layout.index_path, len(data), layout.mtime_ns) + data + ending)
        for start in range(0, len(rest), CHUNK):
            yield from self._put(rest[start : start + CHUNK])
        yield from self._send_gathered()
        assert self.size == layout.size
        self.digest = f"sha256:{self._hash.hexdigest()}"
        pairs = zip(layout.members, self._digests, strict=True)
        self.index = Index(layout.label, tuple(Entry(*one[:3], digest, one.offset) for one, digest in pairs))
        self.beside = beside_bytes(data, self.size, self.digest)

    def _put(self, data: Buffer) -> Iterator[Frame]:
        """Send data, or gather them: headers, padding and small files cost a frame only together."""
        if len(data) <= GATHERED:
            self._gathered += data
            if len(self._gathered) >= SENT:
                yield from self._send_gathered()
            return
        yield from self._send_gathered()
        yield from self._send(data)

    def _send_gathered(self) -> Iterator[Frame]:
        if self._gathered:
            data, self._gathered = self._gathered, bytearray()
            yield from self._send(data)

    def _send(self, data: Buffer) -> Iterator[Frame]:
        """Data are hashed in a thread while they are written; both are over before the next of the source is asked
        for, which may come in the same buffer."""
        self.size += len(data)
        if len(data) <= HASHED_HERE:
            self._hash.update(data)
            yield "data", data
            return
        hashed = self._hashing.submit(self._hash.update, data)
        try:
            yield "data", data
        finally:
            hashed.result()
