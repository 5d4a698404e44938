"""Headers of an ImSim visit: looked into and judged, beside plain reading with astropy; and sums of a large file.

The visit is generated in its archive's layout: 6048 gzip files of 1.3 MB, with the cards of real ones and noise for
pixels, which packs as theirs do. What is said of a file is what a worker finds before it brings it over.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

from benchmarks.measuring import Taken, Way, command, side_by_side, stager, timed, warm
from benchmarks.places import Place, new_database, write_config, write_manifest
from benchmarks.results import Figure, Goal, ratio, time_of
from manifests.cameras import Camera, load
from manifests.checking.checks import check
from stager import samples
from transfers.agent import Datasum, summed_header
from transfers.errors import TransferError
from transfers.fits import BLOCK, Header, header_bytes
from transfers.hosts import Limits
from transfers.integrity import troubles
from transfers.local import LocalHost

SUBJECT = "headers"
CAMERA = "lsst_imsim"
FILES = 6048  # of a visit
RAFTS = tuple(f"{row}{column}" for row in range(5) for column in range(5) if (row in (0, 4)) + (column in (0, 4)) < 2)
SENSORS = tuple(f"{row}{column}" for row in range(3) for column in range(3))
SHAPE = (2001, 513)  # rows and columns of an amplifier
SIGMA = 110  # of the noise, in counts: the file packs to 1.3 MB, as a real one does
NOISES = 4  # different ones, taken in turn
PLANE = 706  # MB of a focal plane
CCDS = 36

BRIEF, WHOLE = Limits(pixels=False), Limits(sums=True)  # as `check` = "headers" and "fits" look
TO_ASTROPY = Goal(0.2)  # at least five times as fast
TO_NUMPY = Goal(1.2)  # near the speed of memory
OURS, CARDS, OPENED = "stager, headers and all checks", "astropy, open and read all cards", "astropy, open alone"
DEEP, PIXELS = "stager, the same and every pixel unpacked, CRC and sums", "astropy, all cards and all pixels"
SUMS, NUMPY, CAT = "stager, DATASUM and CHECKSUM of all HDUs", "numpy, one sum over the mapped file", "cat to /dev/null"
ASTROPY_SUMS = "astropy, open with checksum=True"


def measure(place: Place) -> Iterator[Figure]:
    """Headers alone, headers with all pixels, the whole way of the visit into a registry, sums of one large file."""
    root = place.new("visit")
    paths = list(make_visit(root, place.sized(FILES, least=4)))
    # A tenth is enough where a file takes tens of milliseconds; all figures are of one file.
    some = paths[:: 10 if len(paths) >= FILES else 1]
    camera: Camera = load(CAMERA, ())
    host = LocalHost("a", str(root))
    yield from _brief(place, host, camera, paths, some)
    yield from _deep(place, host, camera, some)
    yield from registration(place, root, len(paths))
    yield from _sums(place)


# ---------------------------------------------------------------------------------------- the visit


class Noise(NamedTuple):
    """The pixels of one file, padded, and what deflate makes of them."""

    pixels: bytes
    packed: bytes


def make_visit(root: Path, count: int) -> Iterator[str]:
    """Write the first so many files of a visit below `root`; their paths. One noise is packed once for many files."""
    noises = [noise(number) for number in range(NOISES)]
    scratch = root / "scratch"
    made = 0
    for raft, sensor in ((raft, sensor) for raft in RAFTS for sensor in SENSORS):
        visit = samples.Visit(rafts=(raft,), sensors=(sensor,))
        for name in samples.write_visit(scratch, visit, shape=SHAPE, gzipped=False):
            if made < count:
                plain = (scratch / name).read_bytes()
                path = root / f"{name}.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(gzipped(plain, noises[made % NOISES]))
                made += 1
                yield f"{name}.gz"
            (scratch / name).unlink()
        if made == count:
            return


def noise(seed: int) -> Noise:
    """What the sky and the electronics leave: normal, 16-bit integers with BZERO."""
    counts = np.random.default_rng(seed).normal(1000, SIGMA, SHAPE)
    pixels = (counts.astype(np.int32) - 32768).astype(">i2").tobytes()
    pixels += bytes(-len(pixels) % BLOCK)
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return Noise(pixels, packer.compress(pixels) + packer.flush())


def gzipped(plain: bytes, pixels: Noise) -> bytes:
    """A file's header with this noise for its pixels, as one gzip member (RFC 1952)."""
    header = plain[: len(plain) - len(pixels.pixels)]
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(pixels.pixels, zlib.crc32(header))
    trailer = struct.pack("<II", crc, len(header) + len(pixels.pixels))
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + first + pixels.packed + trailer


