"""Packed sources made plain: `.fits.gz` (gzip), `.fits.fz` (tile compression) and `.fits.fz.gz`.

The bytes come from the source host through its own `read`, so a source that changes or is not what it was
expected to be fails as any read does; what they unpack to is held to bounds before it is believed.
"""

from __future__ import annotations

import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from transfers.agent import Hdu, Want
from transfers.errors import SourceCorrupt, Transient, Unsupported, from_fault, from_os_error
from transfers.fits import BLOCK, Header, header_bytes
from transfers.hosts import Host, Stop, never, only
from transfers.local import LocalHost

LIMIT = 4 << 30
"""Bytes that a packed file may unpack to; a focal plane of 40 CCDs has 0.8 GB, or 1.6 as floating point."""

_CHUNK = 1 << 20
_PACKED = re.compile(r"(\.fz)?(\.gz)?$", re.IGNORECASE)


def is_packed(path: str) -> bool:
    """Whether a file of this name is unpacked before it is chopped."""
    match = _PACKED.search(path)
    return bool(match and match[0])


def unpack(
    source: Host,
    path: str,
    scratch: LocalHost,
    *,
    size: int | None = None,
    mtime_ns: int | None = None,
    digest: str | None = None,
    limit: int = LIMIT,
    stop: Stop = never,
) -> str:
    """Unpack `path` of `source` to a new plain FITS file in `scratch`; the path of that file.

    The file is the caller's to remove; after an error nothing is left. `size`, `mtime_ns` and `digest` are
    what the packed file is expected to be, as in a Want. A packed file that is truncated, damaged or
    unpacks to more than `limit` bytes is SourceCorrupt, with the HDU in its fact `hdu` where the damage lies in
    one; `stop` ends the work as Transient.
    """
    match = _PACKED.search(path)
    if not match or not match[0]:
        text = f"{path} is neither .gz nor .fz"
        raise Unsupported(text, host=source.name, side="source", path=path, phase="unpack")
    want = Want(0, 0, path, path, size, mtime_ns, digest)
    try:
        return _unpack(_data(source, want, stop), match.groups(), scratch, limit, stop)
    except SourceCorrupt as error:
        if not error.host:
            error.host, error.side, error.path, error.phase = source.name, "source", path, "unpack"
        raise
    except OSError as error:
        raise from_os_error(error, scratch.name, "local", "unpack", path) from error


def _unpack(chunks: Iterable[bytes], packing: Sequence[str | None], scratch: LocalHost, limit: int, stop: Stop) -> str:
    tiled, zipped = packing
    with _made(scratch, keep=not tiled) as first:
        try:
            with first.open("wb") as file:
                _fetch(chunks, file, limit, zipped=bool(zipped))
        except SourceCorrupt as error:
            _locate(error, scratch, first.name)
            raise
        if not tiled:
            return first.name
        with _made(scratch, keep=True) as plain:
            hdus = _walk(scratch, first.name)
            with first.open("rb") as packed, plain.open("wb") as file:
                _unpack_tiles(hdus, packed, file, limit, stop)
            return plain.name


def _locate(error: SourceCorrupt, scratch: LocalHost, name: str) -> None:
    """Give the error the HDU in which what could be unpacked ends: that is where the damage lies."""
    found = only(scratch.headers([name]))
    if isinstance(found, SourceCorrupt) and "hdu" in found.facts:
        error.facts.setdefault("hdu", found.facts["hdu"])


@contextmanager
def _made(scratch: LocalHost, *, keep: bool) -> Iterator[Path]:
    """A new file of a name of its own in the scratch folder; removed at the end, or only after an error."""
    file = Path(scratch.root) / f"unpacked-{secrets.token_hex(8)}.fits"
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    done = False
    try:
        yield file
        done = True
    finally:
        if not (done and keep):
            file.unlink()


def _data(source: Host, want: Want, stop: Stop) -> Iterator[bytes]:
    """The bytes of one source file; a fault of the reading is raised."""
    for frame in source.read([want]):
        if frame[0] == "fault":
            raise from_fault(frame[1], source.name)
        if frame[0] == "data":
            yield frame[1]
        _check_stop(stop)


def _check_stop(stop: Stop) -> None:
    if stop():
        raise Transient("stopped while unpacking", side="local", phase="stopped")


