"""A verified copy on one machine, against what people do by hand: few large files, and many small ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.chop import finish
from benchmarks.measuring import CHUNK, Taken, Way, command, side_by_side, stager, warm
from benchmarks.places import Place, new_database, write_config, write_manifest
from benchmarks.results import Figure, ratio, time_of
from transfers.copying import copy
from transfers.hosts import Want
from transfers.local import LocalHost

SUBJECT = "local verified copy"
RUN, COPY = "stager run", "copying.copy, two streams"
BY_HAND, CP = "by hand: sha256sum, cp -r, sync, sha256sum -c", "cp -r alone, nothing verified or synced"


def measure(place: Place) -> Iterator[Figure]:
    """Both sets, every way in turn, the source in the page cache."""
    for files, size, text in ((3, 256 << 20, "256 MB"), (4000, 256 << 10, "256 KB")):
        large = size > CHUNK
        count = files if large else place.sized(files, least=3)
        bytes_ = place.sized(size, least=4096) if large else size
        root = place.new("source")
        made = list(write_files(root, count, bytes_))
        ways = _ways(place, root, made)
        taken = side_by_side(ways, place.runs)
        yield from _figures(f"{count} x {text if place.scale == 1 else f'{bytes_} B'}", taken)


def _figures(what: str, taken: dict[str, list[Taken]]) -> Iterator[Figure]:
    for name, runs in taken.items():
        yield time_of(SUBJECT, f"{what}: {name}", runs)
    for ours, who in ((RUN, "stager run"), (COPY, "copying.copy")):
        yield ratio(SUBJECT, f"{what}: {who} / by hand", taken[ours], taken[BY_HAND])
        yield ratio(SUBJECT, f"{what}: {who} / cp -r alone", taken[ours], taken[CP])


def write_files(root: Path, count: int, size: int) -> Iterator[Path]:
    """Files of different bytes, a hundred to a folder."""
    noise = Random(1).randbytes(CHUNK)
    for number in range(count):
        path = root / f"data/{number // 100:03d}/r{number:05d}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"%015d\n" % number)
            for done in range(16, size, CHUNK):
                file.write(noise[: min(CHUNK, size - done)])
        yield path


def _ways(place: Place, root: Path, made: list[Path]) -> list[Way]:
    out, site = place.folder / "out", place.folder / "site"

    def prepare() -> None:
        for folder in (out, site):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        new_database(write_config(site, {"a": root, "b": out}))
        write_manifest(site, "copied", "a:data/**", "b:data")
        place.settle()
        warm(made)

    names = [str(path.relative_to(root)) for path in made]
    return [
        Way(RUN, lambda: stager(site / "stager.toml", "run", site / "copied.toml"), prepare),
        Way(COPY, partial(copied, root, out, names), prepare),
        Way(BY_HAND, partial(by_hand, root, out, site, names), prepare),
        Way(CP, lambda: command(["cp", "-r", root / "data", out], out), prepare),
    ]


def copied(root: Path, out: Path, names: list[str]) -> None:
    """One batch, as a worker carries it out."""
    source, destination = LocalHost("a", str(root)), LocalHost("b", str(out))
    source.open(None)
    destination.open(None)
    wants = [Want(number, 1, name, name) for number, name in enumerate(names)]
    finish(copy(source, destination, wants, streams=2))


def by_hand(root: Path, out: Path, site: Path, names: list[str]) -> None:
    """A list of digests at the source, the copy, a sync of that file system, the list checked at the destination."""
    listed = site / "sha256sums"
    command(["sha256sum", *names], root, listed)
    command(["cp", "-r", root / "data", out], out)
    command(["sync", "-f", out], out)
    command(["sha256sum", "--quiet", "-c", listed], out)
