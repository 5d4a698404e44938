"""The frames between Stager and an agent: any chunking, any garbage, and what is believed of what they say."""

from __future__ import annotations

import itertools
import json
import random
import resource
import socket
import struct
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfers.contract import ODD_NAMES
from tests.waiting import LATE_S
from transfers.agent import (
    CHUNK,
    DATA,
    GREETING,
    HEAD,
    MAGIC,
    MESSAGE,
    MESSAGE_MOST,
    NONCE_BYTES,
    PROTOCOL,
    Fault,
    Incoming,
    Outgoing,
    facts_of,
    fault_from,
    place_from,
    plain_fault,
    plain_place,
    plain_want,
    received_frame,
    send_frame,
    want_from,
)
from transfers.copying import copy
from transfers.errors import SIDES, TransferError, Transient, Unsupported, from_fault
from transfers.hosts import LIMITS, Cut, FileInfo, Hdu, Identity, Member, Opened, Piece, Receipt, Space, Want
from transfers.local import LocalHost
from transfers.ssh.answers import (
    Asked,
    Carried,
    Nonsense,
    Sent,
    SentStretches,
    clock_of,
    digest_at,
    fault_of,
    found_at,
    hdus_of,
    identity_at,
    made_of,
    moved_to,
    pairs,
    part_of,
    path_of,
    removed_at,
    scanned,
)
from transfers.ssh.host import SshHost

# Any text that JSON can carry, with the surrogates that stand for bytes of names that are no UTF-8.
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=40) | st.sampled_from(ODD_NAMES)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
messages = st.tuples(st.sampled_from(["call", "info", "file", "end", "x"]), plain)
blobs = st.tuples(st.just("data"), st.binary(min_size=1, max_size=3000))


def onto(wire: bytearray) -> Callable[..., None]:
    """A wire that takes what is written, part after part."""
    return lambda *parts: wire.extend(b"".join(parts))


def in_chunks(data: bytes, sizes: Iterable[int]) -> Callable[[memoryview], int]:
    """A channel that hands out so many bytes at a time, and ends."""
    at, turns = 0, iter(sizes)

    def read_into(view: memoryview) -> int:
        nonlocal at
        part = data[at : at + min(next(turns, 1 << 20), len(view))]
        view[: len(part)] = part
        at += len(part)
        return len(part)

    return read_into


def frames_in(incoming: Incoming) -> Iterator[tuple[str, Any]]:
    """All frames up to the channel's end, the data copied."""
    while True:
        try:
            name, body = incoming.frame()
        except EOFError:
            return
        yield name, bytes(body) if name == "data" else body


@given(st.lists(messages | blobs, max_size=12), st.lists(st.integers(1, 700), max_size=200), st.booleans())
def test_frames_arrive_as_they_were_sent_in_any_chunking(
    sent: list[tuple[str, Any]], sizes: list[int], hold: bool
) -> None:
    wire = bytearray()
    out = Outgoing(onto(wire))
    for name, body in sent:
        if name == "data":
            out.data(body)
        else:
            out.message(name, body, hold)
    out.flush()
    assert list(frames_in(Incoming(in_chunks(bytes(wire), sizes)))) == sent


