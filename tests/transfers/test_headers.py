"""The bounded walk over FITS files: sound ones pass, crafted ones are refused with a sentence, quickly."""

from __future__ import annotations

import gzip
import os
import time
import zlib
from pathlib import Path

import pytest
from astropy.io import fits

from tests.transfers import crafted
from tests.transfers.crafted import block, extension, integer, primary, sound
from transfers.agent import LIMITS, Agent, Fault, Hdu, Limits, add_words_numpy, add_words_stdlib


def walked(folder: Path, data: bytes, name: str = "f.fits", limits: Limits | None = None) -> tuple[Hdu, ...] | Fault:
    (folder / name).write_bytes(data)
    began = time.process_time()
    (found,) = Agent(str(folder)).headers([name], limits or Limits())
    assert time.process_time() - began < 1
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
    assert found.facts["code"] == "gzip-bomb"


def test_the_bound_of_a_gzip_file_lets_real_ones_through(tmp_path: Path) -> None:
    """Declared sizes are held against it before anything is unpacked; here nothing is, for the trailer agrees."""
    zeros = 23 * crafted.PIECE
    more = -zeros % 2880
    blank = crafted.bomb(primary(axes=(zeros + more,)) + bytes(more), zeros)  # 772 MB in less than one
    found = walked(tmp_path, blank, "f.fits.gz", Limits(pixels=False))
    assert not isinstance(found, Fault), found.text
    assert LIMITS.unpacked_free > 40 * 2112 * 4644 * 2  # a focal plane of 40 CCDs, however well it packs
    assert LIMITS.unpacked_ratio * (350 << 20) > 10 * 706_000_000  # and a real one packs to half


def test_a_file_of_several_extensions_is_unpacked_to_its_last_header(tmp_path: Path) -> None:
    """Damage before it is seen, for it lies in what must be unpacked; behind it is not."""
    pixels = os.urandom(288_000)
    whole = primary() + (extension(axes=(288_000,)) + pixels) * 3
    packed = gzip.compress(whole)
    behind, before = bytearray(packed), bytearray(packed)
    behind[-1000] ^= 1
    before[400_000] ^= 1
    brief = Limits(pixels=False)
    found = walked(tmp_path, bytes(behind), "f.fits.gz", brief)
    assert not isinstance(found, Fault)
    assert [hdu.data_size for hdu in found] == [0, 288_000, 288_000, 288_000]
    assert isinstance(walked(tmp_path, bytes(behind), "f.fits.gz"), Fault)
    short = packed[:-4] + (len(whole) - 2880).to_bytes(4, "little")
    assert isinstance(walked(tmp_path, short, "f.fits.gz", brief), Fault)


def test_gzip_members_are_unpacked_whole_whatever_is_asked_for(tmp_path: Path) -> None:
    """The trailer is of the last one alone, so that the sums of all decide."""
    data = primary(axes=(100_000,)) + os.urandom(100_800)
    members = gzip.compress(data[:50_000]) + gzip.compress(data[50_000:])
    brief = Limits(pixels=False)
    assert not isinstance(walked(tmp_path, members, "f.fits.gz", brief), Fault)
    damaged = bytearray(members)
    damaged[-2000] ^= 1
    assert isinstance(walked(tmp_path, bytes(damaged), "f.fits.gz", brief), Fault)


def test_gzip_in_small_blocks_is_read(tmp_path: Path) -> None:
    """As bgzip writes it: many members of 64 KB, and an empty one at the end."""
    data = primary(axes=(9_000_000,)) + bytes(9_000_000)
    members = b"".join(gzip.compress(data[at : at + 65_280]) for at in range(0, len(data), 65_280))
    found = walked(tmp_path, members + gzip.compress(b""), "f.fits.gz")
    assert not isinstance(found, Fault), found.text


def test_files_come_in_their_order_and_leave_nothing_open(tmp_path: Path) -> None:
    for number in range(40):
        data = sound(10 + number)
        name = f"{number:02d}.fits" + (".gz" if number % 2 else "")
        (tmp_path / name).write_bytes(gzip.compress(data) if number % 2 else data)
    (tmp_path / "17.fits.gz").write_bytes(b"text")
    names = sorted(path.name for path in tmp_path.iterdir())
    found = list(Agent(str(tmp_path)).headers(names))
    assert isinstance(found.pop(17), Fault)
    sizes = [hdus[0].data_size for hdus in found if not isinstance(hdus, Fault)]
    assert sizes == [(10 + number) ** 2 for number in range(40) if number != 17]
    opened = len(list(Path("/proc/self/fd").iterdir()))
    walk = Agent(str(tmp_path)).headers(names)
    assert not isinstance(next(walk), Fault)
    walk.close()  # nobody wants the rest
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


@pytest.mark.parametrize("size", [0, 4, 2880, 4096, 4100, 1 << 20, (1 << 20) + 2884])
def test_sums_with_and_without_numpy_are_equal(size: int) -> None:
    ones = 0xFFFFFFFF
    for data in (os.urandom(size), bytes(size), b"\xff" * size):
        words = [int.from_bytes(data[at : at + 4], "big") for at in range(0, size, 4)]
        for add in (add_words_numpy, add_words_stdlib):
            total = add(memoryview(data))
            assert total % ones == sum(words) % ones
            assert (total == 0) == (sum(words) == 0)


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
