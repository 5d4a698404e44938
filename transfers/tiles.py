"""Tile compression (FITS Standard 4.0, section 10) undone: an image's header cards and its pixels.

Headers are restored from the compressed HDU's raw cards. Pixels come from astropy, which is given the data
and the compression's own cards alone, after the checks here: no other card of an archive reaches it.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from typing import IO, Any

import numpy as np
from astropy.io import fits as astropy_fits
from astropy.io.fits.hdu.compressed._compression import CfitsioException

from transfers.agent import Hdu
from transfers.errors import SourceCorrupt
from transfers.fits import BLOCK, CARD, Header, header_bytes, keyword, verify

HDU_LIMIT = 1 << 30
"""Bytes of one compressed HDU, packed and unpacked: both are in memory at once."""

_ALGORITHMS = frozenset(("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS", "NONE"))
# The cards that tile compression adds to a header (section 10.1 and 10.2), and those of its binary table.
_TABLE = re.compile(r"TFIELDS|THEAP|(TTYPE|TFORM|TUNIT|TDIM|TNULL|TSCAL|TZERO|TDISP)[0-9]+")
_COMPRESSION = re.compile(
    r"ZIMAGE|ZTENSION|ZSIMPLE|ZEXTEND|ZBLOCKED|ZBITPIX|ZNAXIS[0-9]*|ZPCOUNT|ZGCOUNT|ZTILE[0-9]+|ZCMPTYPE"
    r"|ZNAME[0-9]+|ZVAL[0-9]+|ZMASKCMP|ZQUANTIZ|ZDITHER0|ZSCALE|ZZERO|ZBLANK|ZHECKSUM|ZDATASUM"
)
_STRUCTURE = re.compile(r"XTENSION|BITPIX|NAXIS[0-9]*|PCOUNT|GCOUNT")
_COLUMN = re.compile(r"([0-9]*)([LXBIJKAEDCMPQ]).*")
_WIDTHS = dict(zip("LBAIJKEDCMPQ", (1, 1, 1, 2, 4, 8, 4, 8, 8, 16, 8, 16), strict=True))
# What astropy and the decompressors raise on damaged tiles.
_DAMAGE = (
    CfitsioException, zlib.error, astropy_fits.VerifyError, ValueError, TypeError, KeyError, IndexError,
    AttributeError, OverflowError, EOFError, OSError, RuntimeError, MemoryError, ZeroDivisionError,
)  # fmt: skip


def image_cards(header: Header) -> list[bytes]:
    """The cards of the image that was compressed: the raw cards of its table without the compression's own.

    BITPIX, NAXIS and the like take the values and comments of ZBITPIX, ZNAXIS..., in the places of the
    former; the sums of the image (ZHECKSUM, ZDATASUM) come back under their own names, those of the table
    go, and so does the EXTNAME 'COMPRESSED_IMAGE' that old compressors put in beside the image's own.
    """
    cards: list[bytes] = []
    axes = header.whole("ZNAXIS") or 0
    for index, card in enumerate(header.cards):
        name = keyword(card)
        if index == 0:
            cards.append(_first(header))
        elif name == "NAXIS":
            cards.append(_renamed(header, "NAXIS", ""))
            cards.extend(_renamed(header, f"NAXIS{axis}", "") for axis in range(1, axes + 1))
        elif name in ("BITPIX", "PCOUNT", "GCOUNT"):
            if header.get("ZSIMPLE") is not True or name == "BITPIX":
                default = {"PCOUNT": "0", "GCOUNT": "1"}.get(name, "")
                cards.append(_renamed(header, name, default))
        elif name in ("ZHECKSUM", "ZDATASUM", "ZEXTEND", "ZBLOCKED"):
            restored = {"ZHECKSUM": b"CHECKSUM", "ZDATASUM": b"DATASUM ", "ZEXTEND": b"EXTEND  "}
            cards.append(restored.get(name, b"BLOCKED ") + card[8:])
        elif not _is_compressors(name, header, card):
            cards.append(card)
    return cards


def _is_compressors(name: str, header: Header, card: bytes) -> bool:
    if name in ("CHECKSUM", "DATASUM") or (name == "EXTNAME" and card[10:].startswith(b"'COMPRESSED_IMAGE'")):
        return True
    return any(kind.fullmatch(name) for kind in (_TABLE, _COMPRESSION, _STRUCTURE))


def _first(header: Header) -> bytes:
    if header.get("ZSIMPLE") is True:
        return b"SIMPLE  " + (header.card("ZSIMPLE") or b"")[8:]
    stated = header.card("ZTENSION")
    return b"XTENSION" + stated[8:] if stated else b"XTENSION= 'IMAGE   '           / image extension".ljust(CARD)


def _renamed(header: Header, name: str, default: str) -> bytes:
    """The card that ZNAXIS and the like stand for; the default's where there is none."""
    stated = header.card("ZPCOUNT" if name == "PCOUNT" else "ZGCOUNT" if name == "GCOUNT" else f"Z{name}")
    if stated is None:
        return f"{name:<8}= {default:>20}".encode("ascii").ljust(CARD)
    return f"{name:<8}".encode("ascii") + stated[8:]


