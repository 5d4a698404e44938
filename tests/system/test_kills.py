"""SIGKILL at every durable call and at random times: the same end state, no manual step."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stager.samples import write_focal_plane
from tests.system.checker import check
from tests.system.sites import Site
from tests.system.tracing import DURABLE, calls_by_path, kill_at, run_traced

Prepare = Callable[[Site], None]
SAMPLE = 8  # positions of each campaign that are tried in one round


def copying(site: Site) -> None:
    """Four files in two folders, one of them empty, and a trigger."""
    for number, size in enumerate((30_000, 5, 0, 70_001)):
        site.write("lsst10", f"raw/v{number % 2}/f{number}.dat", random.Random(number).randbytes(size))
    path = site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    assert site.run("submit", path.name).code == 0


def chopping(site: Site) -> None:
    """One focal plane into 72 files, and a trigger for its visit."""
    file = site.root("lsst10") / "D3" / "1038843o.fits"
    file.parent.mkdir()
    write_focal_plane(file, rows=33)
    site.remember(file)
    path = site.manifest(
        "job", kind="chop", camera="cfht_megacam", source="lsst10:D3/*o.fits", destination="lsst10:chopped",
        trigger={"queue": "pipeline", "per": ["visit"]},
    )  # fmt: skip
    assert site.run("submit", path.name).code == 0


def archiving(site: Site) -> None:
    """Files of three sizes to the store: two groups in bundles, one file as it is; and a trigger."""
    for number, size in enumerate((30_000, 5, 0, 70_001, 400_000, 12)):
        file = site.write("lsst10", f"raw/f{number}.dat", random.Random(number).randbytes(size))
        os.utime(file, (86400 * (number % 2),) * 2)
        site.remember(file)
    path = site.manifest(
        "job", kind="archive", source="lsst10:raw/**", destination="mss:kept", trigger={"queue": "pipeline"},
        bundle={"per": ["day"], "below": 400_000},
    )  # fmt: skip
    assert site.run("submit", path.name).code == 0


def restoring(site: Site) -> None:
    """What was archived comes back, to another host."""
    archiving(site)
    assert site.run("daemon", "--once").code == 0
    for file in site.root("lsst10").joinpath("raw").iterdir():
        kept = site.root("mss") / "kept" / file.name
        site.sources[kept] = site.sources[file]
    path = site.manifest("back", kind="restore", source="mss:kept/**", destination="abe:again", dataset="back")
    assert site.run("submit", path.name).code == 0


def untouched(site: Site, log: Path) -> tuple[list[tuple[str, str, int]], dict[Path, str]]:
    """Run to the end without a fault: all durable calls as (call, path, how often), and what was made."""
    site.save()
    ended = run_traced(site, log, ["-y", "-e", f"trace={','.join(DURABLE)}"], "daemon", "--once")
    assert ended.code == 0, ended.err
    made = {file: digest for one in check(site) for file, digest in one.files.items()}
    return [(call, path, count) for (call, path), count in sorted(calls_by_path(log).items())], made


def inside(site: Site, path: str) -> bool:
    return path.startswith(str(site.folder))


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("prepare", [copying, chopping, archiving, restoring])
def test_a_kill_at_any_durable_call_loses_nothing(site: Site, tmp_path: Path, rounds: int, prepare: Prepare) -> None:
    prepare(site)
    calls, made = untouched(site, tmp_path / "calls")
    positions = [(call, path, n) for call, path, count in calls if inside(site, path) for n in range(1, count + 1)]
    chosen = random.Random(rounds).sample(positions, min(len(positions), SAMPLE * rounds))
    killed = 0
    for call, path, number in chosen:
        site.restore()
        if kill_at(site, tmp_path / "killed", call, path, number):
            killed += 1
            check(site, reference=made)
    print(f"{prepare.__name__}: {len(positions)} positions, {len(chosen)} tried, {killed} killed")
    assert killed >= len(chosen) // 2, "too few faults fired: another thread makes those calls"


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [{"destination": "abe:new"}, {"kind": "archive", "destination": "mss:kept", "bundle": {"files": 20}}],
    ids=["copy", "bundles"],
)
def test_a_kill_at_any_moment_loses_nothing(site: Site, rounds: int, said: dict[str, Any]) -> None:
    """Kills at random moments, most of them while files move, and again while the daemon recovers."""
    for number in range(200):
        site.write("lsst10", f"raw/v{number % 4}/f{number}.dat", random.Random(number).randbytes(20_000))
    path = site.manifest("job", source="lsst10:raw/**", trigger={"queue": "pipeline"}, **said)
    assert site.run("submit", path.name).code == 0
    site.save()
    chance, within_s = random.Random(rounds), 1.0
    killed = unfinished = 0
    for _ in range(6 * rounds):
        site.restore()
        for _ in range(3):  # the second and the third hit the recovery from the one before
            running = site.start("daemon", "--once")
            time.sleep(chance.uniform(0, within_s))
            running.kill()
            killed += running.end().code == -9
            hit = site.status("job")["state"] != "complete"
            unfinished += hit
            within_s *= 1.2 if hit else 0.7  # how long there is something to hit is the machine's to say
        check(site)
    print(f"{killed} killed, {unfinished} times before all was done")
    assert killed >= 6 * rounds
    assert unfinished >= 4 * rounds


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
def test_a_kill_between_two_pages_of_the_database_loses_nothing(site: Site, tmp_path: Path, rounds: int) -> None:
    copying(site)
    _, made = untouched(site, tmp_path / "calls")
    killed = 0
    for suffix in ("", "-wal", "-shm"):
        for number in random.Random(rounds).sample(range(1, 30), 3 * rounds):
            site.restore()
            if kill_at(site, tmp_path / "killed", "pwrite64", f"{site.folder}/stager.db{suffix}", number):
                killed += 1
                check(site, reference=made)
    assert killed >= rounds, "no fault fired"


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
def test_a_crash_during_recovery_is_recovered_from(site: Site, tmp_path: Path, rounds: int) -> None:
    """Killed in the middle of putting a focal plane's pieces in place, then again and again at the same work."""
    chopping(site)
    _, made = untouched(site, tmp_path / "calls")
    chance = random.Random(rounds)
    folder = str(site.root("lsst10") / "chopped/D3/raw/v1038843-fr/s00")
    for _ in range(2 * rounds):
        site.restore()
        counts = [
            kill_at(site, tmp_path / "killed", "renameat2", folder, chance.randrange(1, 20)),
            kill_at(site, tmp_path / "killed", "fsync", f"{site.folder}/stager.db-wal", chance.randrange(1, 3)),
            kill_at(site, tmp_path / "killed", "fdatasync", f"{site.folder}/stager.db-wal", chance.randrange(1, 3)),
            kill_at(site, tmp_path / "killed", "renameat2", folder, chance.randrange(1, 20)),
        ]
        assert sum(counts) >= 2
        check(site, reference=made)