def test_large_data_is_cut_and_held_messages_go_before_it() -> None:
    wire = bytearray()
    out = Outgoing(onto(wire))
    out.message("file", 1, hold=True)
    assert not wire
    data = bytes(range(256)) * (3 * CHUNK // 256) + b"rest"
    out.data(data)
    out.message("end", 2)
    got = list(frames_in(Incoming(in_chunks(bytes(wire), [7, 100_000, 3]))))
    assert (got[0], got[-1]) == (("file", 1), ("end", 2))
    assert b"".join(body for name, body in got if name == "data") == data


@settings(max_examples=300)
@given(st.binary(max_size=400), st.booleans(), st.integers(0, 5))
def test_garbage_is_a_fault_or_an_end(garbage: bytes, framed: bool, what: int) -> None:
    if framed:  # well framed, so that the text itself is looked at
        garbage = HEAD.pack(MAGIC, what, len(garbage)) + garbage
    incoming = Incoming(in_chunks(garbage, [3, 1, 50]))
    with pytest.raises((EOFError, Fault)):
        deque(iter(incoming.frame, None), maxlen=0)  # to its end


@pytest.mark.parametrize(
    "text",
    ["5", "null", "true", '"x"', "{}", "[]", '["a"]', "[1,2]", '["a",1,2]', "[null,1]", "[" * 100_000, "1" * 5000],
)
def test_message_that_is_no_pair_is_a_fault(text: str) -> None:
    wire = HEAD.pack(MAGIC, MESSAGE, len(text)) + text.encode()
    with pytest.raises(Fault):
        Incoming(in_chunks(wire, [])).frame()


@pytest.mark.parametrize(
    ("magic", "what", "size"),
    [
        (MAGIC, MESSAGE, MESSAGE_MOST + 1),
        (MAGIC, MESSAGE, 0xFFFFFFFF),
        (MAGIC, DATA, CHUNK + 1),
        (MAGIC, 0, 1),
        (MAGIC, 3, 1),
        (b"HT", MESSAGE, 10),
    ],
)
def test_size_over_the_caps_is_refused_before_room_is_made_for_it(magic: bytes, what: int, size: int) -> None:
    incoming = Incoming(in_chunks(struct.pack(">2sHI", magic, what, size) + bytes(100), []))
    tracemalloc.start()
    try:
        with pytest.raises(Fault, match="no frame"):
            incoming.frame()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_message_over_the_cap_is_not_sent() -> None:
    wire = bytearray()
    with pytest.raises(Fault, match="too long"):
        Outgoing(onto(wire)).message("x", "y" * (MESSAGE_MOST + 1))
    assert not wire


@given(texts, texts, st.integers(), st.dictionaries(texts, plain, max_size=3))
def test_faults_and_wants_survive_the_wire(text: str, path: str, number: int, facts: dict[str, Any]) -> None:
    fault = Fault("transient", text, path, "source", "read", number, facts)
    assert plain_fault(fault_from(json.loads(json.dumps(plain_fault(fault))))) == plain_fault(fault)
    piece = Piece(bytes(range(256)), (Cut(1, 2, 3, 4),), 5)
    for want in (
        Want(1, 2, path, text, 3, -4, "sha256:00", True),
        Want(1, 2, path, text, piece=piece),
        Want(1, 2, path, text, stretch=(5, 6)),
        Want(1, 2, path, text, 6, -4, "sha256:00", piece=piece, stretch=(5, 6)),
    ):
        assert want_from(json.loads(json.dumps(plain_want(want)))) == want


@given(texts, texts, st.integers(), st.integers())
def test_places_survive_the_wire(path: str, name: str, offset: int, size: int) -> None:
    for place in (path, Member(path, offset, size, name)):
        assert place_from(json.loads(json.dumps(plain_place(place)))) == place


def test_dropped_file_keeps_its_fault() -> None:
    wire = bytearray()
    send_frame(Outgoing(onto(wire)), "drop", {"item": 7, "fault": Fault("refused", "no", "a", facts={"host": "h"})})
    (frame,) = frames_in(Incoming(in_chunks(bytes(wire), [5])))
    name, body = received_frame(*frame)
    assert (name, body["item"], body["fault"].kind, body["fault"].facts) == ("drop", 7, "refused", {"host": "h"})


# What is believed.

DIGEST = "sha256:" + "ab" * 32
RECEIPT = [1, "a", 3, DIGEST, -5, "reread", False]
MEMBER = Member("bundle", 1000, 3, "m")
MEMBER_WANT = Want(1, 1, "bundle", "a", 3, -9, DIGEST, stretch=(1000, 3))


@settings(max_examples=300)
@given(plain)
def test_nothing_but_nonsense_comes_of_nonsense(body: Any) -> None:
    """Whatever the far side says, it is taken as what it must be or refused; no other exception, and never a crash."""
    checks: list[Callable[[], Any]] = [
        lambda: made_of(Receipt, body),
        lambda: made_of(FileInfo, body),
        lambda: made_of(Space, body),
        lambda: fault_of(body),
        lambda: path_of(body),
        lambda: clock_of(body),
        lambda: part_of(body),
        lambda: scanned("a", "info", body),
        lambda: scanned("", "skipped", body),
        lambda: found_at("a", body),
        lambda: removed_at("a", body),
        lambda: moved_to(("a", "b"), body),
        lambda: identity_at("a", body),
        lambda: digest_at("sha256", "a", body),
        lambda: digest_at("sha256", MEMBER, body),
        lambda: hdus_of(LIMITS, lambda: ("data", b"x" * 80), MEMBER, body),
        lambda: asked_of(MEMBER_WANT).frame("file", body),
        lambda: hdus_of(LIMITS, lambda: ("data", b"x" * 80), "a", body),
        lambda: asked_of(Want(1, 1, "a", "b", 3)).frame("file", body),
        lambda: sent_file().receipt(body),
        lambda: sent_file().fault(body),
        lambda: sent_file().opened(body),
        lambda: SentStretches().filled(body),
        lambda: SentStretches().fault(body),
        lambda: Carried("reread").receipt(body),
        lambda: Carried("reread").fault(body),
    ]
    for check in checks:
        try:
            result = check()
        except Nonsense:
            continue
        if isinstance(result, Fault):
            json.dumps(from_fault(result, "host").as_dict())
            assert str(from_fault(result, "host")).isprintable()


def asked_of(*wants: Want) -> Asked:
    asked = Asked()
    asked.add(list(wants))
    return asked


def sent_file(proof: str = "reread") -> Sent:
    sent = Sent(proof)
    sent.frame("file", {"item": 1, "path": "a"})
    sent.frame("end", {"size": 3, "digest": DIGEST})
    return sent


def test_receipt_is_for_what_was_sent() -> None:
    assert sent_file().receipt(RECEIPT) == Receipt(1, "a", 3, DIGEST, -5, "reread", False)
    assert sent_file().left() == 1
    for number, value in [(0, 2), (1, "b"), (2, 4), (2, -3), (3, "sha256:" + "0" * 64), (4, 1 << 63), (5, "stream")]:
        with pytest.raises(Nonsense):
            sent_file().receipt([*RECEIPT[:number], value, *RECEIPT[number + 1 :]])
    twice = sent_file()
    twice.receipt(RECEIPT)
    assert twice.left() == 0
    with pytest.raises(Nonsense):
        twice.receipt(RECEIPT)
    early = Sent("reread")
    early.frame("file", {"item": 1, "path": "a"})
    with pytest.raises(Nonsense):
        early.receipt(RECEIPT)


def test_fault_is_of_what_was_sent_and_blames_nobody_else() -> None:
    body = plain_fault(Fault("host down", "x", facts={"item": 1, "destination": "a", "host": "innocent"}))
    assert "host" not in sent_file().fault(body).facts
    sent = sent_file()
    sent.frame("fault", Fault("transient", "x", facts={"host": "innocent"}))  # the source's own, on its way through
    assert sent.fault(body).facts["host"] == "innocent"
    with pytest.raises(Nonsense):
        sent.fault(body)
    for facts in ({}, {"item": 1}, {"item": [1], "destination": "a"}, {"item": 1, "destination": ["a"]}):
        with pytest.raises(Nonsense):
            sent_file().fault(plain_fault(Fault("transient", "x", facts=facts)))


def test_opened_file_is_the_one_that_was_to_be_opened() -> None:
    sent = Sent("reread")
    sent.frame("open", {"item": 4, "path": "d/a"})
    right: list[Any] = [4, "d/a", "d/.a.4.part", 1 << 63]
    assert sent.opened(right) == Opened(*right)
    for number, value in [(0, 5), (1, "d/b"), (2, "../.a"), (2, "d/a"), (2, "/.a"), (3, 1 << 64)]:
        with pytest.raises(Nonsense):
            sent.opened([*right[:number], value, *right[number + 1 :]])
    sent.frame("close", {"item": 4, "size": 3, "digest": DIGEST})
    assert sent.receipt([4, "d/a", 3, DIGEST, 0, "reread", True]).adopted
    assert sent.left() == 0


def test_frames_of_a_read_are_what_was_wanted() -> None:
    want = Want(1, 2, "from", "to", 3, -9, DIGEST)
    asked = asked_of(want)
    hostile = {"item": 9, "epoch": 9, "path": "../../elsewhere", "replace": True, "size": 3, "mtime_ns": -9}
    name, facts = asked.frame("file", hostile)
    assert (name, facts["item"], facts["path"], facts["replace"]) == ("file", 1, "to", False)
    asked.frame("data", b"abc")
    assert asked.frame("end", {"size": 3, "digest": DIGEST}) == ("end", {"size": 3, "digest": DIGEST})
    assert (asked.bytes, len(asked.open)) == (0, 0)
    with pytest.raises(Nonsense):
        asked.frame("file", hostile)


@pytest.mark.parametrize(
    "frames",
    [
        [("data", b"abc")],
        [("unit", 2)],
        [("file", {"size": 3}), ("file", {"size": 3})],
        [("file", {"size": 3}), ("data", b"")],
        [("file", {"size": 3}), ("data", 3)],
        [("file", {"size": 3}), ("data", [1, 2, 3])],
        [("file", {"size": 3}), ("data", b"abcd")],
        [("file", {"size": None}), ("data", b"a")],
        [("file", {"size": -1})],
        [("file", {"size": True})],
        [("file", {"size": 1 << 70})],
        [("file", {"size": 3}), ("data", b"ab"), ("end", {"size": 3, "digest": DIGEST})],
        [("file", {"size": 2}), ("data", b"ab"), ("end", {"size": 2, "digest": DIGEST})],
        [("file", {"size": 3}), ("data", b"abc"), ("end", {"size": 3, "digest": "sha256:" + "0" * 64})],
        [("file", {"size": 3}), ("data", b"abc"), ("end", {"size": 3, "digest": ""})],
        [("file", {"size": 3}), ("data", b"abc"), ("end", None)],
        [("file", {"size": 3}), ("fault", 5)],
        [("file", {"size": 3}), ("receipt", [])],
    ],
)
def test_other_frames_of_a_read_are_nonsense(frames: list[tuple[str, Any]]) -> None:
    asked = asked_of(Want(1, 2, "from", "to", 3, None, DIGEST))
    *before, last = frames
    for frame in before:
        asked.frame(*frame)
    with pytest.raises(Nonsense):
        asked.frame(*last)


def test_frames_of_a_member_are_what_was_wanted() -> None:
    md5 = "md5:" + "0" * 32
    for want in (MEMBER_WANT, MEMBER_WANT._replace(size=None), MEMBER_WANT._replace(digest=md5)):
        asked = asked_of(want)
        assert asked.bytes == 3
        assert asked.frame("file", {"size": 3, "mtime_ns": -9})[1]["mtime_ns"] == -9
        asked.frame("data", b"abc")
        assert asked.frame("end", {"size": 3, "digest": DIGEST})[0] == "end"
        assert asked.bytes == 0
    block = asked_of(MEMBER_WANT._replace(digest=None))
    block.frame("file", {"size": 3, "mtime_ns": 77})
    block.frame("data", b"abc")
    block.frame("end", {"size": 3, "digest": ""})


@pytest.mark.parametrize(
    "frames",
    [
        [("file", {"size": 4, "mtime_ns": -9})],
        [("file", {"size": 3, "mtime_ns": -8})],
        [("file", {"size": 3})],
        [("file", {"size": 3, "mtime_ns": -9}), ("end", {"size": 0, "digest": DIGEST})],
        [("file", {"size": 3, "mtime_ns": -9}), ("data", b"abc"), ("end", {"size": 3, "digest": ""})],
        [("file", {"size": 3, "mtime_ns": -9}), ("data", b"abc"), ("end", {"size": 3, "digest": "sha256:" + "0" * 64})],
        [("file", {"size": 3, "mtime_ns": -9}), ("data", b"abc"), ("end", {"size": 3, "digest": "md5:" + "0" * 32})],
        [("file", {"size": None, "mtime_ns": -9}), ("end", {"size": 0, "digest": DIGEST})],
    ],
)
def test_other_frames_of_a_member_are_nonsense(frames: list[tuple[str, Any]]) -> None:
    """The size, and time, of the file that it lies in are not the member's."""
    asked = asked_of(MEMBER_WANT)
    *before, last = frames
    for frame in before:
        asked.frame(*frame)
    with pytest.raises(Nonsense):
        asked.frame(*last)


def test_receipt_of_a_carried_member_is_of_it() -> None:
    right: list[Any] = [1, "a", 3, DIGEST, -9, "reread", False]
    for want in (MEMBER_WANT, MEMBER_WANT._replace(size=None)):
        for body, expected in ((right, True), ([*right[:2], 4, *right[3:]], False)):
            carried = Carried("reread")
            carried.add([want])
            if expected:
                assert carried.receipt(body) == Receipt(*right)
                continue
            with pytest.raises(Nonsense):
                carried.receipt(body)


def test_what_is_said_of_a_member_is_of_it() -> None:
    assert digest_at("sha256", MEMBER, ["m", 3, DIGEST]) == ("m", 3, DIGEST)
    for body in (["bundle", 3, DIGEST], ["m", 4, DIGEST], ["m", 3, "md5:" + "0" * 32], ["m", 3, "sha256:x"]):
        with pytest.raises(Nonsense):
            digest_at("sha256", MEMBER, body)
    member = MEMBER._replace(size=80)
    frames = iter([("data", b"x" * 80)] * 2)
    plain: list[Any] = [7, None, None, 0]
    assert hdus_of(LIMITS, lambda: next(frames), member, [[80, 0, 80, *plain, False]])[0].offset == 0
    assert hdus_of(LIMITS, lambda: next(frames), member, [[80, 9000, 9080, *plain, True]])[0].packed
    for length, offset, data_offset in ((80, 1, 80), (81, 0, 80), (80, 0, 81)):
        with pytest.raises(Nonsense):
            hdus_of(LIMITS, lambda: ("data", b"x" * 80), member, [[length, offset, data_offset, *plain, False]])


def test_moved_file_has_the_path_that_was_asked_for() -> None:
    assert moved_to(("a", "b"), "b") == "b"
    for body in ("a", "../b", None, ["b"]):
        with pytest.raises(Nonsense):
            moved_to(("a", "b"), body)


def test_identity_is_two_bounded_words() -> None:
    boot = "31ea49b2-9bd2-4c4b-a3e7-2b2b4d0a5e4f"
    assert identity_at("a", [f"{boot}:66305", 1 << 63]) == Identity(f"{boot}:66305", 1 << 63)
    assert identity_at("a", None) is None
    for body in (
        [boot, 1],
        [f"{boot}:x", 1],
        [f"{boot}:1", -1],
        [f"{boot}:1", 1 << 64],
        ["\x1b[2J:1", 1],
        ["1:1" * 99, 1],
    ):
        with pytest.raises(Nonsense):
            identity_at("a", body)


def test_unit_of_a_read_is_whole_and_in_its_place() -> None:
    unit = [Want(1, 1, "a", "x", 0), Want(1, 1, "a", "y", 0)]
    asked = asked_of(*unit)
    with pytest.raises(Nonsense):
        asked.frame("file", {"size": 0})  # without its beginning each file would be landed for itself
    for number in (1, 3, "2", None):
        with pytest.raises(Nonsense):
            asked_of(*unit).frame("unit", number)
    asked = asked_of(*unit)
    assert asked.frame("unit", 2) == ("unit", 2)
    for _ in unit:
        asked.frame("file", {"size": 0})
        asked.frame("fault", plain_fault(Fault("transient", "x")))
    with pytest.raises(Nonsense):
        asked.frame("unit", 2)


def test_headers_are_within_the_limits() -> None:
    def data(size: int) -> Callable[[], tuple[str, Any]]:
        return lambda: ("data", b"x" * size)

    plain: list[Any] = [160, 7, None, None, 0, False]
    assert hdus_of(LIMITS, data(80), "a", [[160, 0, *plain]]) == (Hdu(0, b"x" * 160, 160, 7),)
    whole: list[Any] = [160, 0, 160, 7, 0xFFFFFFFF, 2873, 12, True]
    (hdu,) = hdus_of(LIMITS, data(80), "a", [whole])
    assert hdu == Hdu(0, b"x" * 160, 160, 7, 0xFFFFFFFF, 2873, 12, packed=True)
    for rows in (
        [[-160, 0, *plain]],
        [[1 << 40, 0, *plain], [-(1 << 40), 0, *plain]],
        [[LIMITS.header_bytes, 0, *plain], [1, 0, *plain]],
        [[80, 0, 160, 7]],
        [[80, 0, 0, True, None, None, 0, False]],
        [[80, 0, 160, 7, 1 << 32, None, 0, False]],
        [[80, 0, 160, 7, -1, None, 0, False]],
        [[80, 0, 160, 7, True, None, 0, False]],
        [[80, 0, 160, 7, None, -1, 0, False]],
        [[80, 0, 160, 7, None, None, None, False]],
        [[80, 0, 160, 7, None, None, 0, 0]],
        [None],
        "x",
        {"a": 1},
        [[0, 0, *plain]] * (LIMITS.hdus + 1),
    ):
        with pytest.raises(Nonsense):
            hdus_of(LIMITS, data(80), "a", rows)
    for size in (0, 81):  # an endless wait for nothing; more than was announced
        with pytest.raises(Nonsense):
            hdus_of(LIMITS, data(size), "a", [[80, 0, *plain]])


def test_fault_is_plain_and_bounded() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    facts = {"deep": {"a": deep}, "huge": 1 << 80, "long": "x" * 10**6, "many": [1] * 10**5, "host": "innocent"}
    fault = fault_of(
        {"kind": "made up", "text": "\x1b[2Jhi\u202e", "side": "outer space", "errno": 10**9, "facts": facts}
    )
    error = from_fault(fault, "there")
    assert (error.kind, error.host, error.side, error.errno) == ("transient", "there", "", None)
    assert len(json.dumps(error.as_dict())) < 20_000
    assert str(error).isprintable()


def test_answers_are_as_many_as_the_questions() -> None:
    assert list(pairs(["a", "b"], iter([("x", 1), ("x", 2)]))) == [("a", "x", 1), ("b", "x", 2)]
    for count in (0, 1, 3):
        with pytest.raises(Nonsense):
            list(pairs(["a", "b"], iter([("x", 1)] * count)))

    def endless() -> Iterator[tuple[str, Any]]:
        while True:
            yield "x", 1

    with pytest.raises(Nonsense):
        list(pairs(["a"], endless()))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "", "a\0b", "\ud800", "other/x", "ax"])
