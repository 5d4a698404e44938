"""A store that speaks S3 keeps the contract, as far as S3 can: against a real server."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import pytest

from tests.proxies import Proxy
from tests.rclone import Broken, Rclone
from tests.transfers import crafted
from tests.transfers.contract import ODD_NAMES, HostContract, files_in, frames_of, names, sha256, wants_of
from tests.transfers.contract_members import BUNDLE, bundled, want_of
from tests.waiting import until
from transfers.agent import Fault
from transfers.copying import copy
from transfers.errors import (
    Conflict,
    CorruptedOnTheWay,
    HostDown,
    Refused,
    SourceChanged,
    SourceCorrupt,
    SourceMissing,
    TransferError,
    Transient,
    Unsupported,
)
from transfers.hosts import Clock, FileInfo, Frame, Host, Identity, Member, Receipt, Residency, Want, only
from transfers.local import LocalHost
from transfers.s3 import changing
from transfers.s3.bucket import Bucket
from transfers.s3.reading import Shelf
from transfers.s3.store import S3Store

LARGE = (20 << 20) + 7  # bytes of what is put in three parts
TAKEN = b"another file"

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], NoReturn]) -> Iterator[Rclone]:
    yield from served(tmp_path_factory.mktemp("rclone"), require)


@pytest.fixture
def own_server(tmp_path: Path, require: Callable[[str], NoReturn]) -> Iterator[Rclone]:
    """One that the test may kill."""
    yield from served(tmp_path / "rclone", require)


def served(folder: Path, require: Callable[[str], NoReturn], *options: str) -> Iterator[Rclone]:
    try:
        with Rclone.start(folder, *options) as server:
            yield server
    except Broken as error:
        require(str(error))


@pytest.fixture
def stores() -> Iterator[list[S3Store]]:
    """The stores that a test makes; closed when it is over."""
    made: list[S3Store] = []
    yield made
    for store in made:
        store.close()


@pytest.fixture
def make(stores: list[S3Store]) -> Callable[..., S3Store]:
    """A store over a server's bucket, opened unless it says otherwise."""

    def made(server: Rclone, root: Path, opened: bool = True, **other: object) -> S3Store:
        bucket, *prefix = root.relative_to(server.served).parts
        store = S3Store("mss", "/" + "/".join(prefix), bucket, **(server.reached | other))  # type: ignore[arg-type]
        stores.append(store)
        if opened:
            store.open(None)
        return store

    return made


@pytest.fixture
def root(server: Rclone) -> Path:
    """The folder that the server shows below a prefix of a bucket of the test's own."""
    root = server.make_bucket(f"bucket-{next(numbers)}") / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(server: Rclone, root: Path, make: Callable[..., S3Store]) -> S3Store:
    return make(server, root)


