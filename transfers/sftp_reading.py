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
    Plain,
    Stop,
    Want,
    check_piece,
    checked,
    facts_of,
    fault_of,
    folder_of,
    hasher,
    headers_of,
    numpy,
    pack_numpy,
    pack_stdlib,
    piece_size,
    read_fault,
    stopped,
    stretches,
    summed_header,
)
from transfers.sftp_tree import SYNC, Tree
from transfers.sftp_wire import Session, State

SECOND_S = 1.5  # a change within the second that a file was written in would show in no time that SFTP tells
HEADER_AHEAD = 11 * BLOCK  # bytes read at once where headers are: most are a few blocks


class Source:
    """An open source file and what it was when it was opened."""

    def __init__(self, tree: Tree, path: str) -> None:
        self.path = checked(path)
        self.tree = tree
        self.session = tree.session
        self.handle, self.state = tree.open_file(path)
        self.proven: set[str] = set()
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
        for name, expected, found in (
            ("size", want.size, self.state.st_size),
            ("mtime_ns", want.mtime_ns, self.state.st_mtime_ns),
        ):
            if expected is not None and expected != found:
                self.changed(f"{name} was {expected} when it was planned and is {found}")

    def prove(self, expected: str | None) -> None:
        """Fault "source corrupt" unless the whole file has this digest."""
        if expected is None or expected in self.proven:
            return
        digests = Digests(expected)
        for data in self.session.stretch(self.handle, 0, self.state.st_size):
            digests.update(data)
        digests.check()
        self.proven.add(expected)

    def still(self) -> None:
        """Fault "source changed" if the open file, or what has its name, is another than when it was opened."""
        for now in (self.session.fstat(self.handle), self._named()):
            if now != self.state:
                self.state = now
                self.changed("it was changed while it was read")

    def _named(self) -> State:
        try:
            return self.tree.look(self.path)[1]
        except FileNotFoundError:
            return self.state  # removed, but what was read is what it was: as on any host

    def changed(self, text: str) -> None:
        facts = {"size": self.state.st_size, "mtime_ns": self.state.st_mtime_ns}
        raise Fault("source changed", text, self.path, facts=facts)


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
                yield facts_of(want, want.size if want.piece is None else None, want.mtime_ns)
                yield "fault", fault_of(error, want.source, "source", "open")
            return
        try:
            for want in wants:
                yield facts_of(want, self.size_of(source, want), source.state.st_mtime_ns)
                try:
                    size, digest = yield from data(source, want)
                    source.still()
                except (OSError, EOFError, Fault) as error:
                    yield "fault", read_fault(error, want)
                else:
                    yield "end", {"size": size, "digest": digest}
        finally:
            source.close()

    def size_of(self, source: Source, want: Want) -> int:
        if want.piece is not None:
            return piece_size(want.piece)
        return want.stretch[1] if want.stretch else source.state.st_size

    def file(self, source: Source, want: Want) -> Generator[Frame, None, tuple[int, str]]:
        """A whole file, or a stretch of it, which has no digest."""
        source.expect(want)
        digests = Digests(None if want.stretch else want.digest)
        offset, size = want.stretch or (0, source.state.st_size)
        for data in self.session.stretch(source.handle, offset, size):
            if not want.stretch:
                digests.update(data)
            yield "data", data
        if want.stretch:
            return size, ""
        digests.check()
        return size, digests.text()

    def piece(self, source: Source, want: Want) -> Generator[Frame, None, tuple[int, str]]:
        """A piece: made in memory where it fits, else read twice, as its sum stands before its data."""
        piece = want.piece
        assert piece is not None
        check_piece(piece, source.state.st_size)
        source.expect(want)
        source.prove(want.digest)
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


def digest_at(tree: Tree, path: str, algorithm: str, reread: bool, stop: Stop) -> tuple[str, int, str]:
    """(path, size, "algorithm:hex") of a file, read over the wire; with `reread`, made durable first if it can be."""
    digest = hasher(algorithm)
    handle, state = tree.open_file(checked(path))
    try:
        if reread and SYNC in tree.session.extensions:
            tree.session.sync(handle)
            tree.sync(folder_of(path))
        for data in tree.session.stretch(handle, 0, state.st_size):
            if stop():
                raise stopped()
            digest.update(data)
    finally:
        if tree.session.alive:
            tree.session.close_handle(handle)
    return path, state.st_size, f"{algorithm}:{digest.hexdigest()}"


# ------------------------------------------------------------------------------------------- headers


class FarPlain(Plain):
    """A file over the wire for the walk over HDUs: forward, a little at a time, with what follows read ahead."""

    def __init__(self, session: Session, handle: bytes, size: int) -> None:
        self.session = session
        self.handle = handle
        self.size = size
        self.at = 0
        self.held = b""  # what was read ahead, from `at` on

    def begin(self, count: int) -> bytes:
        """The file's first bytes, where nothing was read yet."""
        return self._ahead(count)

    def last(self, count: int) -> bytes:
        count = min(count, self.size)
        return b"".join(self.session.stretch(self.handle, self.size - count, count))

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
                self.held += b"".join(self.session.stretch(self.handle, self.at + len(self.held), ahead))
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
        yield from self.session.stretch(self.handle, self.at + len(held), count - len(held))


def headers_at(tree: Tree, path: str, limits: Limits) -> tuple[Hdu, ...]:
    """The HDUs of a FITS file; Fault "source corrupt" says the HDU, card and value."""
    handle, state = tree.open_file(checked(path))
    session = tree.session
    try:
        return headers_of(FarPlain(session, handle, state.st_size), path, limits)
    finally:
        if session.alive:
            session.close_handle(handle)
