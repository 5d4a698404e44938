"""Reading over SFTP: whole files, stretches and pieces as frames; digests; the headers of FITS files."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from transfers.agent import (
    BLOCK,
    HOLD,
    Cut,
    Datasum,
    Digests,
    Fault,
    Frame,
    Hdu,
    Limits,
    Piece,
    Place,
    Plain,
    Stop,
    Want,
    begun,
    check_piece,
    checked,
    expect,
    extent_of,
    fault_of,
    folder_of,
    hasher,
    headers_of,
    name_of,
    numpy,
    pack_numpy,
    pack_stdlib,
    path_of,
    piece_from,
    piece_size,
    read_fault,
    stopped,
    stretches,
    summed_header,
)
from transfers.sftp.tree import SYNC, Tree
from transfers.sftp.wire import Session, State

SECOND_S = 1.5  # a change within the second that a file was written in would show in no time that SFTP tells
HEADER_AHEAD = 11 * BLOCK  # bytes read at once where headers are: most are a few blocks


class Source:
    """An open source file and what it was when it was opened."""

    def __init__(self, tree: Tree, path: str) -> None:
        self.path = checked(path)
        self.tree = tree
        self.session = tree.session
        self.handle, self.state = tree.open_file(path)
        self.proven: set[tuple[str, int]] = set()
        self._let_its_second_pass()

    def _let_its_second_pass(self) -> None:
        """Wait until a change of a file that was written just now must show as another whole second."""
        age = time.time() - self.state.st_mtime_ns / 1e9
        if -SECOND_S < age < SECOND_S:
            time.sleep(min(SECOND_S, SECOND_S - age))
            self.state = self.session.fstat(self.handle)

    def close(self) -> None:
        if self.session.alive:
            self.session.close_handle(self.handle)

    def expect(self, want: Want) -> None:
        """Fault "source changed" unless the file is of the size and time expected."""
        expect(want, self.path, self.state.st_size, self.state.st_mtime_ns)

    def prove(self, expected: str | None, offset: int, size: int) -> None:
        """Fault "source corrupt" unless so much of the file has this digest."""
        if expected is None or (expected, offset) in self.proven:
            return
        digests = Digests(expected)
        for data in self.session.stretch(self.handle, offset, size):
            digests.update(data)
        digests.check()
        self.proven.add((expected, offset))

    def still(self) -> None:
        """Fault "source changed" if the open file, or what has its name, is another than when it was opened."""
        for now in (self.session.fstat(self.handle), self._named()):
            if now != self.state:
                self.state = now
                facts = {"size": now.st_size, "mtime_ns": now.st_mtime_ns}
                raise Fault("source changed", "it was changed while it was read", self.path, facts=facts)

    def _named(self) -> State:
        try:
            return self.tree.look(self.path)[1]
        except FileNotFoundError:
            return self.state  # removed, but what was read is what it was: as on any host


class Reader:
    """Turns wants into frames, one file after the other."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.session = tree.session

    def frames(self, wants: Iterable[Want]) -> Iterator[Frame]:
        for _, group in itertools.groupby(wants, key=lambda want: (want.item, want.epoch)):
            unit = list(group)
            if len(unit) > 1:
                yield "unit", len(unit)
            for (_, cut), run in itertools.groupby(unit, key=lambda want: (want.source, want.piece is not None)):
                yield from self.of_source(list(run), self.piece if cut else self.file)

    def of_source(
        self, wants: list[Want], data: Callable[[Source, Want], Generator[Frame, None, tuple[int, str]]]
    ) -> Iterator[Frame]:
        """The frames of wants of one source, which is opened once and must stay as it is for all of them."""
        try:
            source = Source(self.tree, wants[0].source)
        except (OSError, Fault) as error:
            for want in wants:
                yield begun(want)
                yield "fault", fault_of(error, want.source, "source", "open")
            return
        try:
            for want in wants:
                yield begun(want, source.state)
                try:
                    size, digest = yield from data(source, want)
                except (OSError, EOFError, Fault) as error:
                    yield "fault", read_fault(error, want)
                else:
                    yield "end", {"size": size, "digest": digest}
        finally:
            source.close()

    def file(self, source: Source, want: Want) -> Generator[Frame, None, tuple[int, str]]:
        """A whole file, a block of it, which has no digest, or a member, which is right by its own."""
        source.expect(want)
        digests = Digests(want.digest) if want.stretch is None or want.is_member else None
        offset, size = want.stretch or (0, source.state.st_size)
        for data in self.session.stretch(source.handle, offset, size):
            if digests is not None:
                digests.update(data)
            yield "data", data
        if not want.is_member:
            source.still()
        if digests is None:
            return size, ""
        digests.check()
        return size, digests.text()

    def piece(self, source: Source, want: Want) -> Generator[Frame, None, tuple[int, str]]:
        """A piece: made in memory where it fits, else read twice, as its sum stands before its data."""
        assert want.piece is not None
        offset, whole = (0, source.state.st_size) if want.stretch is None else want.stretch
        check_piece(want.piece, whole)
        source.expect(want)
        source.prove(want.digest, offset, whole)
        piece = piece_from(want.piece, offset)
        held = piece_size(piece) - len(piece.header) <= HOLD
        total, kept = Datasum(), []
        for data in self.cut(source, piece):
            total.update(data)
            if held:
                kept.append(data)
        header = summed_header(piece.header, total.value())
        digest = hashlib.sha256(header)
        yield "data", header
        for data in kept if held else self.cut(source, piece):
            digest.update(data)
            yield "data", data
        source.still()
        return piece_size(piece), "sha256:" + digest.hexdigest()

    def cut(self, source: Source, piece: Piece) -> Iterator[memoryview]:
        """The piece's data, padding too, cut from stretches that are asked for ahead."""
        block = self.session.block
        cuts = list(stretches(piece.cuts, block))
        spans = [_span(cut) for cut in cuts]
        # A row longer than a block comes as one cut of one row, so a span is never longer than a block.
        for cut, data in zip(cuts, self.session.ranges(source.handle, spans), strict=True):
            yield _packed(cut, data)
        yield memoryview(bytes(piece.pad))