def _fetch(chunks: Iterable[bytes], file: IO[bytes], limit: int, *, zipped: bool) -> None:
    written = 0
    for data in _gunzip(chunks) if zipped else chunks:
        if not written and bytes(data[:9]) != b"SIMPLE  =":
            raise SourceCorrupt("what is in it is no FITS file: it does not begin with SIMPLE")
        written += len(data)
        if written > limit:
            raise SourceCorrupt(f"it unpacks to more than {limit} bytes, the bound for one file")
        file.write(data)
    if not written:
        raise SourceCorrupt("it is empty")


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a gzip file of one or more members, in pieces of at most 1 MiB, CRC and length checked.

    Zero bytes after the last member are padding (RFC 1952 allows them to tapes), anything else is damage.
    """
    member = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        rest = bytes(chunk)
        while rest:
            if member.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                member = zlib.decompressobj(wbits=31)
            yield from _inflate(member, rest)
            rest = member.unused_data
    if not member.eof:
        raise SourceCorrupt("its gzip stream ends too early: the file is truncated")


def _inflate(member: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """What these bytes add to a member, up to its end."""
    while True:
        try:
            data = member.decompress(packed, _CHUNK)
        except zlib.error as error:
            raise SourceCorrupt(f"its gzip stream is damaged ({error})") from error
        packed = member.unconsumed_tail
        if data:
            yield data
        if member.eof or (not packed and len(data) < _CHUNK):
            return


def _walk(scratch: LocalHost, name: str) -> Sequence[Hdu]:
    """The HDUs of an unzipped file, by the bounded reader."""
    found = only(scratch.headers([name]))
    if isinstance(found, SourceCorrupt):
        raise SourceCorrupt(f"what is in it is no sound FITS file: {found.text}", facts=found.facts) from found
    if isinstance(found, Exception):
        raise found
    return found


def _unpack_tiles(hdus: Sequence[Hdu], packed: IO[bytes], file: IO[bytes], limit: int, stop: Stop) -> None:
    headers = [Header.parse(hdu.header) for hdu in hdus]
    # fpack puts a primary image in the first extension, behind an empty primary HDU that is not the file's.
    skipped = len(headers) > 1 and headers[1].get("ZSIMPLE") is True
    room = limit
    for index, (hdu, header) in enumerate(zip(hdus, headers, strict=True)):
        if index == 0 and skipped:
            continue
        _check_stop(stop)
        try:
            room -= _unpack_hdu(hdu, header, _place(index, header), packed, file, room)
        except SourceCorrupt as error:
            error.facts.setdefault("hdu", index)
            raise


def _unpack_hdu(hdu: Hdu, header: Header, place: str, packed: IO[bytes], file: IO[bytes], room: int) -> int:
    """Write one HDU as it was before its compression; the bytes of its data, which must fit into `room`."""
    from transfers.tiles import check_tiles, image_cards, pixels  # imported late: it takes all of astropy's FITS

    tiled = header.get("ZIMAGE") is True
    size = check_tiles(hdu, header, place) if tiled else hdu.data_size
    if size > room:
        raise SourceCorrupt(f"{place}, of {size} bytes, brings it beyond the bound of what a file may unpack to")
    if tiled:
        file.write(header_bytes(image_cards(header)))
        data = pixels(hdu, header, packed, place)
        file.write(data)
        file.write(b"\0" * (-len(data) % BLOCK))
    else:
        file.write(hdu.header)
        _copy(packed, hdu, file)
    return size


def _place(index: int, header: Header) -> str:
    names = [str(name) for name in header.all("EXTNAME") if name != "COMPRESSED_IMAGE"]
    if not index:
        return "the primary HDU"
    return f"extension {index} ({names[0]})" if names else f"extension {index}"


def _copy(packed: IO[bytes], hdu: Hdu, file: IO[bytes]) -> None:
    """The data of an HDU that is not compressed, padded to whole blocks."""
    packed.seek(hdu.data_offset)
    left = hdu.data_size
    while left:
        data = packed.read(min(left, _CHUNK))
        if not data:
            raise SourceCorrupt("its data end before their declared size")
        file.write(data)
        left -= len(data)
    file.write(b"\0" * (-hdu.data_size % BLOCK))
