"""Small files to a store in bundles against what people do by hand; one file back out of a large bundle; and how long a
restore of a million files takes to be planned."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.copies import write_files
from benchmarks.measuring import Way, command, side_by_side, stager, timed, warm
from benchmarks.places import Place, new_database, write_manifest
from benchmarks.planning import FLAT
from benchmarks.results import Figure, Goal, ratio, time_of
from stager.config import read_config
from stager.copies import Stored, add_bundle
from stager.database import open_database
from transfers.bundles import Entry

SUBJECT = "mass store"
FILES, SIZE = 6048, 1_300_000  # of an ImSim visit
ONE = 1 << 30  # bytes of the bundle that one file is taken out of
MANY, PER_BUNDLE = 1_000_000, 500  # files of the restore that is planned
RUN, BY_HAND = "stager run, in bundles, proven", "by hand: tar, sha256sum, cp, sync, sha256sum -c"
TO_HAND = Goal(1.3)
TO_FILE = Goal(4.0)  # bytes read, of the file's own: it is read to look into, to bring, and back
TO_PLAN = Goal(20.0)


def measure(place: Place) -> Iterator[Figure]:
    """Archive and restore of real files, then a plan of members that only the database has."""
    yield from _archive(place)
    yield from _one_file(place)
    yield from _plan(place)


def _config(folder: Path, source: Path, store: Path) -> Path:
    text = '[stager]\ndatabase = "sqlite:///stager.db"\n'
    for name, root, more in (("a", source, "local"), ("mss", store, "store"), ("b", folder / "back", "local")):
        root.mkdir(parents=True, exist_ok=True)
        text += f'[hosts.{name}]\nkind = "{more}"\nroot = {json.dumps(str(root))}\n'
        text += 'driver = "directory"\n' if more == "store" else ""
    path = folder / "stager.toml"
    path.write_text(text, "utf-8")
    return path


def _prepare(folder: Path, root: Path, store: Path, bundle: dict[str, int]) -> Path:
    for one in (folder, store):
        shutil.rmtree(one, ignore_errors=True)
        one.mkdir()
    new_database(_config(folder, root, store))
    path = write_manifest(folder, "kept", "a:data/**", "mss:data", kind="archive")
    lines = "".join(f"{key} = {value}\n" for key, value in bundle.items())
    path.write_text(path.read_text("utf-8") + f"[bundle]\n{lines}", "utf-8")
    return path


def _archive(place: Place) -> Iterator[Figure]:
    root, store, site, hand = place.new("source"), place.folder / "mss", place.folder / "site", place.folder / "hand"
    made = list(write_files(root, place.sized(FILES, least=3), place.sized(SIZE, least=4096)))

    def prepare() -> None:
        shutil.rmtree(hand, ignore_errors=True)
        hand.mkdir()
        _prepare(site, root, store, {})
        place.settle()
        warm(made)

    ways = [
        Way(RUN, lambda: stager(site / "stager.toml", "run", site / "kept.toml"), prepare),
        Way(BY_HAND, partial(by_hand, root, hand, store), prepare),
    ]
    taken = side_by_side(ways, place.runs)
    what = f"{len(made)} files of {made[0].stat().st_size / 1e6:.1f} MB"
    for name, runs in taken.items():
        yield time_of(SUBJECT, f"{what}: {name}", runs)
    yield ratio(SUBJECT, f"{what}: stager / by hand", taken[RUN], taken[BY_HAND], TO_HAND)
    for folder in (root, store, hand):
        shutil.rmtree(folder)


def by_hand(root: Path, hand: Path, store: Path) -> None:
    """A tar beside the files, its digest, a copy of it on the store, synced, and the digest there."""
    tar = hand / "data.tar"
    command(["tar", "-cf", tar, "-C", root, "data"], root)
    command(["sha256sum", "data.tar"], hand, hand / "sha256sums")
    command(["cp", tar, store], hand)
    command(["sync", "-f", store], store)
    command(["sha256sum", "--quiet", "-c", hand / "sha256sums"], store)


# ----------------------------------------------------------------------------------- one file back


def _one_file(place: Place) -> Iterator[Figure]:
    """Bytes that a process reads for one file of the middle of a bundle, in times of the file's own."""
    size = place.sized(4 << 20, least=4096)
    root, store, site = place.new("source"), place.folder / "mss", place.folder / "site"
    made = list(write_files(root, place.sized(ONE // (4 << 20), least=5), size))
    _prepare(site, root, store, {"bytes": 4 * ONE, "files": 100_000})
    stager(site / "stager.toml", "run", site / "kept.toml")
    wanted = made[len(made) // 2].relative_to(root)
    (bundle,) = store.rglob("*.stager.tar")
    read, seconds = [], []
    for turn in range(place.runs):
        back = write_manifest(site, f"back{turn}", f"mss:{wanted}", f"b:{turn}", kind="restore")
        report = site / "report.json"
        run: list[str | Path] = ["run", back, "-c", site / "stager.toml"]
        seconds.append(timed(partial(measured, site, report, *run)))
        first = json.loads(report.read_text("ascii"))["read"]
        measured(site, report, *run)  # all is done: what it reads now, it reads in any case
        read.append((first - json.loads(report.read_text("ascii"))["read"]) / size)
    what = f"one file of {size / 1e6:.1f} MB out of a bundle of {bundle.stat().st_size / 1e9:.2f} GB"
    yield time_of(SUBJECT, f"{what}: stager run", seconds)
    yield Figure(SUBJECT, f"{what}: bytes read / the file's", "x", tuple(read), goal=TO_FILE)
    for folder in (root, store):
        shutil.rmtree(folder)


def measured(folder: Path, report: Path, *arguments: str | Path) -> None:
    """A command of Stager's; into `report` go the bytes that it read and the peak of its memory."""
    command([sys.executable, "-m", "benchmarks.peak", report, *arguments], folder)


# ------------------------------------------------------------------------------------ planning much


def _plan(place: Place) -> Iterator[Figure]:
    """`stager restore --dry-run` of files in bundles, as far as the database knows; of a tenth of them, and of all."""
    peaks: dict[int, list[float]] = {}
    for count in (place.sized(MANY // 10, least=20), place.sized(MANY, least=200)):
        site, store = place.new("site"), place.new("mss")
        config = _config(site, place.new("source"), store)
        new_database(config)
        _make_members(config, store, count)
        back = write_manifest(site, "back", "mss:data/**", "b:data", kind="restore")
        report = site / "report.json"
        taken = []
        for _ in range(place.runs):
            taken.append(timed(partial(measured, site, report, "restore", back, "--dry-run", "-c", config)))
            peaks.setdefault(count, []).append(json.loads(report.read_text("ascii"))["peak"] / 1e6)
        goal = TO_PLAN if count == MANY else None
        yield time_of(SUBJECT, f"restore --dry-run of {count:,} files in bundles", taken, goal)
        yield Figure(SUBJECT, f"the same, peak memory, {count:,} files", "MB", tuple(peaks[count]))
    few, many = (tuple(values) for values in peaks.values())
    growth = tuple(large / small for small, large in zip(few, many, strict=True))
    yield Figure(SUBJECT, "peak memory of that plan, ten times the files", "x", growth, goal=FLAT)


def _make_members(config: Path, store: Path, count: int) -> None:
    """Bundles that the database takes for stored, each a file of its size. That there is nothing in them, a plan does
    not see."""
    database = open_database(read_config(str(config)).database_url)
    size = 1300  # so that there is room for all of them anywhere
    for number in range(0, count, PER_BUNDLE):
        members = [
            Entry(
                f"data/{one // 1000:04d}/r{one:07d}.dat",
                size,
                10**18,
                f"sha256:{one:064x}",
                512 + size * nth,
            )
            for nth, one in enumerate(range(number, min(number + PER_BUNDLE, count)))
        ]
        path = f"data/visit-{number}.{number:012x}.stager.tar"
        (store / path).parent.mkdir(exist_ok=True)
        (store / path).touch()
        os.truncate(store / path, size * len(members) + 512)
        bundle = Stored(
            "mss", path, f"visit={number}", size * len(members) + 512, f"sha256:{number:064x}", "reread", members
        )
        with database.write() as connection:
            add_bundle(database, connection, bundle)
    database.close()
