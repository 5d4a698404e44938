"""A store with bundles keeps the contract; members are files like any other, but that they cannot be changed."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from astropy.io import fits

from tests.sshd import Sshd
from tests.transfers.bundles import crafted
from tests.transfers.contract import DiskContract, files_in, frames_of, sha256
from transfers.bundles.index import Index
from transfers.bundles.reading import read_index, recovered, verify
from transfers.bundles.store import BundledStore, Placed
from transfers.copying import copy
from transfers.errors import (
    Conflict,
    HostDown,
    Refused,
    SourceChanged,
    SourceCorrupt,
    SourceMissing,
    TransferError,
    Unsupported,
)
from transfers.hosts import Cut, FileInfo, Frame, Host, Lost, Member, Opened, Piece, Receipt, Skipped, Want, only
from transfers.ssh.host import SshHost
from transfers.ssh.openssh import OpenSSHClient
from transfers.store import DirectoryStore
from transfers.streams import Streams

MIB = 1 << 20


class TestStoreWithoutBundles(DiskContract):
    def make(self, root: Path, **options: object) -> Host:
        store = DirectoryStore("mss", str(root), **options)  # type: ignore[arg-type] # options differ by test
        return BundledStore(store, crafted.Shelf())


IMAGE = fits.PrimaryHDU().header.tostring().encode()
FILES = {
    "D1/raw/v1/c00.fits": IMAGE,
    "D1/raw/v1/c01.fits.gz": gzip.compress(IMAGE),
    "D1/raw/v1/empty": b"",
    "D1/raw/v2/large.dat": os.urandom(3 * MIB + 7),
    "D1/raw/v1/ü\n.dat": b"odd" * 30_000,
}
PLAIN = {"D1/raw/v1/c02.fits": b"a file of its own", "D1/zz": b"another"}


class Site:
    """A store with FILES in a bundle and PLAIN beside it, and a host to restore to."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "mss"
        self.physical = crafted.store(self.root)
        self.shelf = crafted.Shelf()
        self.store = BundledStore(self.physical, self.shelf)
        self.index = self.add(folder / "source", FILES)
        crafted.write(self.root, PLAIN)
        self.target = folder / "target"
        self.host = crafted.local(self.target)

    def add(self, folder: Path, files: dict[str, bytes], label: str = "visit=1") -> Index:
        source = crafted.local(folder)
        crafted.write(folder, files)
        self.bundle, index = crafted.packed(source, self.physical, "D1/bundles", label)
        self.shelf.add(self.bundle, index)
        return index

    def member(self, path: str) -> Placed:
        return self.shelf.members[path]

    def wants(self, *paths: str, **more: object) -> list[Want]:
        found = list(self.store.find(paths))
        infos = [one for one in found if isinstance(one, FileInfo)]
        assert len(infos) == len(paths), found
        return [
            Want(number, 1, one.path, one.path, one.size, one.mtime_ns)._replace(**more)  # type: ignore[arg-type] # fields differ by test
            for number, one in enumerate(infos, 1)
        ]

    def restored(self, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        results = list(copy(self.store, self.host, wants, **options))  # type: ignore[arg-type] # options differ by test
        assert len(results) == len(wants)
        return {want.destination: result for want, result in results}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def error_of(result: object, kind: type[TransferError]) -> TransferError:
    assert type(result) is kind, result
    assert isinstance(result, kind)
    return result


# Looking.


def test_members_are_found_and_scanned_under_their_own_paths(site: Site) -> None:
    times = {one.path: one.mtime_ns for one in site.index.entries}
    times |= {path: (site.root / path).stat().st_mtime_ns for path in PLAIN}
    everything = {path: FileInfo(path, len(data), times[path]) for path, data in {**FILES, **PLAIN}.items()}
    asked = [*everything, "D1/none", "D1/raw", site.bundle]
    *found, none, folder, bundle = site.store.find(asked)
    assert found == list(everything.values())
    assert none is None
    assert folder is None or isinstance(folder, Refused)
    assert bundle == only(site.physical.find([site.bundle]))
    assert list(site.store.scan("")) == [everything[path] for path in sorted(everything)]
    assert [one.path for one in site.store.scan("D1/raw/v1")] == sorted(p for p in everything if "/v1/" in p)
    assert list(site.store.scan("D1/raw/v2/large.dat")) == [everything["D1/raw/v2/large.dat"]]
    assert list(site.store.scan("D1/raw/v")) == []


def test_members_are_looked_up_in_lots(site: Site) -> None:
    paths = [f"D1/x{number}" for number in range(1200)] + list(FILES)
    assert sum(found is not None for found in site.store.find(iter(paths))) == len(FILES)
    assert list(site.store.lies_in(paths))[-1] == site.bundle
    assert max(site.shelf.asked) <= 500
    assert len(site.shelf.asked) == 6


def test_a_listing_of_many_members_is_not_held_in_memory(site: Site) -> None:
    """As a catalog of a database gives them: made as they are asked for, and asked for some way ahead at most."""
    made = itertools.count()
    member = site.member("D1/raw/v1/empty")

    class Many(crafted.Shelf):
        def below(self, prefix: str) -> Iterator[Placed]:
            for number in range(100_000):
                next(made)
                yield member._replace(path=f"D1/many/f{number:06}")

    many = Many()
    many.known = site.shelf.known
    scanned = BundledStore(site.physical, many).scan("D1/many")
    first = [found.path for found, _ in zip(scanned, range(1000), strict=False)]
    assert first[999] == "D1/many/f000999"
    assert next(made) < 3000


def test_bundle_that_is_not_known_is_said(site: Site, tmp_path: Path) -> None:
    site.shelf.known.clear()
    site.shelf.members.clear()
    skipped = [found for found in site.store.scan("") if isinstance(found, Skipped)]
    assert [found.path for found in skipped] == [site.bundle, f"{site.bundle}.index"]
    assert all("registry rebuild mss" in found.why for found in skipped)


def test_member_whose_bundle_is_gone_is_gone(site: Site) -> None:
    (site.root / site.bundle).unlink()
    assert list(site.store.find(FILES)) == [None] * len(FILES)
    found = list(site.store.scan(""))
    assert {one.path for one in found if isinstance(one, FileInfo)} == set(PLAIN)
    lost = {one.path: one for one in found if isinstance(one, Lost)}
    assert set(lost) == set(FILES)
    assert all(one.why == f"its bundle {site.bundle} is not on the store" for one in lost.values())
    assert lost["D1/raw/v1/empty"].mtime_ns == site.member("D1/raw/v1/empty").mtime_ns
    results = site.restored([Want(1, 1, "D1/raw/v1/empty", "out", 0)])
    assert isinstance(results["out"], SourceMissing)


def test_member_beyond_the_end_of_its_bundle_is_corrupt(site: Site) -> None:
    os.truncate(site.root / site.bundle, site.member("D1/raw/v2/large.dat").offset or 0)
    found = dict(zip(FILES, site.store.find(FILES), strict=True))
    assert isinstance(found["D1/raw/v1/c00.fits"], FileInfo)
    error = error_of(found["D1/raw/v2/large.dat"], SourceCorrupt)
    assert (error.facts["code"], error.facts["lies_in"], error.side) == ("bundle-truncated", site.bundle, "store")
    lost = {one.path: one for one in site.store.scan("D1/raw") if isinstance(one, Lost)}
    member = site.member("D1/raw/v2/large.dat")
    assert lost[member.path] == Lost(member.path, member.size, member.mtime_ns, error.text)
    assert "D1/raw/v1/c00.fits" not in lost


def test_store_that_is_not_mounted_is_down_and_not_full_of_members(site: Site) -> None:
    (site.root / ".stager/marker").unlink()
    for act in (
        lambda: list(site.store.find(FILES)),
        lambda: list(site.store.scan("D1/raw/v1")),
        lambda: list(site.store.read([Want(1, 1, "D1/raw/v1/empty", "x")])),
        lambda: list(site.store.digest(FILES)),
    ):
        with pytest.raises(HostDown):
            act()


def test_file_that_has_the_path_of_a_member_is_said(site: Site) -> None:
    (site.root / "D1/raw/v1").mkdir(parents=True, exist_ok=True)
    (site.root / "D1/raw/v1/empty").write_bytes(b"stray")
    found = [one for one in site.store.scan("D1/raw/v1") if one.path.endswith("empty")]
    assert {type(one) for one in found} == {FileInfo, Skipped}
    assert only(site.store.find(["D1/raw/v1/empty"])) == FileInfo(
        "D1/raw/v1/empty", 0, site.member("D1/raw/v1/empty").mtime_ns
    )


def test_members_lie_in_their_bundle(site: Site) -> None:
    paths = ["D1/zz", *FILES, "D1/none", site.bundle]
    assert list(site.store.lies_in(paths)) == ["D1/zz", *[site.bundle] * len(FILES), "D1/none", site.bundle]
    *found, bundle = site.store.identify([*FILES, site.bundle])
    assert found == [bundle] * len(FILES)
    assert bundle is not None


# Reading.


def test_members_are_restored_like_any_other_file(site: Site) -> None:
    wants = site.wants(*FILES, *PLAIN)
    results = site.restored(wants, streams=2)
    assert all(isinstance(result, Receipt) for result in results.values()), results
    assert files_in(site.target) == {**FILES, **PLAIN}
    for entry in site.index.entries:
        assert (site.target / entry.path).stat().st_mtime_ns == entry.mtime_ns
    again = site.restored(wants)
    assert all(isinstance(result, Receipt) and result.adopted for result in again.values())


def test_restoring_one_member_reads_little_more_than_it(site: Site, tmp_path: Path) -> None:
    files = {f"many/f{number:02}": bytes([number]) * MIB for number in range(60)}
    site.add(tmp_path / "many", files, "many")
    (want,) = site.wants("many/f31")
    before = crafted.bytes_read()
    (result,) = site.restored([want]).values()
    read = crafted.bytes_read() - before
    assert isinstance(result, Receipt)
    assert (site.target / "many/f31").read_bytes() == files["many/f31"]
    assert 2 * MIB <= read < 3 * MIB  # once from the bundle, once as the proof of what landed


def test_large_member_is_cut_over_several_streams(site: Site, tmp_path: Path) -> None:
    data = os.urandom(41 * MIB + 3)
    site.add(tmp_path / "large", {"large/a.fits": data}, "large")
    results = site.restored(site.wants("large/a.fits"), streams=Streams(3, 3))
    assert isinstance(results["large/a.fits"], Receipt), results
    assert (site.target / "large/a.fits").read_bytes() == data
    assert (site.target / "large/a.fits").stat().st_mtime_ns == site.member("large/a.fits").mtime_ns


def test_block_of_a_member_is_read_and_none_beyond_it(site: Site) -> None:
    path = "D1/raw/v2/large.dat"
    size, mtime_ns = site.member(path).size, site.member(path).mtime_ns
    want = Want(1, 0, path, "x", size, mtime_ns, stretch=(MIB, 10))
    (_, facts), (_, data), (_, end) = site.store.read([want])
    assert (facts["size"], facts["mtime_ns"]) == (10, mtime_ns)
    assert (site.root / site.bundle).stat().st_mtime_ns != mtime_ns
    assert bytes(data) == FILES[path][MIB : MIB + 10]
    assert end == {"size": 10, "digest": ""}
    for stretch in ((size - 5, 6), (-1, 5), (0, size + 1)):
        _, (name, fault) = site.store.read([want._replace(stretch=stretch)])
        assert (name, fault.kind) == ("fault", "source changed")


def test_want_that_expects_another_file_is_told_in_its_turn(site: Site) -> None:
    paths = list(FILES)
    good = site.wants(*paths, "D1/zz")
    wants = [
        good[0]._replace(size=5),
        good[1],
        good[2]._replace(mtime_ns=1),
        good[3]._replace(digest=sha256(b"other")),
        good[4]._replace(digest=sha256(FILES[paths[4]]).upper().replace("SHA256:", "sha256:")),
        good[5],
        good[0]._replace(item=7, digest="md5:" + hashlib.md5(b"other", usedforsecurity=False).hexdigest()),
        good[0]._replace(item=8, digest="md5:" + hashlib.md5(FILES[paths[0]], usedforsecurity=False).hexdigest()),
        good[1]._replace(item=9, size=1),
    ]
    frames = [(name, body) for name, body in site.store.read(wants) if name != "data"]
    assert [body["item"] for name, body in frames if name == "file"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    ends = [body.kind if name == "fault" else "end" for name, body in frames if name != "file"]
    assert ends == [
        "source changed",
        "end",
        "source changed",
        "source corrupt",
        "end",
        "end",
        "source corrupt",
        "end",
        "source changed",
    ]
    faults = [body for name, body in frames if name == "fault"]
    assert [fault.path for fault in faults] == [paths[0], paths[2], paths[3], paths[0], paths[1]]
    assert all(fault.facts["lies_in"] == site.bundle for fault in faults)
    assert faults[0].facts["size"] == len(FILES[paths[0]])


def test_rotten_member_is_not_restored(site: Site) -> None:
    path = "D1/raw/v2/large.dat"
    with (site.root / site.bundle).open("r+b") as file:
        file.seek((site.member(path).offset or 0) + MIB)
        file.write(b"\0rot\0")
    results = site.restored(site.wants(*FILES))
    error = error_of(results[path], SourceCorrupt)
    assert (error.path, error.facts["lies_in"], error.host) == (path, site.bundle, "mss")
    assert sum(isinstance(result, Receipt) for result in results.values()) == len(FILES) - 1
    assert not (site.target / path).exists()


def test_list_s_own_digest_does_not_let_another_file_through(site: Site) -> None:
    """The bundle was made again of other bytes, and a list that came later agrees with those: the database does not."""
    path = "D1/raw/v1/c00.fits"
    site.shelf.members[path] = site.member(path)._replace(digest=sha256(b"what was proven"))
    listed = "md5:" + hashlib.md5(FILES[path], usedforsecurity=False).hexdigest()
    (result,) = site.restored(site.wants(path, digest=listed)).values()
    error = error_of(result, SourceCorrupt)
    assert error.facts["expected"] == sha256(b"what was proven")


def test_member_of_a_member_is_unsupported(site: Site) -> None:
    want = Want(1, 1, "D1/raw/v2/large.dat", "x", 5, 1, sha256(b""), stretch=(0, 5))
    _, (name, fault) = site.store.read([want])
    assert (name, fault.kind) == ("fault", "unsupported")


def test_digests_and_headers_are_those_of_members(site: Site) -> None:
    paths = [*FILES, "D1/zz"]
    expected = [(path, len(data), sha256(data)) for path, data in {**FILES, "D1/zz": PLAIN["D1/zz"]}.items()]
    assert list(site.store.digest(paths)) == expected
    entry = site.index.entries[0]
    place = Member(site.bundle, entry.offset, entry.size, "whatever")
    assert list(site.store.digest([place], reread=True)) == [("whatever", entry.size, entry.digest)]
    plain, packed, text, missing = site.store.headers(
        ["D1/raw/v1/c00.fits", "D1/raw/v1/c01.fits.gz", "D1/raw/v2/large.dat", "D1/none"]
    )
    assert not isinstance(plain, TransferError)
    assert not isinstance(packed, TransferError)
    assert plain[0].header == packed[0].header
    assert packed[0].packed
    assert error_of(text, SourceCorrupt).path == "D1/raw/v2/large.dat"
    assert isinstance(missing, SourceMissing)


def test_pieces_are_cut_from_a_member(site: Site) -> None:
    path = "D1/raw/v2/large.dat"
    data = FILES[path]
    pieces = [Piece(b"END".ljust(2880), (Cut(start, 10, 100, 5),), 2830) for start in (0, 50)]
    wants = [Want(1, 1, path, f"out/{n}", len(data), piece=piece) for n, piece in enumerate(pieces)]
    results = site.restored(wants)
    assert all(isinstance(result, Receipt) for result in results.values()), results
    cut = b"".join(data[50 + 100 * row :][:10] for row in range(5))
    assert (site.target / "out/1").read_bytes()[2880:2930] == cut
    beyond = pieces[0]._replace(cuts=(Cut(len(data) - 5, 10, 10, 1),))
    bad = [wants[0]._replace(epoch=2), wants[1]._replace(epoch=2, destination="out/2", piece=beyond)]
    assert {type(result) for result in site.restored(bad).values()} == {SourceCorrupt}
    other = [want._replace(epoch=3, destination=f"other/{n}", size=1) for n, want in enumerate(wants)]
    assert {type(result) for result in site.restored(other).values()} == {SourceChanged}
    assert not [path for path in files_in(site.target) if path.startswith("other/")]


def test_gzipped_member_is_unpacked(site: Site) -> None:
    path = "D1/raw/v1/c01.fits.gz"
    unpacked = site.store.gunzip(Want(1, 1, path, "", len(FILES[path])), 1 << 20)
    assert (site.root / unpacked).read_bytes() == FILES["D1/raw/v1/c00.fits"]
    with pytest.raises(SourceChanged):
        site.store.gunzip(Want(1, 1, path, "", 1), 1 << 20)


def test_many_wants_are_read_in_their_order(site: Site, tmp_path: Path) -> None:
    files = {f"many/f{number:03}": b"%d" % number for number in range(300)}
    site.add(tmp_path / "many", files, "many")
    wants = site.wants(*reversed(files), "D1/zz")
    site.shelf.asked.clear()
    ends = [body["digest"] for name, body in site.store.read(iter(wants)) if name == "end"]
    assert ends == [sha256(data) for data in [*reversed(files.values()), PLAIN["D1/zz"]]]
    assert len(site.shelf.asked) == 5


# Changing.


def test_member_cannot_be_removed_or_moved(site: Site) -> None:
    path = "D1/raw/v1/empty"
    kept, gone, nothing = site.store.remove([path, "D1/zz", "D1/none"])
    assert site.bundle in error_of(kept, Unsupported).text
    assert (gone, nothing) == ("D1/zz", "D1/none")
    away, onto, moved = site.store.move(
        [(path, "D1/new"), ("D1/raw/v1/c02.fits", path), ("D1/raw/v1/c02.fits", "D1/c02.fits")]
    )
    error_of(away, Unsupported)
    error_of(onto, Conflict)
    assert moved == "D1/c02.fits"
    assert list(site.store.digest(FILES)) == [(name, len(data), sha256(data)) for name, data in FILES.items()]


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_is_landed_where_a_member_is(site: Site, replace: bool) -> None:
    path = "D1/raw/v1/empty"
    frames = [*frames_of("D1/before", b"x", 1), *frames_of(path, b"other", 2), *frames_of("D1/after", b"y", 3)]
    frames[3][1]["replace"] = replace
    before, taken, after = site.store.land(frames)
    assert isinstance(before, Receipt)
    assert isinstance(after, Receipt)
    assert error_of(taken, Conflict).facts["item"] == 2
    assert set(files_in(site.root)) == {*PLAIN, site.bundle, f"{site.bundle}.index", "D1/before", "D1/after"}


def test_a_file_comes_anew_where_a_member_was_whose_bundle_is_gone(site: Site) -> None:
    (site.root / site.bundle).rename(site.root / "away")
    path, other = "D1/raw/v1/empty", "D1/raw/v1/c00.fits"
    first, filled = (one for one in site.store.land(frames_of(path, b"new", 1) + _filled(other)) if not _opened(one))
    assert isinstance(first, Receipt)
    assert isinstance(filled, Receipt)
    assert (site.root / path).read_bytes() == b"new"
    # Found by the next try, as after a crash, it is a file of its own all the same, and not the member it was.
    again = only(site.store.land(frames_of(path, b"new", 2)))
    assert isinstance(again, Receipt)
    assert not again.adopted
    (site.root / "away").rename(site.root / site.bundle)
    error_of(only(site.store.land(frames_of("D1/raw/v2/large.dat", b"new", 3))), Conflict)


def _filled(path: str) -> list[Frame]:
    """The frames of an empty file that is filled from elsewhere."""
    facts = {"item": 9, "epoch": 1, "path": path, "replace": False, "size": 0, "mtime_ns": 1}
    return [("open", facts), ("close", {"item": 9, "size": 0, "digest": sha256(b"")})]


def _opened(result: object) -> bool:
    return isinstance(result, Opened)


def test_nothing_is_filled_where_a_member_is(site: Site) -> None:
    facts = {"item": 1, "epoch": 1, "path": "D1/raw/v1/empty", "replace": False, "size": 5, "mtime_ns": 1}
    frames = [
        ("open", facts),
        ("wrote", {"item": 1, "upto": 5}),
        ("close", {"item": 1, "size": 5, "digest": sha256(b"")}),
        ("open", {**facts, "item": 2, "path": "D1/free"}),
        ("close", {"item": 2, "size": 0, "digest": sha256(b"")}),
    ]
    results = [result for result in site.store.land(frames) if not isinstance(result, Opened)]
    error_of(results[0], Conflict)
    assert isinstance(results[1], Receipt)
    assert len(results) == 2


def test_member_that_is_there_already_is_adopted(site: Site, tmp_path: Path) -> None:
    """The archive is run again, and what was packed is there."""
    source = crafted.local(tmp_path / "source")
    _, wants = crafted.planned(source)
    results = list(copy(source, site.store, wants))
    assert all(isinstance(result, Receipt) and result.adopted for _, result in results)
    other = tmp_path / "source" / "D1/raw/v1/empty"
    other.write_bytes(b"no longer")
    ((_, error),) = copy(source, site.store, [Want(1, 2, "D1/raw/v1/empty", "D1/raw/v1/empty")])
    error_of(error, Conflict)


def test_member_is_carried_to_another_place_of_its_store(site: Site) -> None:
    good, taken, gone, plain = site.wants("D1/raw/v2/large.dat", "D1/raw/v1/empty", "D1/raw/v1/c00.fits", "D1/zz")
    wants = [
        good._replace(destination="copies/large.dat"),
        taken._replace(destination="D1/raw/v1/c00.fits"),
        gone._replace(destination="copies/c00.fits", size=1),
        plain._replace(destination="copies/zz"),
    ]
    results = {}
    for result in site.store.carry(wants):
        key = result.path if isinstance(result, Receipt) else result.facts["destination"]
        results[key] = result
    assert isinstance(results["copies/large.dat"], Receipt)
    assert isinstance(results["copies/zz"], Receipt)
    error_of(results["D1/raw/v1/c00.fits"], Conflict)
    error_of(results["copies/c00.fits"], SourceChanged)
    assert (site.root / "copies/large.dat").read_bytes() == FILES["D1/raw/v2/large.dat"]
    assert len(results) == 4


# Far.


def test_bundles_of_a_store_over_ssh(site: Site, sshd: Sshd, tmp_path: Path) -> None:
    """Packed onto it, and restored from it; members that rot, or were planned otherwise, are told there too."""
    far = SshHost("mss", str(site.root), OpenSSHClient("mss", sshd.login()), kind="store")
    far.open(None)
    try:
        source = crafted.local(tmp_path / "more")
        files = {f"more/f{number:02}": os.urandom(70_000) for number in range(30)}
        crafted.write(tmp_path / "more", files)
        path, index = crafted.packed(source, far, label="more")
        site.shelf.add(path, index)
        assert read_index(far, path) == index
        assert recovered(far, path).origin == "last member"
        assert list(verify(far, path, index, deep=True)) == []
        with (site.root / path).open("r+b") as file:
            file.seek(index.entries[7].offset)
            file.write(bytes(100))
        site.store = BundledStore(far, site.shelf)
        wants = site.wants(*FILES, *files)
        wants[3] = wants[3]._replace(size=1)
        results = site.restored(wants, streams=2)
        bad = {name: result for name, result in results.items() if isinstance(result, TransferError)}
        assert {name: type(error) for name, error in bad.items()} == {
            wants[3].source: SourceChanged,
            "more/f07": SourceCorrupt,
        }
        assert {error.host for error in bad.values()} == {"mss"}
        expected = {name: data for name, data in {**FILES, **files}.items() if name not in bad}
        assert files_in(site.target) == expected
        (problem,) = verify(far, path, index, deep=True)
        assert problem.facts["member"] == "more/f07"
    finally:
        far.close()
