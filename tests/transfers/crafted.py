"""FITS files that are not sound, or only look so: each as a function that writes it.

They are made by hand, as no program writes them, and small on disk, whatever they claim. What bombs unpack to is never
held: a flushed stretch of deflate's output is the same bytes each time, so it is written over and over.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

BLOCK = 2880
PIECE = 32 << 20  # zero bytes of one stretch of a bomb
Made = Callable[[Path], object]


def block(*cards: str) -> bytes:
    """Cards, padded to whole blocks."""
    text = "".join(card.ljust(80) for card in cards)
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("latin-1")


def integer(keyword: str, value: object) -> str:
    return f"{keyword:8}= {value:>20}"


def primary(*more: str, bitpix: object = 8, axes: tuple[object, ...] = ()) -> bytes:
    lengths = [integer(f"NAXIS{n}", length) for n, length in enumerate(axes, 1)]
    start = [integer("SIMPLE", "T"), integer("BITPIX", bitpix), integer("NAXIS", len(axes))]
    return block(*start, *lengths, *more, "END")


def extension(*more: str, bitpix: object = 8, axes: tuple[object, ...] = ()) -> bytes:
    lengths = [integer(f"NAXIS{n}", length) for n, length in enumerate(axes, 1)]
    start = ["XTENSION= 'IMAGE   '", integer("BITPIX", bitpix), integer("NAXIS", len(axes))]
    counts = [integer("PCOUNT", 0), integer("GCOUNT", 1)]
    return block(*start, *lengths, *counts, *more, "END")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def sound(side: int = 40, *more: str) -> bytes:
    """A sound image of bytes that say where they are."""
    return primary(*more, axes=(side, side)) + padded((bytes(range(256)) * (side * side // 256 + 1))[: side * side])


def bomb(start: bytes, zeros: int) -> bytes:
    """A gzip file of these bytes and at least so many zeros, in one member; its length is right, its CRC is not."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    times = -(-zeros // PIECE)
    length = struct.pack("<I", (len(start) + times * PIECE) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + first + piece * times + packer.flush() + b"\0\0\0\0" + length


def empty_blocks(size: int) -> bytes:
    """A gzip file of so many bytes that unpacks to nothing: stored blocks of no bytes."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\0\0\xff\xff" * (size // 5)


def sparse(path: Path, start: bytes, size: int) -> None:
    """A file that begins so and takes no room for the zeros that follow."""
    path.write_bytes(start)
    os.truncate(path, size)


def holding(data: bytes) -> Made:
    return lambda path: path.write_bytes(data)


def repeating(parts: Iterable[tuple[bytes, int]]) -> Made:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            for part, times in parts:
                for _ in range(times // 1000):
                    file.write(part * 1000)
                file.write(part * (times % 1000))

    return write


def dump(header: bytes) -> bytes:
    """A header as people dump it into a text: a card a line."""
    return b"".join(header[at : at + 80].rstrip() + b"\n" for at in range(0, len(header), 80))


PACKED = gzip.compress(sound(300), mtime=0)
COMMENTS = block(*["COMMENT  " + "x" * 60] * 36)
BEGIN = integer("SIMPLE", "T") + " " * 50, integer("BITPIX", 8) + " " * 50, integer("NAXIS", 0) + " " * 50

BAD: dict[str, Made] = {
    "empty.fits": holding(b""),
    "empty.fits.gz": holding(b""),
    "one-byte.fits": holding(b"S"),
    "zeros.fits": lambda path: sparse(path, b"", 10 << 20),
    "zeros.fits.gz": lambda path: sparse(path, b"", 10 << 20),
    "text.fits": holding(b"Not Found: the archive says so in 200 OK\n" * 100),
    "text.fits.fz": holding(b"<html><script>alert(1)</script>\n" * 100),
    "text.fits.gz": holding(b"\x1b[31mred\x1b[0m\n" * 100),
    "dump.fits": holding(dump(sound())),
    "dump.fits.fz": holding(dump(primary(*["COMMENT x"] * 100))),
    "dump.fits.gz": holding(gzip.compress(dump(primary()))),
    "dump-of-whole-cards.fits.fz": holding(b"".join(c.ljust(80).encode() + b"\n" for c in (*BEGIN, "END"))),
    "unicode.fits": holding("SIMPLE  =                    T / \u00e9\u202e\U0001f52d".encode() * 300),
    "control.fits": holding(primary(axes=("\x1b[31m\x00\x07",))),
    "markup.fits": holding(primary(axes=("<img src=x>",))),
    "quotes.fits": holding(primary(axes=("'; DROP TABLE items",))),
    "unpacked.fits.gz": holding(sound()),
    "packed.fits": holding(PACKED),
    "packed-twice.fits.gz": holding(gzip.compress(PACKED)),
    "naxis-999.fits": holding(sound().replace(integer("NAXIS", 2).encode(), integer("NAXIS", 999).encode())),
    "naxis-999-all.fits": holding(primary(axes=(2,) * 999)),
    "naxis-1000.fits": holding(primary(axes=(1,) * 1000)),
    "huge-axis.fits": holding(primary(axes=(2**62,))),
    "huge-axes.fits": holding(primary(axes=(2**62,) * 900)),
    "huge-axis.fits.gz": holding(gzip.compress(primary(axes=(2**62,)))),
    "digits.fits": holding(primary(axes=("9" * 30,))),
    "digits-more.fits": holding(primary(axes=("9" * 60,))),
    "negative-axis.fits": holding(primary(axes=(-5, 5))),
    "negative-naxis.fits": holding(sound().replace(integer("NAXIS", 2).encode(), integer("NAXIS", -2).encode())),
    "pcount.fits": holding(primary(integer("PCOUNT", 2**63 - 1), axes=(5,))),
    "pcount-negative.fits": holding(primary(integer("PCOUNT", -(2**63)), axes=(5,))),
    "gcount.fits": holding(primary(integer("GCOUNT", 2**63 - 1), integer("PCOUNT", 2**63 - 1), axes=(5,))),
    "no-end-50-mb.fits": repeating([(block(*BEGIN, *["COMMENT"] * 33), 1), (COMMENTS, 18_000)]),
    "no-end-50-mb.fits.gz": lambda path: path.write_bytes(
        gzip.compress(block(*BEGIN, *["COMMENT"] * 33) + COMMENTS * 18_000, 1)
    ),
    "no-end-sparse.fits": lambda path: sparse(path, block(*BEGIN, *["COMMENT"] * 33), 100 << 30),
    "million-cards.fits": repeating([(block(*BEGIN, *["COMMENT"] * 33), 1), (COMMENTS, 27_777), (block("END"), 1)]),
    "lengths.fits": lambda path: path.write_bytes(primary(*[integer("NAXIS1", n) for n in range(200_000)], axes=(5,))),
    "20000-hdus.fits": repeating([(primary(), 1), (extension(), 19_999)]),
    "20000-hdus.fits.gz": lambda path: path.write_bytes(gzip.compress(primary() + extension() * 19_999, 1)),
    "bomb.fits.gz": lambda path: path.write_bytes(bomb(b"", 10 << 30)),
    "bomb-behind.fits.gz": lambda path: path.write_bytes(bomb(primary(), 10 << 30)),
    "bomb-behind-image.fits.gz": lambda path: path.write_bytes(bomb(sound(), 10 << 30)),
    "bomb-declared.fits.gz": lambda path: path.write_bytes(bomb(primary(axes=(100_000, 100_000)), 10 << 30)),
    "bomb-of-1-gb.fits.gz": lambda path: path.write_bytes(bomb(primary(axes=(1 << 30,)), 1 << 30)),
    "bomb-in-extensions.fits.gz": lambda path: path.write_bytes(bomb(primary() + extension(axes=(2 << 30,)), 4 << 30)),
    "bomb-header.fits.gz": lambda path: path.write_bytes(
        gzip.compress(block(*BEGIN, *["COMMENT"] * 33) + b" " * (400 << 20), 1)
    ),
    "bomb-nested.fits.gz": lambda path: path.write_bytes(gzip.compress(gzip.compress(bomb(primary(), 10 << 30), 1), 1)),
    "empty-members.fits.gz": repeating([(gzip.compress(primary(axes=(9,))), 1), (gzip.compress(b""), 500_000)]),
    "small-members.fits.gz": repeating(
        [(gzip.compress(primary(axes=(10**5,))), 1), (gzip.compress(bytes(9)), 500_000)]
    ),
    "empty-blocks.fits.gz": lambda path: path.write_bytes(empty_blocks(10 << 20)),
    "zeros-behind.fits.gz": lambda path: sparse(path, PACKED, 100 << 30),
    "cut.fits.gz": holding(PACKED[:-9]),
    "crc.fits.gz": holding(PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:]),
    "junk-behind.fits.gz": holding(PACKED + b"junk"),
}
"""Bad files by their names: the walk refuses each."""

ODD: dict[str, Made] = {
    "junk-behind.fits": holding(sound() + b"junk"),
    "blocks-behind.fits": holding(sound() + bytes(2 * BLOCK)),
    "gigabytes-behind.fits": lambda path: sparse(path, sound(), 100 << 30),
    "short-block.fits": holding(sound()[:-1]),
    "short-block.fits.gz": holding(gzip.compress(sound()[:-1])),
    "nextend.fits": holding(primary(integer("NEXTEND", 36)) + extension() * 20),
    "out-of-order.fits": holding(block(*[integer(*c) for c in (("SIMPLE", "T"), ("NAXIS", 0), ("BITPIX", 8))], "END")),
    "wrong-sum.fits": holding(sound(40, "DATASUM = '1       '", "CHECKSUM= '" + "A" * 16 + "'")),
    "no-sum.fits": holding(sound(40, "DATASUM = '\x1b[31m<b>'", "CHECKSUM= 'x       '")),
    "continued.fits": lambda path: path.write_bytes(
        primary("OBJECT  = 'abc&'", *["CONTINUE  '" + "x" * 60 + "&'"] * 150_000, integer("DATASUM", "T"))
    ),
}
"""Files that can be walked and are not as they should be: each has a trouble."""

PLAIN: dict[str, Made] = {
    "4096-hdus.fits": repeating([(primary(), 1), (extension(), 4095)]),
    "180000-cards.fits": lambda path: path.write_bytes(primary(*["COMMENT"] * 180_000)),
    "sums-in-4096-hdus.fits": repeating([(primary(), 1), (extension(integer("DATASUM", 0)), 4095)]),
    "sparse.fits": lambda path: sparse(path, primary(axes=(BLOCK << 16,)), BLOCK + (BLOCK << 16)),
}
"""Files that are sound, and long to look at."""