# ------------------------------------------------------------------------------------------ headers


def look(host: LocalHost, camera: Camera, paths: Sequence[str], limits: Limits) -> None:
    """What a worker does with files before it brings them: the walk, FITS's own demands, the camera's checks."""
    for path, hdus in zip(paths, host.headers(paths, limits), strict=True):
        if isinstance(hdus, TransferError):
            raise hdus
        headers = [Header.parse(hdu.header) for hdu in hdus]
        said = troubles(hdus, path), check(camera, path, headers, {})
        if any(one.severity == "fail" for found in said for one in found):
            raise ValueError(f"the generated {path} is not sound: {said}")


def read_cards(root: Path, paths: Sequence[str], *, pixels: bool = False) -> None:
    """Plain reading with astropy: every card's keyword, value and comment, and the pixels too where asked for."""
    for path in paths:
        with fits.open(root / path) as hdus:
            for hdu in hdus if pixels else hdus[:1]:
                _ = [(card.keyword, card.value, card.comment) for card in hdu.header.cards]
                if pixels:
                    assert hdu.data.shape == SHAPE


def open_alone(root: Path, paths: Sequence[str]) -> None:
    """The least that astropy can do: the primary header is read, and no card of it looked at."""
    for path in paths:
        with fits.open(root / path) as hdus:
            assert hdus[0].header is not None


def _brief(
    place: Place, host: LocalHost, camera: Camera, paths: Sequence[str], some: Sequence[str]
) -> Iterator[Figure]:
    root = Path(host.root)
    ways = [
        Way(OURS, partial(look, host, camera, paths, BRIEF)),
        Way(CARDS, partial(read_cards, root, some), partial(warm, [root / path for path in some])),
        Way(OPENED, partial(open_alone, root, some)),
    ]
    counts = {OURS: len(paths), CARDS: len(some), OPENED: len(some)}
    yield from _per_file(
        f"{len(paths)} files", side_by_side(ways, place.runs), counts, {CARDS: TO_ASTROPY, OPENED: None}
    )


def _deep(place: Place, host: LocalHost, camera: Camera, some: Sequence[str]) -> Iterator[Figure]:
    root = Path(host.root)
    ways = [
        Way(DEEP, partial(look, host, camera, some, WHOLE), partial(warm, [root / path for path in some])),
        Way(PIXELS, partial(read_cards, root, some, pixels=True)),
    ]
    taken = side_by_side(ways, place.runs)
    yield from _per_file(f"{len(some)} files", taken, dict.fromkeys(taken, len(some)), {PIXELS: None})


def _per_file(
    what: str, taken: dict[str, list[Taken]], counts: dict[str, int], against: dict[str, Goal | None]
) -> Iterator[Figure]:
    """Files a second of the first way, milliseconds a file of all, and of how many times the others' that is."""
    each = {
        name: [Taken(run.seconds / counts[name], run.cpu_s / counts[name]) for run in runs]
        for name, runs in taken.items()
    }
    ours = next(iter(taken))
    yield Figure(SUBJECT, f"{what}: {ours}", "files/s", tuple(1 / run.seconds for run in each[ours]))
    for name, runs in each.items():
        yield Figure(SUBJECT, f"one file: {name}", "ms", tuple(1000 * run.seconds for run in runs))
    for other, goal in against.items():
        yield ratio(SUBJECT, f"one file: {ours} / {other}", each[ours], each[other], goal)


# ------------------------------------------------------------------------------------- registration


