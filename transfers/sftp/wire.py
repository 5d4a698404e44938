"""SFTP version 3 over one of paramiko's channels: requests sent ahead of their answers, names as bytes.

The protocol is draft-ietf-secsh-filexfer-02 and the extensions of OpenSSH's PROTOCOL. paramiko's own client
decodes names, forgets which errno a status stood for, and does not tell what the server can do besides.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import paramiko

from transfers.agent import Buffer
from transfers.errors import TransferError, Transient, Unsupported
from transfers.ssh.paramiko_client import PACKET, Connection, broken, quoted

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = range(1, 11)
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT = range(11, 18)
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201
OK, EOF = 0, 1
FOR_READING, FOR_A_NEW_FILE = 0x01, 0x02 | 0x08 | 0x20  # WRITE | CREAT | EXCL
SIZE, OWNER, MODE, TIMES, MORE = 1, 2, 4, 8, 0x80000000  # of attributes

# A status is all that is left of the server's errno; OpenSSH makes these of those.
ERRNO_OF = {
    2: errno.ENOENT,  # also ENOTDIR and ELOOP
    3: errno.EACCES,  # also EPERM, and whatever a read-only server will not do
    5: errno.EINVAL,  # also ENAMETOOLONG
    8: errno.EOPNOTSUPP,
}
FAILURE = errno.EIO  # every other errno: a full disk, a name that is taken...

PACKET_MOST = 16 << 20  # a longer packet is no SFTP
BLOCK = 32 << 10  # what every server takes; more where it says so (limits@openssh.com)
BLOCK_MOST = 255 << 10
AHEAD = 4 << 20  # bytes asked for or sent before their answers: several megabytes a round trip


class State(NamedTuple):
    """What a server tells of a file, in the words of os.stat; times are whole seconds."""

    st_mode: int
    st_size: int
    st_mtime_ns: int


class Room(NamedTuple):
    """statvfs@openssh.com, the fields that are used."""

    block: int
    blocks: int
    free: int
    files: int
    files_free: int
    number: int  # of the file system
    read_only: bool


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def attributes(mode: int | None = None, mtime: int | None = None) -> bytes:
    flags, data = 0, b""
    if mode is not None:
        flags, data = MODE, struct.pack(">I", mode)
    if mtime is not None:
        flags, data = flags | TIMES, data + struct.pack(">II", mtime, mtime)
    return struct.pack(">I", flags) + data


class Answer:
    """A packet, taken apart from its front. Unsupported for one that is too short for what it should hold."""

    def __init__(self, kind: int, data: memoryview) -> None:
        self.kind = kind
        self.data = data

    def take(self, size: int) -> memoryview:
        if size > len(self.data):
            raise Unsupported("the server sent an SFTP packet that ends too soon", phase="sftp")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def long(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def text(self) -> bytes:
        return bytes(self.take(self.number()))

    def state(self) -> State | None:
        """Attributes; None where they do not say what kind of thing it is."""
        flags = self.number()
        size = self.long() if flags & SIZE else 0
        if flags & OWNER:
            self.take(8)
        mode = self.number() if flags & MODE else None
        times = (self.number(), self.number()) if flags & TIMES else (0, 0)
        for _ in range(self.number() if flags & MORE else 0):
            self.text(), self.text()
        return None if mode is None else State(mode, size, times[1] * 10**9)


class Session:
    """One SFTP session: for one thread at a time. TransferError when the connection is lost.

    What the server says of a file is an OSError with the errno that it may have been (see ERRNO_OF).
    """

    def __init__(self, connection: Connection, channel: Any, host_name: str, owner: bool = True) -> None:
        self.owner = owner  # ends its connection with itself
        self.connection = connection
        self.channel = channel
        self.host_name = host_name
        self.received = bytearray()
        self.last = 0
        self.answers: dict[int, Answer] = {}
        self.unwanted: set[int] = set()
        self.extensions: dict[str, bytes] = {}
        self.block = BLOCK
        self._begin()

    def _begin(self) -> None:
        self._send(INIT, struct.pack(">I", 3))
        answer = self._packet()
        if answer.kind != VERSION or answer.number() < 3:
            raise Unsupported("what answers there does not speak SFTP version 3", host=self.host_name, phase="sftp")
        while len(answer.data):
            name = answer.text().decode("ascii", "replace")
            self.extensions[name] = answer.text()
        if "limits@openssh.com" in self.extensions:
            answer = self.expect(self.ask(EXTENDED, text(b"limits@openssh.com")), EXTENDED_REPLY)
            packet, most_read, most_write = answer.long(), answer.long(), answer.long()
            known = [most for most in (packet - 1024, most_read, most_write) if most > 0]
            self.block = max(BLOCK, min([BLOCK_MOST, *known]))

    @property
    def alive(self) -> bool:
        return bool(self.connection.is_active()) and not self.channel.closed

    def close(self) -> None:
        if self.owner:
            self.connection.close()
        else:
            self.channel.close()

    # Packets.

    def _send(self, kind: int, *parts: Buffer) -> None:
        size = 1 + sum(len(part) for part in parts)
        view = memoryview(b"".join([struct.pack(">IB", size, kind), *parts]))
        try:
            while view:
                sent = self.channel.send(bytes(view[:PACKET]))
                if sent == 0:
                    raise EOFError
                view = view[sent:]
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.lost() from error

    def _packet(self) -> Answer:
        size = int.from_bytes(self._take(4), "big")
        if not 0 < size <= PACKET_MOST:
            raise Unsupported("what answers there does not speak SFTP", host=self.host_name, phase="sftp")
        data = self._take(size)
        return Answer(data[0], data[1:])

    def _take(self, size: int) -> memoryview:
        while len(self.received) < size:
            try:
                data = self.channel.recv(1 << 20)
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise self.lost() from error
            if not data:
                raise self.lost()
            self.received += data
        with memoryview(self.received) as view:
            taken = bytes(view[:size])
        del self.received[:size]  # cheap: a bytearray only moves its start
        return memoryview(taken)

    def lost(self) -> TransferError:
        """Why it cannot go on."""
        if self.connection.is_active():
            return Transient("the server ended the SFTP session", host=self.host_name, side="route", phase="sftp")
        return broken(self.connection, self.host_name)

    def ask(self, kind: int, *parts: Buffer) -> int:
        """Send a request; its answer is waited for with the number that this returns."""
        self.last = (self.last + 1) & 0xFFFFFFFF
        self._send(kind, struct.pack(">I", self.last), *parts)
        return self.last

    def answer(self, number: int) -> Answer:
        while number not in self.answers:
            answer = self._packet()
            got = answer.number()
            if got in self.unwanted:
                self.unwanted.discard(got)
            else:
                self.answers[got] = answer
        return self.answers.pop(number)

    def forget(self, numbers: Iterable[int]) -> None:
        """Nobody waits for these answers any more."""
        for number in numbers:
            if self.answers.pop(number, None) is None:
                self.unwanted.add(number)

    def expect(self, number: int, kind: int) -> Answer:
        """The answer, of that kind; OSError where it is a status that tells of an error, EOFError of an end."""
        answer = self.answer(number)
        if answer.kind == kind and kind != STATUS:
            return answer
        if answer.kind != STATUS:
            raise Unsupported("the server gave an answer to another question", host=self.host_name, phase="sftp")
        code = answer.number()
        if code == EOF:
            raise EOFError
        if code == OK and kind == STATUS:
            return answer
        said = quoted(answer.text()) if len(answer.data) else f"status {code}"
        raise OSError(ERRNO_OF.get(code, FAILURE), f"the SFTP server says: {said}")

    def done(self, number: int) -> None:
        self.expect(number, STATUS)

    # Files and folders, by their whole path.

    def state(self, number: int) -> State:
        state = self.expect(number, ATTRS).state()
        if state is None:
            raise Unsupported("the server does not tell files from folders", host=self.host_name, phase="sftp")
        return state

    def lstat(self, path: bytes) -> State:
        return self.state(self.ask(LSTAT, text(path)))

    def stat(self, path: bytes) -> State:
        return self.state(self.ask(STAT, text(path)))

    def fstat(self, handle: bytes) -> State:
        return self.state(self.ask(FSTAT, text(handle)))

    def set_state(self, path: bytes, attributes: bytes) -> None:
        self.done(self.ask(SETSTAT, text(path), attributes))

    def real(self, path: bytes) -> bytes:
        answer = self.expect(self.ask(REALPATH, text(path)), NAME)
        answer.number()
        return answer.text()

    def make_folder(self, path: bytes) -> None:
        self.done(self.ask(MKDIR, text(path), attributes()))

    def remove(self, path: bytes) -> None:
        self.done(self.ask(REMOVE, text(path)))

    def link(self, old: bytes, new: bytes) -> None:
        """hardlink@openssh.com: link(2), which gives a name only if nobody has it."""
        self.done(self.ask(EXTENDED, text(b"hardlink@openssh.com"), text(old), text(new)))

    def room(self, path: bytes) -> Room:
        answer = self.expect(self.ask(EXTENDED, text(b"statvfs@openssh.com"), text(path)), EXTENDED_REPLY)
        _, fragment, blocks, _, available, files, _, files_free, number, flags, _ = (answer.long() for _ in range(11))
        return Room(fragment, blocks, available, files, files_free, number, bool(flags & 1))

    def open(self, path: bytes, flags: int) -> bytes:
        return self.expect(self.ask(OPEN, text(path), struct.pack(">I", flags), attributes()), HANDLE).text()

    def close_handle(self, handle: bytes) -> None:
        self.done(self.ask(CLOSE, text(handle)))

    def sync(self, handle: bytes) -> None:
        self.done(self.ask(EXTENDED, text(b"fsync@openssh.com"), text(handle)))

    def listed(self, path: bytes) -> list[tuple[bytes, State | None]]:
        """The names in a folder and what each is, links not followed."""
        handle = self.expect(self.ask(OPENDIR, text(path)), HANDLE).text()
        found = []
        asked: deque[int] = deque()
        try:
            while True:
                while len(asked) < 4:
                    asked.append(self.ask(READDIR, text(handle)))
                answer = self.expect(asked.popleft(), NAME)
                for _ in range(answer.number()):
                    name, _, state = answer.text(), answer.text(), answer.state()
                    if name not in {b".", b".."}:
                        found.append((name, state))
        except EOFError:
            return found
        finally:
            self.forget(asked)
            if self.alive:
                self.close_handle(handle)

    def ranges(self, handle: bytes, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        """The bytes of (offset, size) after (offset, size), no larger than `block` each; EOFError if not there.

        As many are asked for ahead as `AHEAD` allows.
        """
        waiting: deque[tuple[int, int, int]] = deque()
        ahead = 0
        try:
            for offset, size in ranges:
                waiting.append((self._read(handle, offset, size), offset, size))
                ahead += size
                while ahead > AHEAD:
                    ahead -= waiting[0][2]
                    yield self._got(handle, *waiting.popleft())
            while waiting:
                yield self._got(handle, *waiting.popleft())
        finally:
            self.forget(number for number, _, _ in waiting)

    def _read(self, handle: bytes, offset: int, size: int) -> int:
        return self.ask(READ, text(handle), struct.pack(">QI", offset, size))

    def _got(self, handle: bytes, number: int, offset: int, size: int) -> memoryview:
        """One range; what a server left out of it is asked for again."""
        got = self._data(number)
        if len(got) == size:
            return got
        whole = bytearray(got)
        while len(whole) < size:
            whole += self._data(self._read(handle, offset + len(whole), size - len(whole)))
        return memoryview(whole)[:size]

    def _data(self, number: int) -> memoryview:
        answer = self.expect(number, DATA)
        data = answer.take(answer.number())
        if not data:
            raise EOFError
        return data

    def stretch(self, handle: bytes, offset: int, size: int) -> Iterator[memoryview]:
        """`size` bytes from an offset on, in order."""
        step = self.block
        return self.ranges(handle, ((at, min(step, offset + size - at)) for at in range(offset, offset + size, step)))


class Writing:
    """Data on its way into an open file, ahead of the server's answers."""

    def __init__(self, session: Session, handle: bytes) -> None:
        self.session = session
        self.handle = handle
        self.at = 0
        self.asked: deque[int] = deque()

    def write(self, data: Buffer) -> None:
        """Send the data; OSError for an error of data sent before."""
        view = memoryview(data).cast("B")
        block = self.session.block
        for start in range(0, len(view), block):
            part = view[start : start + block]
            head = text(self.handle) + struct.pack(">QI", self.at, len(part))
            self.asked.append(self.session.ask(WRITE, head, part))
            self.at += len(part)
            while len(self.asked) * block > AHEAD:
                self.session.done(self.asked.popleft())

    def finish(self) -> None:
        """Wait until all that was sent is written; OSError where some was not."""
        while self.asked:
            self.session.done(self.asked.popleft())

    def close(self, after: bytes | None = None) -> None:
        """Finish, set these attributes, and close the file: all asked for at once."""
        if after is not None:
            self.asked.append(self.session.ask(FSETSTAT, text(self.handle), after))
        self.asked.append(self.session.ask(CLOSE, text(self.handle)))
        failure: OSError | None = None
        while self.asked:
            try:
                self.session.done(self.asked.popleft())
            except OSError as error:
                failure = failure or error
        if failure is not None:
            raise failure
