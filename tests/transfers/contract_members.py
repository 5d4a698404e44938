"""What every host promises of members, the files that are stretches of others: a part of the contract of hosts."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tests.transfers import crafted
from transfers.errors import (
    Conflict,
    Refused,
    SourceChanged,
    SourceCorrupt,
    SourceMissing,
    TransferError,
    Unsupported,
)
from transfers.hosts import Cut, Host, Limits, Member, Piece, Receipt, Want

BUNDLE = "raw/some.stager.tar"
TIME = 1_234_567_890 * 10**9  # whole seconds, as SFTP tells no others
BEFORE = 1537  # bytes in front of the first member: no block of anything


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def bundled(root: Path, files: dict[str, bytes]) -> dict[str, Member]:
    """Files in one larger file, other bytes before, between and behind them; where each lies."""
    data, found = os.urandom(BEFORE), {}
    for name, content in files.items():
        found[name] = Member(BUNDLE, len(data), len(content), name)
        data += content + b"\xa5" * 7
    (root / BUNDLE).parent.mkdir(exist_ok=True)
    (root / BUNDLE).write_bytes(data)
    return found


def want_of(item: int, member: Member, data: bytes, **more: object) -> Want:
    stretch = (member.offset, member.size)
    want = Want(item, 1, member.path, f"out/{member.name}", member.size, TIME, sha256(data), stretch=stretch)
    return want._replace(**more)  # type: ignore[arg-type] # fields differ by test


def damage(root: Path, member: Member) -> None:
    """Another byte in the middle of a member."""
    data = bytearray((root / member.path).read_bytes())
    data[member.offset + member.size // 2] ^= 1
    (root / member.path).write_bytes(data)


class MemberContract:
    """Of every host."""

    copied: Callable[..., dict[str, Receipt | TransferError]]  # of the contract that this is a part of

    @pytest.mark.parametrize("proof", ["reread", "stream"])
    def test_member_arrives_as_a_file_of_its_own(self, host: Host, root: Path, proof: str) -> None:
        files = {"a.fits": crafted.sound(), "d/none": b"", "d/large": os.urandom((3 << 20) + 5), "last": b"x"}
        members = bundled(root, files)
        wants = [want_of(item, members[name], data) for item, (name, data) in enumerate(files.items(), 1)]
        results = self.copied(host, wants, proof=proof)
        for item, (name, data) in enumerate(files.items(), 1):
            receipt = results[f"out/{name}"]
            assert isinstance(receipt, Receipt), receipt
            assert receipt._replace(proof="") == Receipt(item, f"out/{name}", len(data), sha256(data), TIME, "", False)
            assert (root / "out" / name).read_bytes() == data
            assert (root / "out" / name).stat().st_mtime_ns == TIME

    def test_nothing_but_the_digest_is_held_against_a_member(self, host: Host, root: Path) -> None:
        """Neither size and time of the file it lies in, nor what those are by now."""
        data = os.urandom(5000)
        member = bundled(root, {"a": data})["a"]
        crc32 = "crc32:" + format(zlib.crc32(data), "08x")
        md5 = "md5:" + hashlib.md5(data, usedforsecurity=False).hexdigest()
        wants = [
            want_of(1, member, data, destination="out/1", size=None, mtime_ns=None),
            want_of(2, member, data, destination="out/2", digest=md5),
            want_of(3, member, data, destination="out/3", digest=crc32),
            want_of(4, member, data, destination="out/4", mtime_ns=0),
        ]
        results = self.copied(host, wants)
        assert {type(result) for result in results.values()} == {Receipt}
        assert all((root / path).read_bytes() == data for path in results)
        assert (root / "out/4").stat().st_mtime_ns == 0

    def test_damaged_member_is_corrupt_and_holds_up_no_other(self, host: Host, root: Path) -> None:
        files = {name: os.urandom(9000) for name in ("a", "bad", "md5", "c")}
        members = bundled(root, files)
        damage(root, members["bad"])
        damage(root, members["md5"])
        md5 = "md5:" + hashlib.md5(files["md5"], usedforsecurity=False).hexdigest()
        wants = [want_of(item, members[name], data) for item, (name, data) in enumerate(files.items(), 1)]
        wants[2] = wants[2]._replace(digest=md5)
        results = self.copied(host, wants)
        kinds = {path.removeprefix("out/"): type(result) for path, result in results.items()}
        assert kinds == {"a": Receipt, "bad": SourceCorrupt, "md5": SourceCorrupt, "c": Receipt}
        error = results["out/bad"]
        assert isinstance(error, SourceCorrupt)
        assert error.facts["expected"] == sha256(files["bad"])
        assert sorted(path.name for path in (root / "out").iterdir()) == ["a", "c"]

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
            want_of(6, member, data, destination="out/folder", source="raw"),
            want_of(7, member, data, destination="out/outside", source="../root/" + BUNDLE),
            want_of(8, member, data, destination="out/good"),
        ]
        results = self.copied(host, wants)
        assert {path.removeprefix("out/"): type(result) for path, result in results.items()} == {
            "beyond": SourceCorrupt,
            "far": SourceCorrupt,
            "before": Refused,
            "size": SourceChanged,
            "none": SourceMissing,
            "folder": Refused,
            "outside": Refused,
            "good": Receipt,
        }
        beyond = results["out/beyond"]
        assert isinstance(beyond, SourceCorrupt)
        assert (beyond.facts["needed"], beyond.facts["size"]) == (whole + 1, whole)
        assert [path.name for path in (root / "out").iterdir()] == ["good"]

    def test_member_that_is_there_already_is_adopted(self, host: Host, root: Path) -> None:
        data, other = os.urandom(5000), os.urandom(5000)
        member = bundled(root, {"a": data})["a"]
        md5 = "md5:" + hashlib.md5(data, usedforsecurity=False).hexdigest()
        (root / "out").mkdir()
        for name, content in (("same", data), ("same md5", data), ("other", other), ("other md5", other)):
            (root / "out" / name).write_bytes(content)
        wants = [
            want_of(1, member, data, destination="out/same"),
            want_of(2, member, data, destination="out/same md5", digest=md5),
            want_of(3, member, data, destination="out/other"),
            want_of(4, member, data, destination="out/other md5", digest=md5),
        ]
        seen: list[int] = []
        results = self.copied(host, wants, on_bytes=seen.append)
        for path in ("out/same", "out/same md5"):
            receipt = results[path]
            assert isinstance(receipt, Receipt), receipt
            assert (receipt.adopted, receipt.digest) == (True, sha256(data))
        for path in ("out/other", "out/other md5"):
            assert isinstance(results[path], Conflict)
            assert (root / path).read_bytes() == other
        assert seen == []

    def test_frames_tell_members_from_blocks(self, host: Host, root: Path) -> None:
        data = os.urandom(5000)
        member = bundled(root, {"a": data})["a"]
        state = (root / BUNDLE).stat()
        block = Want(2, 1, BUNDLE, "y", state.st_size, None, stretch=(member.offset, 5000))
        frames = [(kind, body) for kind, body in host.read([want_of(1, member, data), block]) if kind != "data"]
        (_, first), first_end, (_, second), second_end = frames
        assert (first["size"], first["mtime_ns"], first["path"]) == (5000, TIME, "out/a")
        assert first_end == ("end", {"size": 5000, "digest": sha256(data)})
        assert second["mtime_ns"] // 10**9 == state.st_mtime_ns // 10**9
        assert second_end == ("end", {"size": 5000, "digest": ""})

    # Pieces.

    def test_pieces_of_a_member_are_cut_from_where_it_begins(self, host: Host, root: Path) -> None:
        header = b"DATASUM = '0'".ljust(80) + b"END".ljust(2800)
        planes = {rows: np.random.default_rng(3).bytes(256 * rows) for rows in (100, 30_000)}
        members = bundled(root, {str(rows): plane for rows, plane in planes.items()})
        wants = []
        for rows, plane in planes.items():
            (root / f"plane{rows}").write_bytes(plane)
            for n in range(3):
                piece = Piece(header, (Cut(n * 64, 64, 256, rows),), -64 * rows % 2880)
                member = members[str(rows)]
                wants.append(want_of(rows, member, plane, destination=f"out/{rows}-{n}", piece=piece))
                wants.append(Want(rows + 1, 1, f"plane{rows}", f"plain/{rows}-{n}", piece=piece))
        results = self.copied(host, sorted(wants, key=lambda want: want.item))
        assert {type(result) for result in results.values()} == {Receipt}
        for want in wants[::2]:
            made = root / want.destination
            assert made.read_bytes() == (root / want.destination.replace("out", "plain")).read_bytes()
            assert made.stat().st_mtime_ns == TIME

    def test_pieces_of_a_corrupt_member_are_not_made(self, host: Host, root: Path) -> None:
        member = bundled(root, {"bad": bytes(25_600), "short": bytes(25_600)})
        damage(root, member["bad"])
        piece = Piece(b"END".ljust(2880), (Cut(0, 8, 256, 100),), 2080)
        beyond = piece._replace(cuts=(Cut(0, 8, 256, 101),))
        wants = [want_of(1, member["bad"], bytes(25_600), destination=f"out/{n}", piece=piece) for n in range(2)]
        wants += [want_of(2, member["short"], bytes(25_600), destination=f"out/{n}", piece=beyond) for n in (3, 4)]
        results = self.copied(host, wants)
        assert len(results) == 4
        assert {type(result) for result in results.values()} == {SourceCorrupt}
        assert not (root / "out").exists() or not list((root / "out").iterdir())

    # Digests.

    def test_digest_of_a_member_has_its_name(self, host: Host, root: Path) -> None:
        files = {"a": os.urandom(9000), "d/b.fits": os.urandom((2 << 20) + 1), "none": b""}
        members = bundled(root, files)
        places = [*members.values(), BUNDLE]
        expected = [(name, len(data), sha256(data)) for name, data in files.items()]
        whole = (root / BUNDLE).read_bytes()
        for reread in (False, True):
            assert list(host.digest(places, reread=reread)) == [*expected, (BUNDLE, len(whole), sha256(whole))]
        (other,) = host.digest([members["a"]], "adler32")
        assert other == ("a", 9000, "adler32:" + format(zlib.adler32(files["a"]), "08x"))

    def test_places_that_cannot_be_read_hold_up_no_other(self, host: Host, root: Path) -> None:
        member = bundled(root, {"a.fits": crafted.sound()})["a.fits"]
        size = (root / BUNDLE).stat().st_size
        (root / "link").symlink_to(BUNDLE)
        places = {
            "beyond": (member._replace(size=size), SourceCorrupt),
            "before": (member._replace(offset=-5), Refused),
            "less than nothing": (member._replace(size=-5), Refused),
            "missing": (member._replace(path="raw/none"), SourceMissing),
            "folder": (member._replace(path="raw"), Refused),
            "link": (member._replace(path="link"), Refused),
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

    # Headers.

    def test_headers_of_a_member_are_those_of_the_file_it_is(self, host: Host, root: Path) -> None:
        pixels = np.random.default_rng(1).integers(-9, 9, (700, 1001), np.int16)
        made = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels), fits.CompImageHDU(pixels), fits.ImageHDU()])
        made.writeto(root / "a.fits", checksum=True)
        plain = (root / "a.fits").read_bytes()
        files = {
            "a.fits": plain,
            "b.fits.gz": gzip.compress(plain, 1),
            "small.FITS": crafted.sound(),
            "c.fits.gz": gzip.compress(crafted.sound()) + bytes(900),
            "unpadded.fits": crafted.primary(axes=(100,)) + bytes(100),
        }
        for name, data in files.items():
            (root / name).write_bytes(data)
        members = bundled(root, files).values()
        for limits in (Limits(), Limits(sums=True), Limits(pixels=False), Limits(first=1)):
            found = list(host.headers(members, limits))
            assert not [one for one in found if isinstance(one, TransferError)]
            assert found == list(host.headers(files, limits))

    def test_headers_end_where_the_member_does(self, host: Host, root: Path) -> None:
        """What follows a member in its file would make most of these sound."""
        packed = gzip.compress(crafted.sound())
        members = {  # name: its data, what follows, what is said
            "cut.fits": (crafted.sound()[:-2000], crafted.sound()[-2000:], "cut-short"),
            "short.fits": (crafted.sound()[:1000], crafted.sound()[1000:], "no-end"),
            "empty.fits": (b"", crafted.sound(), "empty"),
            "cut.fits.gz": (packed[:-5], packed[-5:], "gzip-cut-short"),
            "none.fits.gz": (b"", packed, "empty"),
            "name.fits.gz": (crafted.sound(), b"", "gzip-name"),
            "long.fits.gz": (packed + b"x", b"", "gzip-damaged"),
        }
        data, places = bytes(BEFORE), []
        for name, (inside, after, _) in members.items():
            places.append(Member(BUNDLE, len(data), len(inside), name))
            data += inside + after
        (root / "raw").mkdir()
        (root / BUNDLE).write_bytes(data + bytes(9000))
        found = list(host.headers(places))
        assert [type(one) for one in found] == [SourceCorrupt] * len(members)
        errors = {one.path: one.facts["code"] for one in found if isinstance(one, TransferError)}
        assert errors == {name: code for name, (_, _, code) in members.items()}

    # Unpacking.

    def test_member_is_unpacked_where_it_lies(self, host: Host, root: Path) -> None:
        data = os.urandom(100_000)
        packed = gzip.compress(data)
        member = bundled(root, {"a.gz": packed})["a.gz"]
        try:
            path = host.gunzip(want_of(7, member, packed), 4 << 20)
        except Unsupported:
            return
        assert (root / path).read_bytes() == data
        damage(root, member)
        with pytest.raises(SourceCorrupt):
            host.gunzip(want_of(7, member, packed), 4 << 20)
