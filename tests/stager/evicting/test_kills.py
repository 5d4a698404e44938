"""SIGKILL at every durable call of an eviction: each file is where its tombstone says, or where it was."""

from __future__ import annotations

import ctypes
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from manifests.parts import Location
from stager.database import open_database
from stager.evicting import purging
from stager.evicting.candidates import Named
from tests.stager.evicting.places import (
    KB,
    Disks,
    check_all,
    content,
    copies,
    disks,
    evict,
    left,
    quarantined,
    three,
    tombstones,
)
from tests.stager.site import Site
from tests.system.preloaded import ANYBODY, PR_SET_PTRACER
from tests.system.tracing import DURABLE, calls_by_path, traced

NAMES = ("1", "2", "3", "4")
SAMPLE = int(os.environ.get("STAGER_TEST_ROUNDS", "1")) * 6  # positions of each campaign that are tried
Work = Callable[[Site], object]


def evicting(site: Site) -> None:
    evict(site, 4 * KB, grace_s=0.0)


def removing(site: Site) -> None:
    purging.purge(site.database, disks(site))


def putting_back(site: Site) -> None:
    purging.put_back(site.database, disks(site), Named("b", Location("b", "")))


def in_child(site: Site, work: Work, log: Path, *options: str) -> int:
    """Do the work in a process of its own, under strace from its first call; how it ended (negative: by a signal)."""
    url = site.database.url.render_as_string(hide_password=False)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # it has the imports of this one already; of its open databases it touches none
        code = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)
            os.close(writing)
            os.read(reading, 1)
            work(Site(site.folder, open_database(url), site.config))
            code = 0
        finally:
            os._exit(code)
    os.close(reading)
    with traced(child, log, *options):
        os.close(writing)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def strace(program: Callable[[str], str], require: Callable[[str], NoReturn]) -> None:
    import subprocess

    tried = subprocess.run([program("strace"), "-o", os.devnull, "true"], capture_output=True, check=False)
    if tried.returncode:
        require("strace may not trace here")


def check(site: Site) -> None:
    """What is at its place is listed there; what is not lies in quarantine with its tombstone, or was removed."""
    there = left(site, "b:new")
    states = {path.removeprefix("new/"): state for path, state in tombstones(site)}
    assert copies(site) == [f"new/{name}" for name in there]
    away = [name for name in NAMES if states.get(name) == "quarantined"]
    gone = [name for name in NAMES if states.get(name) == "removed"]
    assert sorted([*there, *away, *gone]) == list(NAMES)
    assert sorted(name.partition("-")[2] for name in quarantined(site)) == away
    for name in there:
        assert site.path(f"b:new/{name}").read_bytes() == content(name)
    for name in NAMES:
        assert site.path(f"c:also/{name}").read_bytes() == site.path(f"mss:kept/{name}").read_bytes() == content(name)
    check_all(site)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("work", [evicting, removing, putting_back])
def test_a_kill_at_any_durable_call_loses_nothing(site: Site, tmp_path: Path, work: Work) -> None:
    three(site, *NAMES)
    for host in disks(site).config.hosts:  # their markers are made before, which are none of eviction's
        disks(site)[host].space()
    if work is not evicting:
        evicting(site)
    positions = counted(site, tmp_path, work)
    chosen = random.Random(SAMPLE).sample(positions, min(SAMPLE, len(positions)))
    killed = 0
    for call, path, turn in chosen:
        begin_again(site, work)
        options = ("-e", f"trace={call}", "-P", path, "-e", f"inject={call}:signal=KILL:when={turn}")
        code = in_child(site, work, tmp_path / "killed", *options)
        assert code in (0, -signal.SIGKILL), (call, path, turn)
        killed += code == -signal.SIGKILL
        again = Site(site.folder, site.database, site.config)
        purging.purge(again.database, Disks(again.database, again.config))  # whoever comes next
        if work is not putting_back:
            evict(again, 1, "b:nothing")
        check(again)
    print(f"{work.__name__}: {len(positions)} positions, {len(chosen)} tried, {killed} killed")
    assert killed >= len(chosen) // 2, "too few faults fired"


def counted(site: Site, tmp_path: Path, work: Work) -> list[tuple[str, str, int]]:
    """All durable calls of the work, done without a fault: call, path, how often before."""
    log = tmp_path / "calls"
    assert in_child(site, work, log, "-y", "-e", f"trace={','.join(DURABLE)}") == 0
    calls = calls_by_path(log)
    inside = [(call, path, count) for (call, path), count in sorted(calls.items()) if str(site.folder) in path]
    assert inside
    return [(call, path, turn) for call, path, count in inside for turn in range(1, count + 1)]


def begin_again(site: Site, work: Work) -> None:
    """The site as it was before the work."""
    site.change("DELETE FROM evictions")
    site.change("DELETE FROM copies")
    for host, folder in (("b", "new"), ("b", ".stager/quarantine/evicted"), ("c", "also"), ("mss", "kept")):
        for file in site.path(f"{host}:{folder}").glob("*"):
            file.unlink()
    three(site, *NAMES)
    if work is not evicting:
        evicting(site)
