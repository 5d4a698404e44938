"""Packed focal planes made plain again: the same cards and pixels, and no bomb or damage gets through."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from stager.samples import focal_plane_pixels, write_focal_plane
from transfers import fits
from transfers.agent import Hdu
from transfers.errors import SourceChanged, SourceCorrupt, TransferError, Transient, Unsupported
from transfers.fits import Header
from transfers.local import LocalHost
from transfers.tiles import image_cards
from transfers.unpacking import is_packed, unpack


def host(name: str, folder: Path) -> LocalHost:
    return LocalHost(name, str(folder))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_focal_plane(tmp_path_factory.mktemp("plane") / "1038843o.fits", rows=6)


@pytest.fixture(scope="module")
def tiled(plane: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The focal plane tile-compressed as archives keep it: RICE, one row a tile, with sums."""
    path = tmp_path_factory.mktemp("tiled") / "1038843o.fits.fz"
    primary = astropy_fits.PrimaryHDU(header=astropy_fits.getheader(plane, 0))
    hdus = astropy_fits.HDUList([primary])
    for ccd in range(36):
        header = astropy_fits.getheader(plane, ccd + 1)
        data = focal_plane_pixels(ccd, 6)
        hdus.append(astropy_fits.CompImageHDU(data, header, compression_type="RICE_1", tile_shape=(1, 2112)))
    hdus.writeto(path, checksum=True)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> LocalHost:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return host("scratch", folder)


def unpacked(path: Path, scratch: LocalHost) -> Path:
    return Path(scratch.root) / unpack(host("cadc", path.parent), path.name, scratch)


def left_in(scratch: LocalHost) -> list[str]:
    return [file.name for file in Path(scratch.root).iterdir()]


def walk(path: Path) -> tuple[Hdu, ...]:
    (found,) = host("here", path.parent).headers([path.name])
    assert not isinstance(found, TransferError), found
    return found


def zipped(path: Path, folder: Path, change: Callable[[bytes], bytes] = bytes) -> Path:
    packed = folder / f"{path.name}.gz"
    packed.write_bytes(change(gzip.compress(path.read_bytes(), 1, mtime=0)))
    return packed


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("a.fits.gz", True),
        ("a.fits.fz", True),
        ("a.fits.fz.gz", True),
        ("a.fits", False),
        ("a.gz.fits", False),
    ],
)
def test_what_is_packed_is_known_by_its_name(name: str, answer: bool) -> None:
    assert is_packed(name) is answer


def test_a_gzipped_focal_plane_comes_back_byte_for_byte(plane: Path, scratch: LocalHost, tmp_path: Path) -> None:
    assert unpacked(zipped(plane, tmp_path), scratch).read_bytes() == plane.read_bytes()


def test_a_gzip_file_may_have_several_members_and_zeros_after_them(
    plane: Path, scratch: LocalHost, tmp_path: Path
) -> None:
    raw = plane.read_bytes()
    packed = tmp_path / "parts.fits.gz"
    parts = (raw[: 1 << 20], raw[1 << 20 : 1 << 21], raw[1 << 21 :])
    packed.write_bytes(b"".join(gzip.compress(part, 1) for part in parts) + bytes(3_000_000))
    assert unpacked(packed, scratch).read_bytes() == raw


def check_plane(found: Path, plane: Path) -> None:
    """Pixels and cards as in the plain file, but for what astropy changed when it compressed."""
    for ccd, (hdu, original) in enumerate(zip(walk(found)[1:], walk(plane)[1:], strict=True)):
        header, expected = Header.parse(hdu.header), Header.parse(original.header)
        assert dict(header)["QID"] == 55100500000000020236
        assert header["EXTNAME"] == expected["EXTNAME"]
        for name in ("EXTVER", "CRPIX1", "UTC-OBS", "GAINB", "CMMTSEQ", "DETSECA", "ZPROBE", "CCD"):
            assert header.card(name) == expected.card(name)
        names = [fits.keyword(card) for card in header.cards]
        assert names[:7] == ["XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT"]
        compressions = [name for name in names if name.startswith(("Z", "TT", "TF")) and name != "ZPROBE"]
        assert not compressions
        with found.open("rb") as file:
            file.seek(hdu.data_offset)
            data = np.frombuffer(file.read(hdu.data_size), ">i2").reshape(6, 2112)
        assert np.array_equal(data.astype(np.int32) + 32768, focal_plane_pixels(ccd, 6))