def _span(cut: Cut) -> tuple[int, int]:
    return cut.offset, (cut.rows - 1) * cut.stride + cut.row if cut.rows else 0


def _packed(cut: Cut, data: memoryview) -> memoryview:
    if cut.rows == 1:
        return data
    source = memoryview(bytearray(cut.rows * cut.stride))
    source[: len(data)] = data
    out = memoryview(bytearray(cut.rows * cut.row))
    pack = pack_stdlib if numpy() is None else pack_numpy
    pack(source, cut.row, cut.stride, cut.rows, out)
    return out


def digest_at(tree: Tree, place: Place, algorithm: str, reread: bool, stop: Stop) -> tuple[str, int, str]:
    """(path, size, "algorithm:hex") of a file, read over the wire; with `reread`, made durable first if it can be."""
    digest = hasher(algorithm)
    path = path_of(place)
    handle, state = tree.open_file(checked(path))
    try:
        offset, size = extent_of(place, state.st_size)
        if reread and SYNC in tree.session.extensions:
            tree.session.sync(handle)
            tree.sync(folder_of(path))
        for data in tree.session.stretch(handle, offset, size):
            if stop():
                raise stopped()
            digest.update(data)
    finally:
        if tree.session.alive:
            tree.session.close_handle(handle)
    return name_of(place), size, f"{algorithm}:{digest.hexdigest()}"


# ------------------------------------------------------------------------------------------- headers


class FarPlain(Plain):
    """A file over the wire for the walk over HDUs: forward, a little at a time, with what follows read ahead."""

    def __init__(self, session: Session, handle: bytes, size: int, start: int = 0) -> None:
        self.session = session
        self.handle = handle
        self.size = size
        self.start = start
        self.at = 0
        self.held = b""  # what was read ahead, from `at` on

    def begin(self, count: int) -> bytes:
        """The file's first bytes, where nothing was read yet."""
        return self._ahead(count)

    def last(self, count: int) -> bytes:
        count = min(count, self.size)
        return b"".join(self._stretch(self.size - count, count))

    def read(self, count: int) -> bytes:
        """Up to so many bytes; fewer only at the file's end."""
        data = self._ahead(count)
        self.held = self.held[len(data) :]
        self.at += len(data)
        return data

    def _ahead(self, count: int) -> bytes:
        want = max(0, min(count, self.size - self.at))
        if want > len(self.held):
            ahead = min(max(want, HEADER_AHEAD), self.size - self.at) - len(self.held)
            try:
                self.held += b"".join(self._stretch(self.at + len(self.held), ahead))
            except EOFError:
                self.size = self.at + len(self.held)  # it has become shorter
        return self.held[:want]

    def skip(self, count: int, total: Datasum | None = None) -> int:
        step = super().skip(count, total)
        self.held = self.held[step:]
        return step

    def data(self, count: int) -> Iterator[memoryview]:
        held = self.held[:count]
        yield memoryview(held)
        yield from self._stretch(self.at + len(held), count - len(held))

    def _stretch(self, at: int, count: int) -> Iterator[memoryview]:
        return self.session.stretch(self.handle, self.start + at, count)


def headers_at(tree: Tree, place: Place, limits: Limits) -> tuple[Hdu, ...]:
    """The HDUs of a FITS file; Fault "source corrupt" says the HDU, card and value."""
    handle, state = tree.open_file(checked(path_of(place)))
    session = tree.session
    try:
        start, size = extent_of(place, state.st_size)
        return headers_of(FarPlain(session, handle, size, start), name_of(place), limits)
    finally:
        if session.alive:
            session.close_handle(handle)