class TestS3Store(HostContract):
    @pytest.fixture
    def root(self, root: Path) -> Path:  # type: ignore[override] # of this module, and not the contract's
        return root

    @pytest.fixture(autouse=True)
    def _server(self, server: Rclone, make: Callable[..., S3Store]) -> None:
        self.server = server
        self.made = make

    def make(self, root: Path, **options: object) -> Host:
        return self.made(self.server, root, opened=False, **options)

    def copied(self, host: Host, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        """To a twin, whose bytes come here and go back; within one host the bytes are not seen on the way."""
        twin = self.make(self.root_of(host))
        assert isinstance(twin, S3Store)
        twin.name = "twin"
        twin.open(None)
        results = list(copy(host, twin, wants, **options))  # type: ignore[arg-type] # options differ by test
        assert sorted(want.destination for want, _ in results) == sorted(want.destination for want in wants)
        return {want.destination: result for want, result in results}

    def root_of(self, host: Host) -> Path:
        assert isinstance(host, S3Store)
        return self.server.served / host.about()["bucket"].split()[0] / "root"

    # What the contract asks of folders, links and devices: S3 has none of them, and this server shows none.

    def test_unreadable_folder_is_an_error_and_not_empty(self, host: Host, root: Path) -> None:
        pytest.skip("a bucket has no folders that could be closed; this server leaves out what it cannot read itself")

    def test_root_that_is_gone_is_down(self, tmp_path: Path) -> None:
        """A bucket that never was is a wrong name in the configuration; a prefix comes with its first object."""
        for marks in (True, False):
            with pytest.raises(Refused, match="no such bucket"):
                self.make(self.server.served / "no-such-bucket" / "root").open(None, marks)
        with pytest.raises(HostDown, match="bucket no more"):
            self.make(self.server.served / "no-such-bucket" / "root").open("00000000-0000-0000-0000-000000000000")

    def test_what_is_not_a_file_is_said(self, host: Host, root: Path) -> None:
        os.mkfifo(root / "fifo")
        (root / "link").symlink_to("/etc/passwd")
        (root / "folder").mkdir()
        assert list(host.scan("")) == []

    def test_links_are_not_followed(self, host: Host, root: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (root / "file").symlink_to(tmp_path / "secret")
        assert list(host.find(["file"])) == [None]
        assert isinstance(only(host.digest(["file"])), SourceMissing)
        assert list(host.read([Want(1, 1, "file", "x")]))[-1][1].kind == "source missing"

    def test_links_that_stay_inside_are_followed_where_allowed(self, root: Path, tmp_path: Path) -> None:
        with pytest.raises(TypeError):
            self.make(root, links=True)

    @pytest.mark.parametrize("thing", ["folder"])
    def test_name_taken_by_something_else_is_a_conflict(self, host: Host, root: Path, thing: str) -> None:
        """In S3 an object may be called as others begin; on a server that shows a disk it may not."""
        (root / "out/a").mkdir(parents=True)
        (root / "out/a/below").write_bytes(b"x")
        (landed,) = host.land(frames_of("out/a", b"x"))
        assert isinstance(landed, Conflict)
        assert isinstance(self.copied(host, wants_of(host, "out/a/below", "out/a"))["out/a/out/a/below"], Receipt)
        assert names(root / "out") == ["a"]

    def test_find_tells_files_from_nothing_and_folders(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/f").write_bytes(b"abc")
        file, nothing, below_file, folder = host.find(["d/f", "d/g", "d/f/g", "d"])
        assert file == FileInfo("d/f", 3, int((root / "d/f").stat().st_mtime) * 10**9)
        assert (nothing, below_file, folder) == (None, None, None)

    def test_remove_is_for_files_and_may_be_said_twice(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        for name in ("f", "g"):
            (root / "d" / name).write_bytes(b"abc")
        assert list(host.remove(["d/f", "d/f", "none"])) == ["d/f", "d/f", "none"]
        assert names(root / "d") == ["g"]

    def test_member_that_cannot_be_there_is_told_before_it_is_read(self, host: Host, root: Path) -> None:
        data = os.urandom(3000)
        member = bundled(root, {"a": data})["a"]
        whole = (root / BUNDLE).stat().st_size
        wants = [
            want_of(1, member, data, destination="out/beyond", stretch=(whole - 2999, 3000)),
            want_of(2, member, data, destination="out/far", stretch=(whole * 9, 3000)),
            want_of(3, member, data, destination="out/before", stretch=(-1, 3000)),
            want_of(4, member, data, destination="out/size", size=2999),
            want_of(5, member, data, destination="out/none", source="raw/none"),
            want_of(6, member, data, destination="out/outside", source="../root/" + BUNDLE),
            want_of(7, member, data, destination="out/good"),
        ]
        results = self.copied(host, wants)
        assert {path.removeprefix("out/"): type(result) for path, result in results.items()} == {
            "beyond": SourceCorrupt,
            "far": SourceCorrupt,
            "before": Refused,
            "size": SourceChanged,
            "none": SourceMissing,
            "outside": Refused,
            "good": Receipt,
        }
        beyond = results["out/beyond"]
        assert isinstance(beyond, SourceCorrupt)
        assert (beyond.facts["needed"], beyond.facts["size"]) == (whole + 1, whole)
        assert [path.name for path in (root / "out").iterdir()] == ["good"]

    def test_places_that_cannot_be_read_hold_up_no_other(self, host: Host, root: Path) -> None:
        member = bundled(root, {"a.fits": crafted.sound()})["a.fits"]
        size = (root / BUNDLE).stat().st_size
        places = {
            "beyond": (member._replace(size=size), SourceCorrupt),
            "before": (member._replace(offset=-5), Refused),
            "less than nothing": (member._replace(size=-5), Refused),
            "missing": (member._replace(path="raw/none"), SourceMissing),
            "outside": (member._replace(path="../root/" + BUNDLE), Refused),
            "good": (member, tuple),
        }
        asked = [place._replace(name=f"{name}.fits") for name, (place, _) in places.items()]
        expected = [kind for _, kind in places.values()]
        for found in (list(host.digest(asked)), list(host.headers(asked))):
            assert [type(one) for one in found] == expected
            errors = [one for one in found if isinstance(one, TransferError)]
            assert [error.path for error in errors] == [place.name for place in asked[:-1]]
            assert [error.facts["lies_in"] for error in errors] == [place.path for place in asked[:-1]]

    def test_source_changed_while_it_is_read_is_not_landed(self, host: Host, root: Path) -> None:
        """No server of S3's own changes an object while it sends it; one that shows a disk may."""
        (root / "a").write_bytes(bytes(self.changed_bytes))
        wants = wants_of(host, "a", "out")

        def touch(_: int) -> None:
            with (root / "a").open("r+b") as file:
                file.write(b"changed")

        assert isinstance(self.copied(host, wants, on_bytes=touch)["out/a"], SourceChanged)
        assert not (root / "out").exists()

    # Names and times.

    def test_odd_names_arrive_as_they_are(self, host: Host, root: Path) -> None:
        """Keys are UTF-8, and the driver takes no control characters in them."""
        (root / "in").mkdir()
        taken = [name for name in ODD_NAMES if name.isprintable()]
        assert len(taken) == len(ODD_NAMES) - 3
        for name in taken:
            (root / "in" / name).write_bytes(os.fsencode(name))
        wants = wants_of(host, "in", "out")
        assert {want.source for want in wants} == {f"in/{name}" for name in taken}
        results = self.copied(host, wants)
        assert all(isinstance(result, Receipt) for result in results.values())
        for name in taken:
            assert (root / "out/in" / name).read_bytes() == os.fsencode(name)
        assert len(files_in(root)) == 2 * len(taken)
        for name in set(ODD_NAMES) - set(taken):
            assert isinstance(only(host.land(frames_of(f"out/{name}", b"x"))), Refused)
            assert isinstance(only(host.find([name])), Refused)
        assert isinstance(only(host.land(frames_of("/".join(["n" * 200] * 5) + "/" + "x" * 18, b"x"))), Refused)

    def test_scan_is_sorted_and_leaves_hidden_names_out(self, host: Host, root: Path) -> None:
        for name in ("b/2", "b/1", "a", "c/d/e", ".hidden", "b/.part", ".h/x", "b.c", "bb/.h/x"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        assert [found.path for found in host.scan("")] == ["a", "b.c", "b/1", "b/2", "c/d/e"]
        assert [found.path for found in host.scan("b")] == ["b/1", "b/2"]
        assert [found.path for found in host.scan(".h")] == [".h/x"]
        (only_one,) = host.scan("b/2")
        assert only_one == FileInfo("b/2", 3, int((root / "b/2").stat().st_mtime) * 10**9)

    @pytest.mark.parametrize("proof", ["reread", "stream", "store"])
    @pytest.mark.parametrize("size", [0, 1, 2880, (1 << 20) + 1, 8 << 20, (8 << 20) + 1, (65 << 20) + 7])
    def test_receipt_says_what_is_there(self, host: Host, root: Path, size: int, proof: str) -> None:
        data = os.urandom(size)
        (root / "a").write_bytes(data)
        os.utime(root / "a", ns=(1, 1_234_567_890_123_456_000))
        seen: list[int] = []
        results = self.copied(host, wants_of(host, "a", "out"), proof=proof, on_bytes=seen.append)
        said = "wire" if proof == "reread" else proof
        # What was put without its time in the metadata has that of its putting, in whole seconds.
        receipt = Receipt(1, "out/a", size, sha256(data), 1_234_567_890 * 10**9, said, False)
        assert results == {"out/a": receipt}
        assert (root / "out/a").read_bytes() == data
        assert (root / "out/a").stat().st_mtime_ns == receipt.mtime_ns
        assert sum(seen) == size
        assert list(host.digest(["out/a"])) == [("out/a", size, sha256(data))]
        assert self.server.hidden() == []

    # What others do by programs, or by folders.

    def test_sweep_removes_dead_parts_and_no_others(self, root: Path) -> None:
        """A landing makes no parts: what is called so is nobody's."""
        host = self.make(root, instance="0000beef")
        host.open(None)
        part = root / "d/.f.fits.1-1.0000beef.part"
        part.parent.mkdir()
        part.write_bytes(b"x")
        assert host.sweep("", lambda item, epoch: True) == []
        assert part.exists()

    def test_gzip_file_is_unpacked_where_it_lies(self, host: Host, root: Path) -> None:
        with pytest.raises(Unsupported):
            host.gunzip(Want(7, 1, "a.gz", ""), 4 << 20)

    @pytest.mark.parametrize("damage", ["short"])
    def test_damaged_gzip_file_leaves_nothing(self, host: Host, root: Path, damage: str) -> None:
        with pytest.raises(Unsupported):
            host.gunzip(Want(7, 1, f"{damage}.gz", ""), 4 << 20)
        assert files_in(root) == {}


# What a store says of itself.


def test_store_says_what_it_is(store: S3Store) -> None:
    assert (store.kind, store.far, store.cuts, store.seeks, store.stages) == ("store", True, False, True, False)
    assert (store.own_digest, store.reread, store.root) == ("md5", "wire", "/root")
    assert store.clock() == Clock(None, store.clock().round_trip_s) or store.clock().offset_s is None
    assert store.space().free == store.space().total == 2**63 - 1
    assert "multipart" in store.about()["uploads"]
    with pytest.raises(Unsupported, match="one stream"):
        list(store.fill([]))
    with pytest.raises(ValueError, match="proof"):
        list(store.land([], "guess"))


def test_objects_are_online_and_lie_in_themselves(store: S3Store, root: Path) -> None:
    (root / "a").write_bytes(b"data")
    here, none = store.residency(["a", "none"])
    assert here == Residency("online")
    assert isinstance(none, SourceMissing)
    assert next(iter(store.stage(["a"]))) is None
    assert list(store.lies_in(["a", "d/b"])) == ["a", "d/b"]


def test_two_prefixes_are_two_roots_on_one_system(server: Rclone, root: Path, make: Callable[..., S3Store]) -> None:
    one, other, whole = (make(server, path) for path in (root, root.parent / "other/deep", root.parent))
    assert len({store.marker for store in (one, other, whole)}) == 3
    assert isinstance(only(other.land(frames_of("a", b"data"))), Receipt)
    assert list(one.find(["a", "other/deep/a"])) == [None, None]
    assert [found.path for found in other.scan("")] == ["a"]
    assert [found.path for found in whole.scan("")] == ["other/deep/a"]
    (through_one,), (through_whole,) = other.identify(["a"]), whole.identify(["other/deep/a"])
    assert isinstance(through_one, Identity)
    assert through_one == through_whole
    assert isinstance(only(one.identify([""])), Identity)
    assert only(one.identify(["a"])) is None


def test_file_keeps_its_time_to_the_nanosecond(store: S3Store, tmp_path: Path) -> None:
    here = LocalHost("here", str(tmp_path))
    here.open(None)
    for name, stamp in (("a", 1_234_567_890_123_456_789), ("b", 5), ("old", -1_500_000_000)):
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, ns=(stamp, stamp))
    results = [result for _, result in copy(here, store, wants_of(here, "", "raw"))]
    stamps = [(found.path, found.mtime_ns) for found in here.scan("") if isinstance(found, FileInfo)]
    kept = [(f"raw/{path}", mtime_ns) for path, mtime_ns in stamps]
    assert sorted((one.path, one.mtime_ns) for one in results if isinstance(one, Receipt)) == kept
    assert [(found.path, found.mtime_ns) for found in store.scan("") if isinstance(found, FileInfo)] == kept
    back = [result for _, result in copy(store, here, wants_of(store, "raw", "back"))]
    assert all(isinstance(one, Receipt) for one in back)
    assert [(tmp_path / "back" / path).stat().st_mtime_ns for path, _ in kept] == [mtime_ns for _, mtime_ns in kept]


def test_more_objects_than_one_page_lists_are_scanned(
    tmp_path: Path, require: Callable[[str], NoReturn], make: Callable[..., S3Store]
) -> None:
    for server in served(tmp_path / "rclone", require, "--dir-cache-time", "5m"):
        root = server.make_bucket("bucket")
        (root / "in").mkdir()
        for number in range(2300):
            (root / f"in/f{number:05}").write_bytes(b"x")
        found = [one.path for one in make(server, root).scan("in")]
        assert found == [f"in/f{number:05}" for number in range(2300)]


def test_plain_import_needs_no_obstore_and_its_want_is_said() -> None:
    code = """
import sys
sys.modules["obstore"] = None
from transfers.s3.store import S3Store
from transfers.errors import Unsupported
try:
    S3Store("mss", "/", "bucket", "http://127.0.0.1:9").open(None)
except Unsupported as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "install stager[s3]" in done.stdout
    loaded = "import sys, stager, transfers.s3.store; print('obstore' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "False\n"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "ftp://x", "http://", "http://a b"])
def test_endpoint_that_is_none_is_not_taken(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        S3Store("mss", "/", "bucket", endpoint)


# Keys, buckets and servers that are not there.


@pytest.mark.parametrize(
    ("wrong", "said"), [({"secret": "x" * 16}, "secret key is not the right"), ({"access_key": "NOBODY"}, "not know")]
)
def test_wrong_key_is_refused_and_told_apart(
    server: Rclone, root: Path, make: Callable[..., S3Store], wrong: dict[str, str], said: str
) -> None:
    store = make(server, root, opened=False, **wrong)
    with pytest.raises(Refused, match=said) as raised:
        store.open(None)
    assert (raised.value.side, raised.value.host) == ("store", "mss")
    assert "x" * 16 not in str(raised.value)
    assert not (root / ".stager").exists()


def test_key_that_lost_its_right_is_refused_in_every_call(
    server: Rclone, root: Path, make: Callable[..., S3Store]
) -> None:
    (root / "a").write_bytes(b"data")
    marker = make(server, root).marker
    store = make(server, root, opened=False, secret="x" * 16)
    store.marker = marker
    for call in (
        lambda: list(store.scan("")),
        lambda: list(store.find(["a"])),
        lambda: list(store.read([Want(1, 1, "a", "b")])),
        lambda: list(store.land(frames_of("b", b"x"))),
        lambda: list(store.digest(["a"])),
        lambda: list(store.remove(["a"])),
        lambda: list(store.move([("a", "b")])),
        store.clock,
        store.space,
    ):
        with pytest.raises(Refused):
            call()
    assert files_in(root) == {"a": b"data"}


def test_bucket_that_is_gone_is_down_and_not_empty(store: S3Store, root: Path) -> None:
    root.parent.rename(root.parent.with_name(f"{root.parent.name}-gone"))
    time.sleep(0.02)  # the server believes what it saw of a folder for a millisecond
    for call in (lambda: list(store.scan("")), lambda: list(store.find(["a"])), store.space):
        with pytest.raises(HostDown, match="bucket no more"):
            call()
    with pytest.raises(HostDown):
        list(store.land(frames_of("a", b"data")))
    assert not root.parent.exists()


def test_server_that_is_not_there_is_down_and_spoken_to_again(own_server: Rclone, make: Callable[..., S3Store]) -> None:
    root = own_server.make_bucket("bucket")
    store = make(own_server, root)
    own_server.kill()
    for call in (lambda: list(store.scan("")), store.clock, lambda: list(store.land(frames_of("a", b"data")))):
        with pytest.raises(HostDown, match="nothing answers"):
            call()
    own_server.restart()
    assert isinstance(only(store.land(frames_of("a", b"data"))), Receipt)


class Nothing(BaseHTTPRequestHandler):
    """A web server that is no S3 store, and has nothing of what it is asked for."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_error(404)

    do_PUT = do_HEAD = do_POST = do_GET

    def log_message(self, *values: object) -> None:
        pass


def test_web_server_that_is_no_store_is_refused_and_no_file_is_missing_for_it(stores: list[S3Store]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        store = S3Store("mss", "/", "lsst", f"http://127.0.0.1:{web.server_port}", "us-east-1", "KEY", "secret")
        stores.append(store)
        with pytest.raises(Refused, match="no S3 store"):
            store.open(None)
        with pytest.raises(HostDown, match="no marker"):
            store.open(str(uuid.uuid4()))
        web.shutdown()


# Landing.


def fed(path: str, data: bytes, item: int, between: dict[int, Callable[[], object]]) -> Iterator[Frame]:
    """The frames of a file, a MiB each; something is done before the one at an offset."""
    begin, _, end = frames_of(path, data, item)
    yield begin
    for at in range(0, len(data), 1 << 20):
        if at in between:
            between[at]()
        yield "data", memoryview(data)[at : at + (1 << 20)]
    yield end


def test_server_killed_in_a_landing_leaves_nothing_and_the_next_try_is_right(
    own_server: Rclone, make: Callable[..., S3Store]
) -> None:
    root = own_server.make_bucket("bucket")
    store = make(own_server, root)
    data = os.urandom(LARGE)
    frames = itertools.chain(frames_of("small", b"small", 1), fed("cut", data, 2, {17 << 20: own_server.kill}))
    results: list[Receipt | TransferError] = []
    try:
        results.extend(store.land(frames))
    except TransferError as error:
        results.append(error)
    assert {type(result) for result in results} - {Receipt} <= {HostDown, Transient}
    assert any(isinstance(result, TransferError) for result in results)
    own_server.restart()
    assert "cut" not in [found.path for found in store.scan("")]
    again = list(store.land([*frames_of("small", b"small", 1, 2), *frames_of("cut", data, 2, 2)]))
    assert [type(one) for one in again] == [Receipt, Receipt]
    assert (root / "cut").read_bytes() == data


def lost(server: Rclone) -> Iterator[Frame]:
    """In the place of a frame, a source whose connection ends while the server waits for more of an upload."""
    until(server.hidden)
    time.sleep(0.2)  # so that what was handed over is taken
    yield from ()
    raise HostDown("the source is lost")


@pytest.mark.parametrize("why", ["fault", "broken off", "stopped", "raised"])
def test_upload_that_ends_early_is_called_off(server: Rclone, store: S3Store, root: Path, why: str) -> None:
    data = os.urandom(LARGE)
    stopping: list[int] = []
    frames = fed("cut", data, 1, {18 << 20: lambda: stopping.append(1)} if why == "stopped" else {})
    if why == "raised":
        raising: Iterator[Frame] = itertools.chain(itertools.islice(frames, 18), lost(server))
        with pytest.raises(HostDown, match="lost"):
            list(store.land(raising))
    else:
        cut = itertools.islice(frames, 21)
        fault = ("fault", Fault("source changed", "it was changed", "a", facts={"host": "abe"}))
        (error,) = store.land(itertools.chain(cut, [fault] if why == "fault" else []), stop=lambda: bool(stopping))
        kinds = {"fault": SourceChanged, "broken off": Transient, "stopped": Transient}
        assert isinstance(error, kinds[why])
        assert error.facts["destination"] == "cut"
        assert error.host == ("abe" if why == "fault" else "mss")
    assert not (root / "cut").exists()
    assert server.hidden() == []


@pytest.mark.parametrize("other", ["same", "other"])
@pytest.mark.parametrize("when", ["before", "while it is sent"])
@pytest.mark.parametrize("size", [1000, LARGE])
def test_name_that_is_taken_is_never_replaced(
    server: Rclone, store: S3Store, root: Path, size: int, when: str, other: str
) -> None:
    data = os.urandom(size)
    there = data if other == "same" else data[:-1] + bytes([data[-1] ^ 1])
    if when == "before":
        (root / "a").write_bytes(there)

    def plant() -> None:
        (root / "a").write_bytes(there)
        time.sleep(0.02)  # the server believes what it saw of a folder for a millisecond

    at = {0 if size == 1000 else 19 << 20: plant}
    (result,) = store.land(fed("a", data, 1, at if when != "before" else {}))
    if other == "same":
        assert isinstance(result, Receipt)
        assert (result.adopted, result.proof, result.digest) == (True, "wire", sha256(data))
    else:
        assert isinstance(result, Conflict)
        assert result.facts["item"] == 1
    assert (root / "a").read_bytes() == there
    assert server.hidden() == []


@pytest.mark.parametrize("size", [5000, LARGE])
@pytest.mark.parametrize("proof", ["reread", "stream", "store"])
def test_what_is_not_what_the_source_sent_is_not_put_there(
    server: Rclone, store: S3Store, root: Path, proof: str, size: int
) -> None:
    bad, good = store.land(
        [*frames_of("bad", os.urandom(size), 1, digest=sha256(b"other")), *frames_of("good", b"x", 2)], proof
    )
    assert isinstance(bad, CorruptedOnTheWay)
    assert isinstance(good, Receipt)
    assert files_in(root) == {"good": b"x"}
    assert server.hidden() == []


@pytest.mark.parametrize("size", [500_000, LARGE])
def test_bytes_that_differ_when_they_are_read_back_are_taken_away(
    server: Rclone, root: Path, make: Callable[..., S3Store], size: int
) -> None:
    """A byte of every answer long enough is another one on its way back."""
    data = os.urandom(size)
    with Proxy(server.port) as proxy:
        store = make(server, root, endpoint=f"http://127.0.0.1:{proxy.port}")
        proxy.cut()
        fault = proxy.flip("down", after=100_000)
        (error,) = store.land(frames_of("a", data))
        assert fault.fired
    assert isinstance(error, CorruptedOnTheWay)
    assert error.facts["found"]["size"] == size
    assert files_in(root) == {}


def test_bytes_that_differ_on_their_way_there_are_not_taken(
    server: Rclone, root: Path, make: Callable[..., S3Store]
) -> None:
    """What is signed is not only the request: the server sees that it got other bytes."""
    with Proxy(server.port) as proxy:
        store = make(server, root, endpoint=f"http://127.0.0.1:{proxy.port}")
        proxy.cut()
        fault = proxy.flip("up", after=100_000)
        (error,) = store.land(frames_of("a", os.urandom(500_000)))
        assert fault.fired
    assert isinstance(error, (Transient, CorruptedOnTheWay, Refused))
    assert files_in(root) == {}


@pytest.mark.parametrize("size", [400_000, LARGE])
@pytest.mark.parametrize("way", ["up", "down"])
def test_connection_that_breaks_once_is_made_again(
    server: Rclone, root: Path, make: Callable[..., S3Store], way: str, size: int
) -> None:
    data = os.urandom(size)
    with Proxy(server.port) as proxy:
        store = make(server, root, endpoint=f"http://127.0.0.1:{proxy.port}")
        proxy.cut()
        fault = proxy.reset(way, after=200_000, times=1)  # type: ignore[arg-type] # one of the two
        (result,) = store.land(frames_of("a", data))
        assert fault.fired == 1
        if isinstance(result, TransferError):  # what was sent once is not always sent again
            assert isinstance(result, Transient)
            (result,) = store.land(frames_of("a", data))
    assert isinstance(result, Receipt)
    assert (root / "a").read_bytes() == data


def test_proof_by_the_store_is_refused_where_its_digest_is_none(
    tmp_path: Path, require: Callable[[str], NoReturn], make: Callable[..., S3Store]
) -> None:
    for server in served(tmp_path / "sha1", require, "--etag-hash", "SHA1"):
        root = server.make_bucket("bucket")
        store = make(server, root)
        (error,) = store.land(frames_of("a", b"data"), "store")
        assert isinstance(error, Unsupported)
        assert "is no MD5" in error.text
        assert files_in(root) == {}
        assert isinstance(only(store.land(frames_of("a", b"data"))), Receipt)


def test_proof_by_the_store_sees_what_it_has_instead(server: Rclone, root: Path, make: Callable[..., S3Store]) -> None:
    """The object is spoiled between its putting and its proof, for which answers take their time."""
    data = os.urandom(5000)
    over, spoiled = threading.Event(), []

    def spoil() -> None:
        while not over.is_set() and not spoiled:
            if (root / "a").exists():
                (root / "a").write_bytes(data[:-1])
                spoiled.append(True)

    with Proxy(server.port) as proxy:
        store = make(server, root, endpoint=f"http://127.0.0.1:{proxy.port}")
        proxy.delay(0.5, "down")
        thread = threading.Thread(target=spoil)
        thread.start()
        (error,) = store.land(frames_of("a", data), "store")
        over.set()
        thread.join()
    assert spoiled
    assert isinstance(error, CorruptedOnTheWay)
    assert files_in(root) == {}


def test_unit_of_which_one_fails_does_not_stay(server: Rclone, store: S3Store, root: Path) -> None:
    (root / "b").write_bytes(TAKEN)
    large = os.urandom(LARGE)
    parts = [frames_of("a", b"one", 1), list(fed("large", large, 1, {})), frames_of("b", b"two", 1)]
    results = list(store.land([("unit", 3), *itertools.chain(*parts)]))
    assert [type(result) for result in results] == [Conflict] * 3
    assert [result.facts["destination"] for result in results if isinstance(result, Conflict)] == ["a", "large", "b"]
    assert files_in(root) == {"b": TAKEN}
    (root / "b").unlink()
    results = list(store.land([("unit", 3), *itertools.chain(*parts)]))
    assert [type(result) for result in results] == [Receipt] * 3
    assert files_in(root) == {"a": b"one", "large": large, "b": b"two"}


def test_object_that_was_set_aside_comes_back_where_its_successor_fails(store: S3Store, root: Path) -> None:
    (root / "a").write_bytes(b"old")
    frames = frames_of("a", b"new", digest=sha256(b"other"))
    frames[0][1]["replace"] = True
    assert isinstance(only(store.land(frames)), CorruptedOnTheWay)
    assert files_in(root) == {"a": b"old"}


def test_carrying_within_the_store_lands_too(store: S3Store, root: Path) -> None:
    (root / "a").write_bytes(b"data")
    assert isinstance(only(store.carry([Want(1, 1, "a", "b/a")])), Receipt)
    assert files_in(root) == {"a": b"data", "b/a": b"data"}


MEASURED = """
import os, sys
from transfers.s3 import changing
from transfers.s3.store import S3Store
from tests.transfers.contract import frames_of
import hashlib
endpoint, key, secret, scratch, size = sys.argv[1:]
store = S3Store("mss", "/", "big", endpoint, None, key, secret, scratch)
store.open(None)
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) << 10
block = os.urandom(1 << 20)
digest = hashlib.sha256()
def frames():
    facts = {"item": 1, "epoch": 1, "path": "a", "replace": False, "size": int(size), "mtime_ns": 1}
    yield "file", facts
    for _ in range(int(size) >> 20):
        digest.update(block)
        yield "data", block
    yield "end", {"size": int(size), "digest": "sha256:" + digest.hexdigest()}
list(store.digest([".stager/marker"]))
before = peak()
(receipt,) = store.land(frames())
assert receipt.size == int(size), receipt
((_, found, _),) = store.digest(["a"])
assert found == int(size)
changing.COPY_MOST = 1
assert list(store.move([("a", "b")])) == ["b"]
print(peak() - before)
"""


def test_memory_is_flat_however_large_the_file(server: Rclone, tmp_path: Path) -> None:
    (server.served / "big").mkdir(exist_ok=True)
    size = int(os.environ.get("STAGER_TEST_S3_BYTES", "201326592"))
    command = [sys.executable, "-c", MEASURED, server.endpoint, server.key, server.secret, str(tmp_path), str(size)]
    grown = int(subprocess.check_output(command, text=True))
    print(f"{grown >> 20} MiB more for {size >> 20} MiB")
    (server.served / "big/b").unlink()
    assert grown < 120 << 20


# Reading.


def test_member_of_a_large_object_is_read_without_the_rest(
    server: Rclone, root: Path, make: Callable[..., S3Store]
) -> None:
    data = os.urandom(200_000)
    (root / "raw").mkdir()
    with (root / "raw/bundle").open("wb") as file:
        file.seek(40 << 20)
        file.write(data)
        file.truncate(64 << 20)
    member = Member("raw/bundle", 40 << 20, len(data), "a")
    with Proxy(server.port) as proxy:
        store = make(server, root, endpoint=f"http://127.0.0.1:{proxy.port}")
        assert list(store.digest([member])) == [("a", len(data), sha256(data))]
        want = Want(1, 1, "raw/bundle", "out", len(data), 0, sha256(data), stretch=(40 << 20, len(data)))
        frames = list(store.read([want]))
        assert b"".join(body for name, body in frames if name == "data") == data
        assert frames[-1] == ("end", {"size": len(data), "digest": sha256(data)})
        assert proxy.down < 1 << 20


def test_headers_are_read_without_the_pixels(server: Rclone, root: Path, make: Callable[..., S3Store]) -> None:
    (root / "a.fits").write_bytes(crafted.primary(axes=(40_000_000,)) + bytes(-(-40_000_000 // 2880) * 2880))
    with Proxy(server.port) as proxy:
        store = make(server, root, endpoint=f"http://127.0.0.1:{proxy.port}")
        (found,) = store.headers(["a.fits"])
        assert not isinstance(found, TransferError), found
        assert found[0].data_size == 40_000_000
        assert proxy.down < 1 << 20


@pytest.mark.parametrize("change", ["bytes", "shorter", "gone"])
def test_object_changed_behind_our_back_is_not_what_it_was(store: S3Store, root: Path, change: str) -> None:
    data = os.urandom(9000)
    (receipt,) = store.land(frames_of("a", data))
    assert isinstance(receipt, Receipt)
    want = Want(1, 1, "a", "b", receipt.size, receipt.mtime_ns, receipt.digest)
    assert list(store.read([want]))[-1] == ("end", {"size": 9000, "digest": sha256(data)})
    if change == "gone":
        (root / "a").unlink()
    else:
        (root / "a").write_bytes(data[:-1] if change == "shorter" else data[:-1] + bytes([data[-1] ^ 1]))
    kinds = {"bytes": {"source corrupt", "source changed"}, "shorter": {"source changed"}, "gone": {"source missing"}}
    name, fault = list(store.read([want]))[-1]
    assert name == "fault"
    assert fault.kind in kinds[change]
    digest = only(store.digest(["a"]))
    assert digest != ("a", 9000, receipt.digest)


def test_focal_plane_is_cut_from_one_copy_that_is_fetched(server: Rclone, store: S3Store, root: Path) -> None:
    wants = HostContract().unit(root)
    frames = [name for name, _ in store.read(wants)]
    assert frames[0] == "unit"
    assert frames.count("end") == 5
    scratch = server.folder / "scratch"
    assert len([path for path in scratch.rglob("*") if path.is_file() and path.name != "lock"]) >= 1
    store.close()
    assert not [path for path in scratch.rglob("*") if path.is_file()]


# Moving.


def test_move_keeps_bytes_and_time(store: S3Store, root: Path) -> None:
    data = os.urandom(LARGE)
    assert isinstance(only(store.land(list(fed("d/a", data, 1, {})))), Receipt)
    (before,) = store.find(["d/a"])
    assert isinstance(before, FileInfo)
    aside = ".stager/quarantine/evicted-5/d/a"
    assert list(store.move([("d/a", aside)])) == [aside]
    assert [found.path for found in store.scan("")] == []
    assert list(store.move([(aside, "new/b")])) == ["new/b"]
    assert list(store.find(["new/b", "d/a", aside])) == [before._replace(path="new/b"), None, None]
    assert files_in(root) == {"new/b": data}


@pytest.mark.parametrize("there", [b"other", b"data"])
def test_move_never_replaces(store: S3Store, root: Path, there: bytes) -> None:
    (root / "a").write_bytes(b"data")
    (root / "b").write_bytes(there)
    taken, itself, missing, marker, into, outside = store.move(
        [("a", "b"), ("a", "a"), ("none", "c"), (".stager/marker", "c"), ("a", ".stager/marker"), ("a", "../c")]
    )
    assert isinstance(taken, Conflict)
    assert (taken.path, taken.facts["from"], taken.facts["to"]) == ("b", "a", "b")
    assert isinstance(itself, Conflict)
    assert isinstance(missing, SourceMissing)
    assert (missing.path, missing.facts["from"]) == ("none", "none")
    assert [type(one) for one in (marker, into, outside)] == [Refused] * 3
    assert files_in(root) == {"a": b"data", "b": there}


@pytest.fixture
def uncopied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store copies no object that is put in parts."""
    monkeypatch.setattr(changing, "COPY_MOST", 1 << 20)


def shelf_of(server: Rclone, root: Path, endpoint: str = "") -> Shelf:
    bucket, prefix = root.relative_to(server.served).parts
    return Shelf(Bucket(bucket, endpoint or server.endpoint, "us-east-1", server.key, server.secret), prefix + "/")


def test_object_that_the_store_does_not_copy_is_moved_with_all_that_is_kept_of_it(
    server: Rclone, store: S3Store, root: Path, uncopied: None
) -> None:
    data = os.urandom(LARGE)
    bucket = shelf_of(server, root).bucket
    kept = {"mtime": "1277078400.123456789", "Content-Type": "application/fits", "survey": "CFHTLS"}
    bucket.upload("root/d/a", [data], 8 << 20, kept)
    (before,) = store.find(["d/a"])
    assert isinstance(before, FileInfo)
    assert before.mtime_ns == 1277078400123456789
    aside = ".stager/quarantine/evicted-5/d/a"
    assert list(store.move([("d/a", aside)])) == [aside]
    assert bucket.kept(f"root/{aside}") == kept
    assert list(store.move([(aside, "new/b")])) == ["new/b"]
    assert list(store.find(["new/b", "d/a", aside])) == [before._replace(path="new/b"), None, None]
    assert files_in(root) == {"new/b": data}
    (root / "a").write_bytes(data)
    (taken,) = store.move([("a", "new/b")])
    assert isinstance(taken, Conflict)
    assert files_in(root) == {"new/b": data, "a": data}


@pytest.mark.parametrize("what", ["name", "source", "source later", "source gone", "stop", "stop later"])
def test_what_happens_while_an_object_is_moved_loses_nothing(
    server: Rclone, root: Path, uncopied: None, what: str
) -> None:
    """While it is read, or later, while its copy is read back."""
    data = os.urandom(LARGE)
    (root / "a").write_bytes(data)
    looks = itertools.count(1)

    def meanwhile() -> bool:
        if (root / "b").exists() if what in {"source later", "source gone", "stop later"} else next(looks) == 3:
            if what == "name":
                (root / "b").write_bytes(TAKEN)
            elif what == "source gone":
                (root / "a").unlink(missing_ok=True)
            elif what.startswith("source"):
                (root / "a").write_bytes(TAKEN)
            time.sleep(0.02)  # the server believes what it saw of a folder for a millisecond
            return what.startswith("stop")
        return False

    found = changing.moved(shelf_of(server, root), "a", "b", meanwhile)
    assert server.hidden() == []
    if what == "source gone":
        assert (found, files_in(root)) == ("b", {"b": data})
        return
    assert isinstance(found, Fault)
    kinds = {"name": {"conflict"}, "source": {"source changed", "transient"}, "stop": {"transient"}}
    assert found.kind in kinds[what.removesuffix(" later")]
    of_name = {"a": data, "b": TAKEN}
    assert files_in(root) == (of_name if what == "name" else {"a": TAKEN if what.startswith("source") else data})


def test_copy_that_differs_when_it_is_read_back_is_taken_away(server: Rclone, root: Path, uncopied: None) -> None:
    data = os.urandom(LARGE)
    (root / "a").write_bytes(data)
    faults = []
    with Proxy(server.port) as proxy:
        proxy.limit(20_000_000, "down")  # so that some of it is still to come when its begin is there

        def meanwhile() -> bool:
            if not faults and (root / "b").exists():
                faults.append(proxy.flip("down", after=0, times=1))
            return False

        found = changing.moved(shelf_of(server, root, f"http://127.0.0.1:{proxy.port}"), "a", "b", meanwhile)
    assert [fault.fired for fault in faults] == [1]
    assert isinstance(found, Fault)
    assert found.kind == "corrupted on the way"
    assert files_in(root) == {"a": data}


@pytest.mark.parametrize("fails", [False, True])
def test_object_that_the_store_does_not_copy_is_replaced(
    store: S3Store, root: Path, uncopied: None, fails: bool
) -> None:
    old, new = os.urandom(LARGE), os.urandom(LARGE)
    (root / "a").write_bytes(old)
    frames = frames_of("a", new, digest=sha256(b"other") if fails else "")
    frames[0][1]["replace"] = True
    assert isinstance(only(store.land(frames)), CorruptedOnTheWay if fails else Receipt)
    assert (root / "a").read_bytes() == (old if fails else new)
    assert [path.read_bytes() for path in (root / ".stager/quarantine").rglob("a")] == ([] if fails else [old])


def test_own_digest_is_that_of_the_bytes(store: S3Store, root: Path) -> None:
    data = os.urandom(9000)
    assert isinstance(only(store.land(frames_of("a", data))), Receipt)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert list(store.digest(["a"], "md5")) == [("a", 9000, f"md5:{md5}")]