def test_a_tile_compressed_focal_plane_comes_back_pixel_by_pixel(plane: Path, tiled: Path, scratch: LocalHost) -> None:
    check_plane(unpacked(tiled, scratch), plane)
    assert len(left_in(scratch)) == 1


def test_it_may_be_gzipped_once_more(plane: Path, tiled: Path, scratch: LocalHost, tmp_path: Path) -> None:
    check_plane(unpacked(zipped(tiled, tmp_path), scratch), plane)
    assert len(left_in(scratch)) == 1


def test_the_primary_header_is_kept_as_it_is(tiled: Path, scratch: LocalHost) -> None:
    assert walk(unpacked(tiled, scratch))[0].header == walk(tiled)[0].header


@pytest.mark.parametrize("tool", ["fpack", "fpack -g", "fpack -h"])
def test_what_fpack_packed_comes_back_as_funpack_brings_it(
    plane: Path, scratch: LocalHost, tmp_path: Path, tool: str
) -> None:
    if shutil.which("fpack") is None:
        pytest.skip("fpack is not installed")
    own = Path(shutil.copy(plane, tmp_path / "own.fits"))
    subprocess.run([*tool.split(), str(own)], check=True)
    found = unpacked(tmp_path / "own.fits.fz", scratch)
    ours, theirs = walk(found), walk(plane)
    for mine, original in zip(ours, theirs, strict=True):
        if mine.offset:
            assert Header.parse(mine.header).cards == Header.parse(original.header).cards
        assert mine.data_size == original.data_size
    raw, expected = found.read_bytes(), plane.read_bytes()
    for mine, original in zip(ours, theirs, strict=True):
        assert (
            raw[mine.data_offset : mine.data_offset + mine.data_size]
            == expected[original.data_offset : original.data_offset + original.data_size]
        )


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_an_image_in_the_primary_hdu_comes_back_there(scratch: LocalHost, tmp_path: Path, dtype: str) -> None:
    if shutil.which("fpack") is None:
        pytest.skip("fpack is not installed")
    image = (np.arange(60 * 70) % 251).reshape(60, 70).astype(dtype)
    plain = tmp_path / "one.fits"
    astropy_fits.PrimaryHDU(image).writeto(plain)
    subprocess.run(["fpack", "-q", "0", "-g", str(plain)], check=True)
    found = unpacked(tmp_path / "one.fits.fz", scratch)
    with astropy_fits.open(found, checksum=True) as hdus:
        assert len(hdus) == 1
        assert np.array_equal(hdus[0].data, image)
        assert hdus[0].header["BITPIX"] == astropy_fits.getheader(plain)["BITPIX"]


def card(text: str) -> bytes:
    return text.encode().ljust(80)


def test_old_compressors_headers_are_restored_in_their_places() -> None:
    table = [
        card("XTENSION= 'BINTABLE'           / binary table extension"),
        card("BITPIX  =                    8 / 8-bit bytes"),
        card("NAXIS   =                    2 / 2-dimensional binary table"),
        card("NAXIS1  =                    8 / width of table in bytes"),
        card("NAXIS2  =                 4644 / number of rows in table"),
        card("PCOUNT  =              7870635 / size of special data area"),
        card("GCOUNT  =                    1 / one data group"),
        card("TFIELDS =                    1"),
        card("TTYPE1  = 'COMPRESSED_DATA'"),
        card("TFORM1  = '1PB(2031)'"),
        card("EXTNAME = 'COMPRESSED_IMAGE'   / name of this binary table extension"),
        card("ZIMAGE  =                    T"),
        card("ZBITPIX =                   16 / data type of original image"),
        card("ZNAXIS  =                    2 / dimension of original image"),
        card("ZNAXIS1 =                 2112 / length of original image axis"),
        card("ZNAXIS2 =                 4644 / length of original image axis"),
        card("ZTILE1  =                 2112"),
        card("ZCMPTYPE= 'RICE_1  '"),
        card("ZENITH  =                 40.6 / no card of the compression"),
        card("EXTNAME = 'ccd00   '           / CCD number in the mosaic"),
        card("COMMENT ZIMAGE is a comment here"),
        card("ZHECKSUM= 'of the image'"),
        card("CHECKSUM= 'of the table'"),
    ]
    assert image_cards(Header(table)) == [
        card("XTENSION= 'IMAGE   '           / image extension"),
        card("BITPIX  =                   16 / data type of original image"),
        card("NAXIS   =                    2 / dimension of original image"),
        card("NAXIS1  =                 2112 / length of original image axis"),
        card("NAXIS2  =                 4644 / length of original image axis"),
        card("PCOUNT  =                    0"),
        card("GCOUNT  =                    1"),
        card("ZENITH  =                 40.6 / no card of the compression"),
        card("EXTNAME = 'ccd00   '           / CCD number in the mosaic"),
        card("COMMENT ZIMAGE is a comment here"),
        card("CHECKSUM= 'of the image'"),
    ]