def test_scan_yields_no_path_from_elsewhere(path: str) -> None:
    with pytest.raises(Nonsense):
        scanned("a", "info", [path, 1, 1])


def test_scan_takes_old_and_odd_files() -> None:
    for name in ODD_NAMES:
        assert scanned("", "info", [name, 1, -(10**18)]) == FileInfo(name, 1, -(10**18))


# A far side that lies, from its greeting on: in this process, at the other end of a socket.


class SocketChannel:
    """A channel to a far side that is a function."""

    def __init__(self, far: Callable[[socket.socket], None]) -> None:
        self.near, other = socket.socketpair()
        self.thread = threading.Thread(target=self.run, args=(far, other), daemon=True)
        self.thread.start()

    def run(self, far: Callable[[socket.socket], None], other: socket.socket) -> None:
        with other, suppress(OSError, EOFError, Fault):
            far(other)

    def write(self, *parts: bytes) -> None:
        try:
            self.near.sendall(b"".join(parts))
        except OSError as error:
            raise self.ended() from error

    def read_into(self, view: memoryview) -> int:
        try:
            return self.near.recv_into(view)
        except OSError as error:
            raise self.ended() from error

    def is_open(self) -> bool:
        return self.thread.is_alive()

    def ended(self) -> TransferError:
        return Transient("it ended", host="there", side="route", phase="channel")

    def kill(self) -> None:
        with suppress(OSError):
            self.near.shutdown(socket.SHUT_RDWR)
        self.near.close()
        if self.thread is not threading.current_thread():
            self.thread.join(LATE_S)
        assert not self.thread.is_alive()

    def about(self) -> dict[str, str]:
        return {}


