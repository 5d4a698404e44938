"""The bounded walk over FITS files: sound ones pass, crafted ones are refused with a sentence, quickly."""

from __future__ import annotations

import gzip
import os
import time
import zlib
from pathlib import Path

import pytest
from astropy.io import fits

from transfers.agent import Agent, Fault, Hdu, Limits


def block(*cards: str) -> bytes:
    text = "".join(card.ljust(80) for card in cards)
    return text.ljust(-(-len(text) // 2880) * 2880).encode("latin-1")


def integer(keyword: str, value: object) -> str:
    return f"{keyword:8}= {value:>20}"


def primary(*more: str, bitpix: object = 8, axes: tuple[object, ...] = ()) -> bytes:
    lengths = [integer(f"NAXIS{n}", length) for n, length in enumerate(axes, 1)]
    start = [integer("SIMPLE", "T"), integer("BITPIX", bitpix), integer("NAXIS", len(axes))]
    return block(*start, *lengths, *more, "END")


def extension(*more: str, axes: tuple[object, ...] = ()) -> bytes:
    return primary(*more, axes=axes).replace(integer("SIMPLE", "T").encode(), b"XTENSION= 'IMAGE   '".ljust(30))


def walked(folder: Path, data: bytes, name: str = "f.fits", limits: Limits | None = None) -> tuple[Hdu, ...] | Fault:
    (folder / name).write_bytes(data)
    began = time.monotonic()
    (found,) = Agent(str(folder)).headers([name], limits or Limits())
    assert time.monotonic() - began < 1
    return found


SOUND = {
    "no data": (primary(), [(0, 2880, 0)]),
    "unpadded tail": (primary(axes=(100,)) + bytes(100), [(0, 2880, 100)]),
    "trailing bytes": (primary() + b"junk" * 1000, [(0, 2880, 0)]),
    "two": (primary() + extension(axes=(2881,)) + bytes(5760), [(0, 2880, 0), (2880, 5760, 2881)]),
    "axis of zero": (primary(axes=(0, 5)), [(0, 2880, 0)]),
    "groups": (
        primary(integer("GROUPS", "T"), integer("PCOUNT", 2), integer("GCOUNT", 3), axes=(0, 4)) + bytes(2880),
        [(0, 2880, 18)],
    ),
    "ugly cards": (
        primary("HIERARCH \x01\xff no value", "COMMENT NAXIS1  = 5", "QID     = 55100500000000020236"),
        [(0, 2880, 0)],
    ),
    "comments": (primary(axes=("3 / of three",)) + bytes(3), [(0, 2880, 3)]),
    "999 axes": (primary(axes=(1,) * 999) + bytes(2880), [(0, 80640, 1)]),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("packed", [False, True])
def test_sound_files_give_their_places(tmp_path: Path, name: str, packed: bool) -> None:
    data, places = SOUND[name]
    found = walked(tmp_path, gzip.compress(data) if packed else data, "f.fits.gz" if packed else "f.fits")
    assert not isinstance(found, Fault), found.text
    assert [(hdu.offset, hdu.data_offset, hdu.data_size) for hdu in found] == places
    assert all(data[hdu.offset : hdu.data_offset] == hdu.header for hdu in found)


CORRUPT = {
    "empty": (b"", "empty"),
    "text": (b"hello world\n" * 1000, "not FITS"),
    "short text": (b"SIMPLE", "not FITS"),
    "gzip by another name": (gzip.compress(primary()), "gzip"),
    "not standard": (primary().replace(b"T", b"U", 1), "not FITS"),
    "cut in the header": (primary()[:1000], "inside the header"),
    "no END": (block("SIMPLE  =                    T", *["COMMENT"] * 100), "before an END"),
    "END out of place": (primary().replace(b"END ", b"ENDS"), "before an END"),
    "cut in the data": (primary(axes=(100, 100)) + bytes(9999), "10000 bytes of data, the file has 9999"),
    "no BITPIX": (primary().replace(b"BITPIX", b"BITPIY"), "no card BITPIX"),
    "wrong BITPIX": (primary(bitpix=12), "BITPIX = 12"),
    "BITPIX text": (primary(bitpix="'8'"), "BITPIX is not an integer"),
    "too many axes": (primary().replace(b"                   0", b"                1000"), "NAXIS = 1000"),
    "negative NAXIS": (primary().replace(b"                   0", b"                  -1"), "NAXIS = -1"),
    "missing axis": (primary(axes=(5,)).replace(b"NAXIS1", b"NAXIS2"), "no card NAXIS1"),
    "negative axis": (primary(axes=(-5,)), "NAXIS1 = -5"),
    "real axis": (primary(axes=("5.0",)), "NAXIS1 is not an integer: '= "),
    "huge axis": (primary(axes=(10**25,)), "NAXIS1 = 1"),
    "huge product": (primary(axes=(2**60,) * 900), "more data than any file"),
    "negative PCOUNT": (primary(integer("PCOUNT", -1), axes=(5,)), "PCOUNT = -1"),
    "two values": (primary(integer("NAXIS1", 7), axes=(5,)) + bytes(2880), "different values: [5, 7]"),
    "second HDU": (primary() + extension(axes=(10**6,)) + bytes(2880), "HDU 1"),
    "markup": (primary(axes=("<script>\x1b[31m",)), "NAXIS1 is not an integer"),
}


@pytest.mark.parametrize("name", CORRUPT)
@pytest.mark.parametrize("packed", [False, True])
def test_corrupt_files_are_refused_with_a_sentence(tmp_path: Path, name: str, packed: bool) -> None:
    data, sentence = CORRUPT[name]
    found = walked(tmp_path, gzip.compress(data) if packed else data, "f.fits.gz" if packed else "f.fits")
    assert isinstance(found, Fault)
    assert (found.kind, found.phase) == ("source corrupt", "headers")
    assert sentence in found.text


def test_headers_and_hdus_without_end_are_bounded(tmp_path: Path) -> None:
    endless = block("SIMPLE  =                    T", *["COMMENT"] * 35) + block(*["COMMENT"] * 36) * 8000
    found = walked(tmp_path, endless)
    assert isinstance(found, Fault)
    assert "beyond" in found.text
    many = walked(tmp_path, primary() + extension() * 5000)
    assert isinstance(many, Fault)
    assert "more than 4096 HDUs" in many.text
    filled = walked(tmp_path, primary(*["COMMENT"] * 180_000))
    assert not isinstance(filled, Fault)


GOOD = gzip.compress(primary(axes=(100_000,)) + os.urandom(100_000) + bytes(800))
DAMAGED = {
    "cut short": GOOD[:-4000],
    "cut in its trailer": GOOD[:-2],
    "wrong CRC": GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:],
    "wrong length": GOOD[:-4] + b"\0\0\0\0",
    "flipped bit": GOOD[:50_000] + bytes([GOOD[50_000] ^ 1]) + GOOD[50_001:],
    "no gzip": primary(),
    "empty": b"",
    "junk behind": GOOD + b"junk",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_gzip_is_corrupt(tmp_path: Path, name: str) -> None:
    found = walked(tmp_path, DAMAGED[name], "f.fits.gz")
    assert isinstance(found, Fault)
    assert found.kind == "source corrupt"
    assert "gzip" in found.text


def test_gzip_in_members_and_padded_is_read(tmp_path: Path) -> None:
    data = primary(axes=(100_000,)) + os.urandom(100_800)
    members = gzip.compress(data[:50_000]) + gzip.compress(data[50_000:]) + bytes(512)
    found = walked(tmp_path, members, "f.fits.gz")
    assert not isinstance(found, Fault), found.text
    assert found[0].data_size == 100_000


@pytest.mark.parametrize("honest", [True, False])
def test_gzip_bombs_are_bounded(tmp_path: Path, honest: bool) -> None:
    packer = zlib.compressobj(1, wbits=31)
    size = 400 << 20
    start = primary(axes=(size,)) if honest else primary()
    parts = [packer.compress(start)]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(400)]
    found = walked(
        tmp_path, b"".join([*parts, packer.flush()]), "f.fits.gz", Limits(unpacked_free=64 << 20, unpacked_ratio=10)
    )
    assert isinstance(found, Fault)
    assert "unpacks to more than" in found.text


def test_the_walk_agrees_with_astropy(tmp_path: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("a", "PJ()", array=[[1, 2], [3]])])
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(b"" or None), fits.CompImageHDU(), table]).writeto(
        tmp_path / "f.fits"
    )
    (found,) = Agent(str(tmp_path)).headers(["f.fits"])
    assert not isinstance(found, Fault), found.text
    with fits.open(tmp_path / "f.fits", disable_image_compression=True) as hdus:
        info = [hdu.fileinfo() for hdu in hdus]
    assert [(hdu.offset, hdu.data_offset) for hdu in found] == [(one["hdrLoc"], one["datLoc"]) for one in info]


def test_real_samples_walk_through(shared: Path) -> None:
    root = shared / "data"
    paths = [os.path.relpath(path, root) for path in sorted(root.rglob("*.fits*"))]
    paths = [path for path in paths if path.endswith((".fits", ".fits.fz", ".fits.gz"))]
    for path, found in zip(paths, Agent(str(root)).headers(paths), strict=True):
        packed = not path.endswith(".gz") and (root / path).read_bytes()[:2] == b"\x1f\x8b"
        assert isinstance(found, Fault) == packed, f"{path}: {found}"