# ------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda raw: raw[:-9], "truncated"),
        (lambda raw: raw[: len(raw) // 2], "truncated"),
        (lambda raw: raw[:-8] + bytes([raw[-8] ^ 1]) + raw[-7:], "gzip stream is damaged"),
        (lambda raw: raw[:-4] + bytes([raw[-4] ^ 1]) + raw[-3:], "gzip stream is damaged"),
        (lambda raw: raw + b"more", "gzip stream is damaged"),
        (lambda _: b"", "truncated"),
        (lambda _: b"no gzip at all", "gzip stream is damaged"),
        (lambda _: gzip.compress(b""), "empty"),
        (lambda _: gzip.compress(b"<html>404</html>" * 1000), "does not begin with SIMPLE"),
    ],
)
def test_a_damaged_gzip_file_is_refused_and_leaves_nothing(
    plane: Path, scratch: LocalHost, tmp_path: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    packed = zipped(plane, tmp_path, change)
    with pytest.raises(SourceCorrupt, match=sentence) as caught:
        unpacked(packed, scratch)
    assert (caught.value.host, caught.value.path) == ("cadc", packed.name)
    assert left_in(scratch) == []


def test_a_bomb_is_stopped_at_its_bound(scratch: LocalHost, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.fits.gz"
    with gzip.open(bomb, "wb", 1) as file:
        file.write(b"SIMPLE  =                    T".ljust(2880))
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(SourceCorrupt, match="unpacks to more than 16777216 bytes"):
        unpack(host("cadc", tmp_path), bomb.name, scratch, limit=16 << 20)
    assert left_in(scratch) == []


def edited(tiled: Path, folder: Path, name: str, value: str) -> Path:
    """The tile-compressed file with one card of its first extension changed and that one's sums out."""
    raw = bytearray(tiled.read_bytes())
    start = walk(tiled)[1].offset
    for keyword in ("CHECKSUM", "DATASUM"):
        place = raw.index(f"{keyword:<8}= ".encode(), start)
        raw[place : place + 80] = card("COMMENT")
    place = raw.index(f"{name:<8}= ".encode(), start)
    raw[place : place + 80] = card(f"{name:<8}= {value:>20}")
    path = folder / "edited.fits.fz"
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ZNAXIS1", "2000000000", r"extension 1 \(ccd00\) has the axes"),
        ("ZNAXIS2", "-5", "has the axes"),
        ("ZNAXIS", "999", "ZNAXIS 999"),
        ("ZBITPIX", "17", "ZBITPIX 17"),
        ("ZCMPTYPE", "'VIRUS_1 '", "ZCMPTYPE 'VIRUS_1'"),
        ("ZTILE1", "0", "tile sizes"),
        ("ZTILE1", "1", "rows where its tiles are"),
        ("TFORM1", "'1PX(300)'", "TFORM1|does not decompress"),
        ("TFORM1", "'9PB(300)'", "columns beyond its NAXIS1"),
    ],
)
def test_a_crafted_tile_table_is_refused_before_it_is_decompressed(
    tiled: Path, scratch: LocalHost, tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(SourceCorrupt, match=sentence):
        unpacked(edited(tiled, tmp_path, name, value), scratch)
    assert left_in(scratch) == []


def test_flipped_bits_in_compressed_data_are_found_by_the_datasum(
    tiled: Path, scratch: LocalHost, tmp_path: Path
) -> None:
    raw = bytearray(tiled.read_bytes())
    hdu = walk(tiled)[4]
    raw[hdu.data_offset + hdu.data_size - 40] ^= 0x10
    damaged = tmp_path / "damaged.fits.fz"
    damaged.write_bytes(bytes(raw))
    with pytest.raises(SourceCorrupt, match=r"extension 4 \(ccd03\) do not agree with its DATASUM"):
        unpacked(damaged, scratch)


def test_wild_descriptors_and_tiles_never_get_further_than_an_error(
    tiled: Path, scratch: LocalHost, tmp_path: Path
) -> None:
    clean = edited(tiled, tmp_path, "ZVAL1", "32")
    hdu, raw = walk(clean)[1], clean.read_bytes()
    random = np.random.default_rng(2010)
    refused = 0
    for _ in range(60):
        wild = bytearray(raw)
        for place in random.integers(hdu.data_offset, hdu.data_offset + hdu.data_size, 3):
            wild[place] = int(random.integers(256))
        clean.write_bytes(bytes(wild))
        try:
            unpacked(clean, scratch).unlink()
        except SourceCorrupt:
            refused += 1
    assert refused > 5
    assert left_in(scratch) == []


def test_a_tile_file_that_ends_too_early_is_refused(tiled: Path, scratch: LocalHost, tmp_path: Path) -> None:
    short = tmp_path / "short.fits.fz"
    short.write_bytes(tiled.read_bytes()[:-5000])
    with pytest.raises(SourceCorrupt, match="no sound FITS file"):
        unpacked(short, scratch)
    assert left_in(scratch) == []


def test_a_source_that_changed_since_it_was_planned_is_refused(plane: Path, scratch: LocalHost, tmp_path: Path) -> None:
    packed = zipped(plane, tmp_path)
    with pytest.raises(SourceChanged):
        unpack(host("cadc", tmp_path), packed.name, scratch, size=packed.stat().st_size + 1)
    with pytest.raises(SourceCorrupt):
        unpack(host("cadc", tmp_path), packed.name, scratch, digest="sha256:" + "0" * 64)
    assert left_in(scratch) == []


def test_a_stop_ends_the_work_and_leaves_nothing(tiled: Path, scratch: LocalHost) -> None:
    with pytest.raises(Transient):
        unpack(host("cadc", tiled.parent), tiled.name, scratch, stop=lambda: True)
    assert left_in(scratch) == []


def test_a_plain_file_is_not_unpacked(plane: Path, scratch: LocalHost) -> None:
    with pytest.raises(Unsupported):
        unpacked(plane, scratch)


@pytest.mark.slow
def test_real_headers_come_back_as_funpack_brings_them(shared: Path, scratch: LocalHost, tmp_path: Path) -> None:
    if shutil.which("funpack") is None:
        pytest.skip("funpack is not installed")
    source = shared / "data" / "derived_mef" / "1257365o.fits.fz.gz"
    tiled = tmp_path / "1257365o.fits.fz"
    with gzip.open(source) as packed, tiled.open("wb") as file:
        shutil.copyfileobj(packed, file)
    subprocess.run(["funpack", "-O", str(tmp_path / "theirs.fits"), str(tiled)], check=True)
    found = unpacked(source, scratch)
    with found.open("rb") as ours, (tmp_path / "theirs.fits").open("rb") as theirs:
        for mine, other in zip(walk(found), walk(tmp_path / "theirs.fits"), strict=True):
            sums = ("CHECKSUM", "DATASUM")
            left = fits.without(Header.parse(mine.header).cards, sums)
            assert left == fits.without(Header.parse(other.header).cards, sums)
            ours.seek(mine.data_offset)
            theirs.seek(other.data_offset)
            assert ours.read(mine.data_size) == theirs.read(other.data_size)


def test_gzip_members_that_inflate_in_odd_pieces_are_whole(scratch: LocalHost, tmp_path: Path) -> None:
    header = fits.header_bytes([card("SIMPLE  =                    T"), card("BITPIX  = 8"), card("NAXIS   = 0")])
    raw = header + bytes(5 * (1 << 20) + 7)
    file = io.BytesIO()
    with gzip.GzipFile("a", "wb", 9, file) as packed:
        packed.write(raw)
    (tmp_path / "zeros.fits.gz").write_bytes(file.getvalue())
    assert unpacked(tmp_path / "zeros.fits.gz", scratch).read_bytes() == raw