Says = Callable[[Outgoing, Callable[[], tuple[str, Any]], dict[str, Any]], None]


class LyingClient:
    """A way to a far side that greets as an agent does, and answers every call with what the test says."""

    name = "liar"

    def __init__(self, says: Says, hello: Any = None) -> None:
        self.says = says
        self.hello = {"protocol": PROTOCOL, "python": "3.\x1b[2J", "pinned": None} if hello is None else hello
        self.made: list[SocketChannel] = []

    def run(self, command: str) -> SocketChannel:
        assert "stager-agent" in command
        self.made.append(SocketChannel(self.far))
        return self.made[-1]

    def far(self, sock: socket.socket) -> None:
        incoming, out = Incoming(sock.recv_into), Outgoing(lambda *parts: sock.sendall(b"".join(parts)))
        length = bytearray(8)
        incoming.take(memoryview(length))
        incoming.take(memoryview(bytearray(int(length, 16))))
        nonce = bytearray(NONCE_BYTES)
        incoming.take(memoryview(nonce))
        out.write(b"motd" + GREETING + nonce + b"\n")
        out.message("hello", self.hello)
        while True:
            name, body = incoming.frame()
            if name != "call":
                continue
            if body["name"] == "begin":
                out.message("done")
            else:
                self.says(out, incoming.frame, body)