def registration(place: Place, root: Path, count: int) -> Iterator[Figure]:
    """The whole visit by `stager run`, copied, proven, checked and registered; then a pipeline's registry of it."""
    site = place.new("site")
    config = write_config(site, {"a": root, "b": site / "b"})
    new_database(config)
    manifest = write_manifest(site, "visit", "a:raw/**", "b:raw", camera=CAMERA, check="headers")
    place.settle()
    steps: dict[str, Callable[[], object]] = {
        "stager run: copied, proven, checked, registered": partial(stager, config, "run", manifest),
        "stager registry build: registry.sqlite3": partial(
            stager, config, "registry", "build", "visit", "--output", site / "registry.sqlite3"
        ),
    }
    for what, run in steps.items():
        taken = timed(run)
        yield time_of(SUBJECT, f"{count} files: {what}", [taken])
        yield Figure(SUBJECT, f"one file: {what}", "ms", (1000 * taken.seconds / count,))


# --------------------------------------------------------------------------------------------- sums


def write_summed(path: Path, bytes_each: int) -> None:
    """A file of 36 extensions of noise that carry DATASUM and CHECKSUM."""
    data = np.random.default_rng(1).integers(0, 256, bytes_each, np.uint8).tobytes()
    data += bytes(-len(data) % BLOCK)
    total = Datasum()
    total.update(data)
    with path.open("wb") as file:
        for hdu in range(CCDS + 1):
            file.write(summed_header(header_bytes(_cards(hdu, bytes_each)), total.value() if hdu else 0))
            file.write(data if hdu else b"")


def _cards(hdu: int, length: int) -> list[bytes]:
    """The cards of the primary HDU, which is empty, or of an extension of so many bytes."""
    first = ["SIMPLE  =                    T" if hdu == 0 else "XTENSION= 'IMAGE   '", "BITPIX  =                    8"]
    axes = ["NAXIS   =                    0"]
    if hdu:
        axes = ["NAXIS   =                    1", f"NAXIS1  = {length:>20}"]
        axes += ["PCOUNT  =                    0", "GCOUNT  =                    1"]
    sums = ["DATASUM = '0'", "CHECKSUM= '0000000000000000'"]
    return [card.ljust(80).encode("ascii") for card in (*first, *axes, *sums)]


def verify(host: LocalHost, name: str) -> None:
    """Every sum of the file, made and judged."""
    (hdus,) = host.headers([name], WHOLE)
    if isinstance(hdus, TransferError):
        raise hdus
    if len(hdus) != CCDS + 1 or troubles(hdus, name):
        raise ValueError(f"the generated {name} is not sound: {troubles(hdus, name)}")


def sum_with_numpy(path: Path) -> None:
    """What the sum over all bytes alone takes, without regard to HDUs."""
    np.memmap(path, ">u4", "r").sum(dtype="u8")


def open_with_astropy(path: Path) -> None:
    """astropy's own way; it only warns."""
    with fits.open(path, checksum=True) as hdus:
        assert len(hdus) == CCDS + 1


def _sums(place: Place) -> Iterator[Figure]:
    root = place.new("summed")
    path = root / "summed.fits"
    write_summed(path, place.sized(PLANE * 1_000_000 // CCDS, least=BLOCK))
    host = LocalHost("a", str(root))
    ways = [
        Way(SUMS, partial(verify, host, path.name), partial(warm, [path])),
        Way(NUMPY, partial(sum_with_numpy, path)),
        Way(CAT, partial(command, ["cat", path], root)),
        Way(ASTROPY_SUMS, partial(open_with_astropy, path)),
    ]
    taken = side_by_side(ways, place.runs)
    what = f"{path.stat().st_size / 1e6:.0f} MB"
    for name, runs in taken.items():
        yield time_of(SUBJECT, f"{what}: {name}", runs)
    yield ratio(SUBJECT, f"{what}: stager / numpy", taken[SUMS], taken[NUMPY], TO_NUMPY)
    yield ratio(SUBJECT, f"{what}: stager / astropy", taken[SUMS], taken[ASTROPY_SUMS])
