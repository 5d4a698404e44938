"""A focal plane cut into one file an amplifier: Stager's 72 proven files, astropy's 72 files, and `cp` of the file.

The file has the size and the headers of a real one. Stager's files are hashed, synced, dropped from the cache,
read back and compared; those of astropy and `cp` are merely written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from benchmarks.measuring import Taken, Way, command, cool, side_by_side, stager, warm
from benchmarks.places import Place, manifest_text, new_database, write_config, write_manifest
from benchmarks.results import Figure, Goal, ratio, time_of
from manifests.cameras import Camera, load
from manifests.reading import read_text
from stager import focal_planes, samples
from transfers.copying import copy
from transfers.errors import TransferError
from transfers.hosts import Want
from transfers.local import LocalHost

SUBJECT = "chop"
CAMERA = "cfht_megacam"
TO_ASTROPY = Goal(0.5)  # at least twice as fast
TO_CP = Goal(3.0)
STAGER, COMMAND = "stager, 72 proven files", "stager run, from start to end of the process"
ASTROPY, SUMS = "astropy, 72 files", "astropy, 72 files with checksums"
EXPERT = "astropy and numpy by an expert, with checksums"
CP, CP_SYNC = "cp, the one file", "cp and sync, the one file"


def measure(place: Place) -> Iterator[Figure]:
    """Every way in turn, the file in the page cache; then the same with the file's pages dropped from it."""
    root = place.new("source")
    rows = place.sized(samples.FULL_ROWS, least=48)
    path = samples.write_focal_plane(root / "1038843o.fits", rows=rows)
    megabytes = path.stat().st_size / 1e6
    for cache, prepare in (("warm", warm), ("cold", cool)):
        ways = _ways(place, path, partial(prepare, [path]))
        chosen = [way for way in ways if cache == "warm" or way.name != COMMAND]
        taken = side_by_side(chosen, place.runs)
        yield from _figures(f"{megabytes:.0f} MB, {cache}", taken)


def _figures(what: str, taken: dict[str, list[Taken]]) -> Iterator[Figure]:
    for name, runs in taken.items():
        yield time_of(SUBJECT, f"{what}: {name}", runs)
    for ours, who in ((STAGER, "stager"), (COMMAND, "stager run")):
        if ours not in taken:
            continue
        for other, against, goal in (
            (ASTROPY, "astropy", TO_ASTROPY),
            (SUMS, "astropy with checksums", TO_ASTROPY),
            (EXPERT, "the expert's", None),
            (CP, "cp", TO_CP),
            (CP_SYNC, "cp and sync", None),
        ):
            yield ratio(SUBJECT, f"{what}: {who} / {against}", taken[ours], taken[other], goal)


def _ways(place: Place, path: Path, prepare_source: Callable[[], None]) -> list[Way]:
    out, site = place.folder / "out", place.folder / "site"

    def prepare() -> None:
        for folder in (out, site):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        new_database(write_config(site, {"a": path.parent, "b": out}))
        write_manifest(site, "chopped", "a:*o.fits", "b:CFHTDeep", kind="chop", camera=CAMERA)
        place.settle()
        prepare_source()

    def cp_and_sync() -> None:
        command(["cp", path, out / path.name], out)
        command(["sync", out / path.name], out)

    return [
        Way(STAGER, lambda: chop(path, out), prepare),
        Way(COMMAND, lambda: stager(site / "stager.toml", "run", site / "chopped.toml"), prepare),
        Way(ASTROPY, lambda: chop_with_astropy(path, out, checksum=False), prepare),
        Way(SUMS, lambda: chop_with_astropy(path, out, checksum=True), prepare),
        Way(EXPERT, lambda: chop_as_an_expert(path, out), prepare),
        Way(CP, lambda: command(["cp", path, out / path.name], out), prepare),
        Way(CP_SYNC, cp_and_sync, prepare),
    ]


def chop(path: Path, out: Path) -> None:
    """What a worker does with a claimed focal plane: its headers, the recipes, the landing of all 72."""
    source, destination = LocalHost("a", str(path.parent)), LocalHost("b", str(out))
    source.open(None)
    destination.open(None)
    camera: Camera = load(CAMERA, ())
    manifest = read_text(
        manifest_text("chopped", "a:*o.fits", "b:CFHTDeep", kind="chop", camera=CAMERA), "chopped.toml"
    )
    info = next(iter(source.find([path.name])))
    if info is None or isinstance(info, TransferError):
        raise FileNotFoundError(path)
    [seen] = focal_planes.look(source, [info], manifest, camera)
    hdus = next(iter(source.headers([path.name])))
    if isinstance(hdus, TransferError):
        raise hdus
    made = focal_planes.recipes(hdus, camera, manifest, seen.ids, destination.root, ("a", path.name))
    wants = [Want(1, 1, path.name, to, info.size, info.mtime_ns, piece=piece) for _, to, piece in made.pieces]
    finish(copy(source, destination, wants, streams=2))


def finish(results: Iterator[tuple[Any, Any]]) -> None:
    """Wait for all results of a copy; the first error among them is raised."""
    for _, result in results:
        if isinstance(result, TransferError):
            raise result


def chop_with_astropy(path: Path, out: Path, *, checksum: bool) -> None:
    """The same files as astropy's own manual has it: open, slice the pixels, change the header, write."""
    with fits.open(path) as hdus:
        for number, hdu in enumerate(hdus[1:]):
            for amp in range(2):
                name = out / f"c{number:02d}-a{amp}.fits"
                header = _header(hdu.header, amp, name)
                fits.PrimaryHDU(hdu.data[:, _columns(amp)], header).writeto(name, checksum=checksum)
            del hdu.data  # it would keep all 36 in memory


def chop_as_an_expert(path: Path, out: Path) -> None:
    """The same by one who knows that astropy scales 16-bit pixels, and writes a slice pixel by pixel: neither here."""
    with fits.open(path, memmap=True, do_not_scale_image_data=True) as hdus:
        for number, hdu in enumerate(hdus[1:]):
            for amp in range(2):
                name = out / f"c{number:02d}-a{amp}.fits"
                header = _header(hdu.header, amp, name)
                pixels = np.ascontiguousarray(hdu.data[:, _columns(amp)])
                cut = fits.PrimaryHDU(pixels, header, do_not_scale_image_data=True)
                cut.header["BZERO"], cut.header["BSCALE"] = header["BZERO"], header["BSCALE"]
                cut.writeto(name, checksum=True)


def _columns(amp: int) -> slice:
    return slice(amp * samples.AMPLIFIER, (amp + 1) * samples.AMPLIFIER)


def _header(header: fits.Header, amp: int, name: Path) -> fits.Header:
    """An extension's header as the amplifier's file has it."""
    rule = load(CAMERA, ()).chop_rule
    changed = header.copy()
    for keyword in rule.readouts[0].removed if rule else ():
        changed.remove(keyword, ignore_missing=True)
    changed["GAIN"], changed["RDNOISE"] = changed["GAIN" + "AB"[amp]], changed["RDNOISE" + "AB"[amp]]
    changed["CRPIX1"] -= amp * samples.AMPLIFIER
    changed["DC3BPATH"] = str(name)
    return changed