def lying(says: Says) -> SshHost:
    return SshHost("there", "/root", LyingClient(says))


def answering(*messages: tuple[str, Any], done: bool = True) -> Says:
    """Answers each call with these messages, or raw bytes."""

    def says(out: Outgoing, frame: Callable[[], tuple[str, Any]], call: dict[str, Any]) -> None:
        for name, body in messages:
            if name == "raw":
                out.write(body)
            elif name == "data":
                out.data(body)
            else:
                out.message(name, body)
        if done:
            out.message("done")

    return says


WANT = Want(1, 1, "a", "b/c", 3, 5)


def calls_of(host: SshHost, folder: Path) -> dict[str, Callable[[], Any]]:
    """Everything that can be asked of a host, to the end of its answers; downloads land in the folder."""
    here = LocalHost("here", str(folder))
    here.open(None)
    landed = [("file", facts_of(WANT, 3, 5)[1]), ("data", b"abc"), ("end", {"size": 3, "digest": DIGEST})]
    stretch = [("stretch", {"part": "b/.c.part", "inode": 5, "offset": 0, "size": 3}), *landed[1:]]
    return {
        "open": lambda: host.open(None),
        "scan": lambda: list(host.scan("a")),
        "find": lambda: list(host.find(["a", "b"])),
        "digest": lambda: list(host.digest(["a"], stop=lambda: False)),
        "headers": lambda: list(host.headers(["a"])),
        "remove": lambda: list(host.remove(["a"])),
        "move": lambda: list(host.move([("a", "b")])),
        "identify": lambda: list(host.identify(["a"])),
        "digest of a member": lambda: list(host.digest([MEMBER])),
        "headers of a member": lambda: list(host.headers([MEMBER])),
        "member down": lambda: list(copy(host, here, [MEMBER_WANT._replace(destination="b/c")], streams=2)),
        "space": host.space,
        "clock": host.clock,
        "about": host.about,
        "sweep": lambda: host.sweep("", lambda item, epoch: False),
        "read": lambda: [kind for kind, _ in host.read([WANT])],
        "land": lambda: list(host.land(list(landed))),
        "fill": lambda: list(host.fill(list(stretch))),
        "carry": lambda: list(host.carry([WANT], stop=lambda: False)),
        "copy down": lambda: list(copy(host, here, [WANT], streams=2)),
        "copy up": lambda: list(copy(here, host, [WANT._replace(source=".x")], streams=2)),
        "copy cut": lambda: list(copy(host, here, [WANT._replace(size=64 << 20)], streams=2)),
    }