def check_tiles(hdu: Hdu, header: Header, place: str) -> int:
    """Hold a compressed HDU to what can be decompressed; the bytes of its image.

    astropy and the decompressors are given nothing that has not passed here.
    """
    bitpix, count = header.whole("ZBITPIX"), header.whole("ZNAXIS")
    if bitpix not in (8, 16, 32, 64, -32, -64) or count is None or not 1 <= count <= 9:
        raise SourceCorrupt(f"{place} has ZBITPIX {header.get('ZBITPIX')!r} and ZNAXIS {header.get('ZNAXIS')!r}")
    axes = [header.whole(f"ZNAXIS{axis}") or 0 for axis in range(1, count + 1)]
    if min(axes) < 1 or math.prod(axes) * abs(bitpix) // 8 > HDU_LIMIT or hdu.data_size > HDU_LIMIT:
        raise SourceCorrupt(f"{place} has the axes {axes}: none, or more than {HDU_LIMIT} bytes")
    if header.get("ZCMPTYPE") not in _ALGORITHMS:
        raise SourceCorrupt(f"{place} has ZCMPTYPE {header.get('ZCMPTYPE')!r}, which is none of the standard's")
    tiles = [
        header.whole(f"ZTILE{axis}") if f"ZTILE{axis}" in header else (axes[0] if axis == 1 else 1)
        for axis in range(1, count + 1)
    ]
    if any(tile is None or not 1 <= tile <= 1 << 30 for tile in tiles):
        raise SourceCorrupt(f"{place} has the tile sizes {tiles}")
    wanted = math.prod(-(-axis // (tile or 1)) for axis, tile in zip(axes, tiles, strict=True))
    if header.whole("NAXIS2") != wanted:
        raise SourceCorrupt(f"{place} has {header.get('NAXIS2')!r} rows where its tiles are {wanted}")
    return math.prod(axes) * abs(bitpix) // 8


def pixels(hdu: Hdu, header: Header, packed: IO[bytes], place: str) -> bytes:
    """The image's data as they were: integers unscaled, big-endian."""
    packed.seek(hdu.data_offset)
    data = packed.read(hdu.data_size + -hdu.data_size % BLOCK)
    data += b"\0" * (-len(data) % BLOCK)
    if verify(hdu.header, [data]).datasum is False:
        raise SourceCorrupt(f"the data of {place} do not agree with its DATASUM: they were damaged")
    _check_heap(header, data, place)
    image = _decompressed(header, data, place)
    expected = tuple(header.whole(f"ZNAXIS{axis}") for axis in range(header.whole("ZNAXIS") or 0, 0, -1))
    if image is None or image.shape != expected:
        raise SourceCorrupt(f"{place} does not decompress to its axes")
    kind = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[header.whole("ZBITPIX") or 0]
    raw: bytes = image.astype(kind, copy=False).tobytes()
    stated = str(header.get("ZDATASUM", "")).strip()
    restored = b"DATASUM = '%s'" % stated.encode("latin-1")
    if stated and verify(restored.ljust(CARD), [raw]).datasum is False:
        raise SourceCorrupt(f"the pixels of {place} do not agree with the DATASUM they had (ZDATASUM)")
    return raw


def _decompressed(header: Header, data: bytes, place: str) -> Any:
    """The array that astropy makes of the data and the compression's own cards."""
    cards = [card for card in header.cards if _is_needed(keyword(card))]
    primary = [
        b"SIMPLE  =                    T",
        b"BITPIX  =                    8",
        b"NAXIS   =                    0",
    ]
    start = header_bytes([card.ljust(CARD) for card in primary])
    try:
        with astropy_fits.open(
            io.BytesIO(start + header_bytes(cards) + data), do_not_scale_image_data=True, memmap=False
        ) as hdus:
            return hdus[1].data
    except _DAMAGE as error:
        raise SourceCorrupt(f"{place} does not decompress ({type(error).__name__}: {error})") from error


def _is_needed(name: str) -> bool:
    if name in ("ZHECKSUM", "ZDATASUM", "ZSIMPLE", "ZTENSION", "ZEXTEND", "ZBLOCKED", "ZPCOUNT", "ZGCOUNT"):
        return False
    return any(kind.fullmatch(name) for kind in (_TABLE, _COMPRESSION, _STRUCTURE))


def _check_heap(header: Header, data: bytes, place: str) -> None:
    """Every tile's descriptor must point into the heap of its table (section 7.3.5)."""
    width, rows = header.whole("NAXIS1") or 0, header.whole("NAXIS2") or 0
    heap = (header.whole("PCOUNT") or 0) + width * rows - (header.whole("THEAP") or width * rows)
    table = np.frombuffer(data, dtype=np.uint8, count=width * rows).reshape(rows, width)
    start = 0
    for column in range(1, min(header.whole("TFIELDS") or 0, 999) + 1):
        match = _COLUMN.fullmatch(str(header.get(f"TFORM{column}", "")).strip())
        if match is None or match[2] == "X":
            raise SourceCorrupt(f"{place} has TFORM{column} {header.get(f'TFORM{column}')!r}")
        count, end = int(match[1] or 1), start + int(match[1] or 1) * _WIDTHS[match[2]]
        if end > width:
            raise SourceCorrupt(f"{place} has columns beyond its NAXIS1 of {width}")
        if match[2] in "PQ" and count:
            _check_descriptors(table[:, start:end], match[2], str(header[f"TFORM{column}"]), heap, place)
        start = end


def _check_descriptors(column: Any, kind: str, form: str, heap: int, place: str) -> None:
    pairs = np.ascontiguousarray(column).view(">i4" if kind == "P" else ">i8").astype(np.int64)
    element = _WIDTHS.get(form.split(kind, 1)[1][:1], 1)
    lengths, offsets = pairs[:, 0], pairs[:, 1]
    low, high = min(lengths.min(initial=0), offsets.min(initial=0)), max(lengths.max(initial=0), 0)
    if low < 0 or high > heap or (offsets + lengths * element).max(initial=0) > heap:
        raise SourceCorrupt(f"{place} has tiles outside of its data: it is damaged")