def survives(host: SshHost, folder: Path, names: Iterable[str] = ()) -> list[str]:
    """Ask everything; what comes of it, in words. Nothing but a TransferError, with text fit for people."""
    said = []
    for name, call in calls_of(host, folder).items():
        if names and name not in names:
            continue
        try:
            result = call()
        except TransferError as error:
            result = [error]
        errors = [one for one in (result if isinstance(result, list) else []) if isinstance(one, TransferError)]
        errors += [
            one
            for pair in (result if isinstance(result, list) else [])
            if isinstance(pair, tuple)
            for one in pair
            if isinstance(one, TransferError)
        ]
        for error in errors:
            assert str(error).isprintable()
            assert error.side in (*SIDES, "")
            assert error.host in {"there", "here"}
            json.dumps(error.as_dict())
            said.append(f"{name}: {error}")
    host.close()
    inside = {path.name for path in folder.rglob("*") if path.is_file()}
    assert inside == {"marker"}, "nothing of what it says is believed"
    return said


LIES: dict[str, Says] = {
    "nothing": answering(),
    "null": answering(("info", None), ("done", None)),
    "wrong magic": answering(("raw", b"HTTP/1.1 200 OK\r\n\r\n")),
    "huge message": answering(("raw", HEAD.pack(MAGIC, MESSAGE, 0xFFFFFFFF))),
    "huge data": answering(("raw", HEAD.pack(MAGIC, DATA, 0xFFFFFFFF))),
    "no pair": answering(("raw", HEAD.pack(MAGIC, MESSAGE, 4) + b"null")),
    "deep": answering(("raw", HEAD.pack(MAGIC, MESSAGE, 100_000) + b"[" * 100_000)),
    "moved": answering(("moved", "../b")),
    "identities": answering(("identity", ["\x1b[2J", 1])),
    "a block and no member": answering(
        ("file", {"size": 3, "mtime_ns": -9}), ("data", b"abc"), ("end", {"size": 3, "digest": ""})
    ),
    "the bundle and no member": answering(
        ("file", {"size": 9, "mtime_ns": 5}), ("data", b"bytes of 9"[:9]), ("end", {"size": 9, "digest": DIGEST})
    ),
    "failed with nothing": answering(("failed", None)),
    "failed with a list": answering(("failed", [1])),
    "failed in colours": answering(("failed", plain_fault(Fault("refused", "\x1b]0;x\x07\u202e\r\n", "\x1b[2J", "x")))),
    "failed for another": answering(("failed", plain_fault(Fault("host down", "x", facts={"host": "innocent"})))),
    "failed with a number for a host": answering(("failed", plain_fault(Fault("host down", "x", facts={"host": 5})))),
    "receipts": answering(("receipt", RECEIPT), ("receipt", RECEIPT)),
    "a receipt with another digest": answering(("receipt", [1, "b/c", 3, "sha256:" + "0" * 64, 5, "reread", False])),
    "opened": answering(("opened", [1, "b/c", "b/.c.part", 5])),
    "filled": answering(("filled", ["b/.c.part", 0, 4])),
    "info": answering(("info", ["../../etc/passwd", 3, 5])),
    "info of minus one": answering(("info", ["a", -1, 5]), ("info", ["b", -1, 5])),
    "info beyond a database": answering(("info", ["a", 1 << 63, 5]), ("info", ["b", 1, 1 << 63])),
    "hdus": answering(("hdus", [[-1, 0, 0, 0], [1 << 40, 0, 0, 0]])),
    "hdus without end": answering(("hdus", [[1 << 20, 0, 0, 0]]), ("data", b"x" * 100)),
    "clock": answering(("raw", HEAD.pack(MAGIC, MESSAGE, 17) + b'["clock",1e99999]'[:17])),
    "another file": answering(
        ("file", {"item": 9, "epoch": 9, "path": "../../x", "replace": True, "size": 3, "mtime_ns": 5}),
        ("data", b"abc"),
        ("end", {"size": 3, "digest": "sha256:" + "0" * 64}),
    ),
    "a file as a message": answering(
        ("file", {"size": 3, "mtime_ns": 5}), ("raw", HEAD.pack(MAGIC, MESSAGE, 12) + b'["data","x"]')
    ),
    "parts": answering(("part", ["x", None])),
    "part names": answering(("swept", "../x")),
    "end of the channel": answering(("raw", b""), done=False),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_errors_of_the_route_or_the_host(tmp_path: Path, lie: str) -> None:
    says = LIES[lie]
    if lie == "end of the channel":

        def ends(*_: Any) -> None:
            raise EOFError

        says = ends
    said = survives(lying(says), tmp_path)
    assert said
    assert "innocent" not in "".join(said)
    if lie == "nothing":
        assert any("does not speak as an agent does" in text for text in said)


@pytest.mark.parametrize(
    "call", [*["open", "scan", "find", "digest", "headers", "read", "land", "carry", "remove"], "move", "identify"]
)
def test_endless_answers_end_or_flow_and_fill_no_memory(tmp_path: Path, call: str) -> None:
    """A scan that never ends is its caller's to end; of all else there is only so much."""
    answers = {
        "scan": ("info", ["a/x", 3, 5]),
        "find": ("info", None),
        "open": ("marker", "x" * 1000),
        "digest": ("digest", ["a", 3, DIGEST]),
        "headers": ("hdus", []),
        "read": ("file", {"size": 3, "mtime_ns": 5}),
        "land": ("receipt", [1, "b/c", 3, DIGEST, 5, "reread", False]),
        "carry": ("receipt", [1, "b/c", 3, DIGEST, 5, "reread", False]),
        "remove": ("removed", "a"),
        "move": ("moved", "b"),
        "identify": ("identity", None),
    }

    def says(out: Outgoing, frame: Callable[[], tuple[str, Any]], told: dict[str, Any]) -> None:
        while True:
            out.message(*answers[call], hold=True)

    host = lying(says)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if call == "scan":
        found = host.scan("a")
        assert sum(1 for _ in itertools.islice(found, 100_000)) == 100_000
        found.close()  # type: ignore[attr-defined] # it is a generator
        host.close()
    else:
        assert survives(host, tmp_path, [call])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB


@pytest.mark.parametrize("hello", [5, [], {}, {"protocol": 99}, {"protocol": "\x1b[2J"}, "x"])
def test_agent_of_another_protocol_is_unsupported(hello: Any) -> None:
    host = SshHost("there", "/root", LyingClient(answering(), hello))
    with pytest.raises(Unsupported, match="another protocol") as raised:
        host.space()
    assert str(raised.value).isprintable()


def test_far_side_that_is_done_early_and_reads_no_more_holds_up_nobody() -> None:
    """Who sends to it would wait for ever."""

    def says(out: Outgoing, frame: Callable[[], tuple[str, Any]], call: dict[str, Any]) -> None:
        out.message("done")
        time.sleep(3)

    def frames() -> Iterator[tuple[str, Any]]:
        yield facts_of(WANT, 1 << 40, 5)
        while True:
            yield "data", bytes(CHUNK)

    with pytest.raises(Transient, match="done before it was told all"):
        list(lying(says).land(frames()))


@pytest.mark.parametrize("when", ["before it is opened", "after"])
def test_landing_of_a_cut_file_that_ends_holds_up_nobody(tmp_path: Path, when: str) -> None:
    """The landing waits for blocks, the blocks for the landing: whichever ends lets the other go."""

    def says(out: Outgoing, frame: Callable[[], tuple[str, Any]], call: dict[str, Any]) -> None:
        if call["name"] == "find":
            out.message("info", None)
            out.message("done")
            return
        if call["name"] == "land" and when == "after":
            name, body = frame()
            assert name == "open"
            out.message("opened", [body["item"], body["path"], ".x.part", 5])
        raise EOFError

    (tmp_path / "large").write_bytes(bytes(40 << 20))
    here = LocalHost("here", str(tmp_path))
    here.open(None)
    wants = [Want(1, 1, "large", "large", 40 << 20), Want(2, 1, "large", "other", 40 << 20)]
    host = lying(says)
    results = list(copy(here, host, wants, streams=3))
    assert sorted(want.item for want, _ in results) == [1, 2]
    assert all(isinstance(result, Transient) for _, result in results)
    host.close()


@pytest.mark.parametrize("seed", range(8))
def test_random_answers_are_survived(tmp_path: Path, seed: int) -> None:
    """Hundreds of conversations with a far side that says anything: frames that are right but for something."""
    chance = random.Random(seed)
    names = [
        "info",
        "skipped",
        "digest",
        "hdus",
        "removed",
        "moved",
        "identity",
        "space",
        "clock",
        "marker",
        "part",
        "swept",
        "file",
        "end",
        "unit",
        "receipt",
        "opened",
        "filled",
        "fault",
        "failed",
        "hello",
        "data",
        "x",
    ]
    bodies: list[Any] = [
        None,
        0,
        -1,
        1 << 70,
        1.5,
        True,
        "",
        "a",
        "../x",
        "\x1b[2J",
        "\ud800",
        [],
        [[]],
        {},
        [1, 2],
        ["a", 3, 5],
        RECEIPT,
        [1, "b/c", 3, DIGEST, 5, "reread", False],
        ["a", 3, DIGEST],
        [[1, 0, 0, 0]],
        {"size": 3, "mtime_ns": 5},
        {"size": 3, "digest": DIGEST},
        {"kind": "refused", "text": "\x07", "facts": {"item": 1, "destination": "b/c"}},
    ]

    def says(out: Outgoing, frame: Callable[[], tuple[str, Any]], call: dict[str, Any]) -> None:
        for _ in range(chance.randrange(4)):
            what = chance.randrange(10)
            if what == 0:
                out.write(chance.randbytes(chance.randrange(60)))
            elif what == 1:
                out.data(chance.randbytes(chance.randrange(1, 2000)))
            elif what == 2:
                out.write(HEAD.pack(MAGIC, chance.randrange(4), chance.randrange(1 << 32)))
            else:
                out.message(chance.choice(names), chance.choice(bodies))
        if chance.random() < 0.2:
            raise EOFError
        out.message("done")
        if chance.random() < 0.2:
            raise EOFError  # or what follows a half frame would be waited for

    client = LyingClient(lambda *told: (says(*told), eof())[0])
    for turn in range(6):
        folder = tmp_path / str(turn)
        folder.mkdir()
        survives(SshHost("there", "/root", client), folder)
    assert len(client.made) > 40


def eof() -> None:
    raise EOFError
