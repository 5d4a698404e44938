"""After every fault, the same checker: let Stager converge without the fault, then hold what it says against
the disks, by code that is not Stager's.

Every item that is done hashes right at its destination, every source is there and unchanged, triggers are the
whole groups, one each, inventories pass `sha256sum -c`, the database is sound, no part file and nothing unpacked is
left, nothing outside the roots changed, `stager doctor --deep` agrees, and the percentages are those of the disks.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.system.sites import Site, facts, sha256
from tests.waiting import LATE_S

ROUNDS = 8  # of `daemon --once` before it counts as not converging
OWN = {"marker", "inventories", "quarantine", "scratch"}
BESIDE = {"hosts", "incoming", "scratch", "outside", "stager.toml", "cameras"}


@dataclass
class Found:
    """What the database says of one item, and its files at the destination with their digests."""

    manifest: str
    manifest_id: int
    kind: str
    state: str
    group: int | None
    expected: int
    source: Path
    files: dict[Path, str] = field(default_factory=dict)


def check(site: Site, *, code: int = 0, reference: dict[Path, str] | None = None) -> list[Found]:
    """Converge and check. `code`: the exit code that `daemon --once` must come to; `reference`: the digests that
    files made by a chop must have. What lies in bundles is taken out of them by tar."""
    ended = converge(site)
    assert ended == code, f"`daemon --once` came to {ended}, not {code}: {site.status()}\n{site.running[-1].err}"
    with TemporaryDirectory() as folder:
        site.views = {host: _view(site, host, Path(folder) / host) for host in site.hosts}
        try:
            return _check(site, reference or {})
        finally:
            site.views = {}


def _view(site: Site, host: str, view: Path) -> Path:
    """The host's root, or where it has bundles a folder in which these are unpacked beside links to its files."""
    root = site.root(host)
    bundles = sorted(root.rglob("*.stager.tar"))
    if not bundles:
        return root
    view.mkdir()
    for bundle in bundles:
        subprocess.run(["tar", "-xf", bundle, "-C", view], check=True)
    shutil.rmtree(view / ".stager")
    for file in root.rglob("*"):
        there = view / file.relative_to(root)
        if file.is_file() and not file.name.endswith((".stager.tar", ".stager.tar.index")):
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(file)
    return view


def _check(site: Site, reference: dict[Path, str]) -> list[Found]:
    with connection(site) as reading:
        found = _items(reading, site)
        triggers = list(reading(_TRIGGERS))
        wanted = {row[0] for row in reading(_WHOLE)}
        if site.database.startswith("sqlite"):
            assert list(reading("PRAGMA integrity_check")) == [("ok",)]
        running = list(reading("SELECT id FROM items WHERE state = 'running' OR worker IS NOT NULL"))
        bundles = {site.root(host) / decoded(path) for host, path in reading("SELECT host, path FROM bundles")}
        packing = list(reading("SELECT path FROM bundles WHERE state <> 'stored'"))
    assert not running, f"leases are left: {running}"
    assert not packing, f"bundles are left that nobody packs: {packing}"
    _check_files(site, found, reference, bundles)
    _check_triggers(site, found, triggers, wanted)
    _check_percentages(site, found)
    doctor = site.run("doctor", "--deep")
    assert doctor.code == 0, doctor.out + doctor.err
    return found


def converge(site: Site) -> int:
    """Run `daemon --once` until it says that nothing more comes of it; its exit code."""
    for _ in range(ROUNDS):
        ended = site.run("daemon", "--once", timeout=2 * LATE_S)
        assert "Traceback" not in ended.err, ended.err
        if ended.code != 3:
            break
        time.sleep(0.2)
    return ended.code


@contextmanager
def connection(site: Site) -> Iterator[Any]:
    """A function that runs a query on the site's database, by the database's own driver."""
    if site.database.startswith("sqlite"):
        opened: Any = sqlite3.connect(site.folder / "stager.db", timeout=LATE_S, isolation_level=None)
    else:
        import psycopg

        opened = psycopg.connect(site.database.replace("+psycopg", ""), autocommit=True)
    try:
        yield lambda query: opened.execute(query).fetchall()
    finally:
        opened.close()


_ITEMS = """
    SELECT m.name, m.id, m.kind, i.state, i.group_id, i.files, m.source_host, i.source, m.destination_host,
           i.destination, i.id
    FROM items i JOIN manifests m ON m.id = i.manifest_id WHERE m.intent IN ('active', 'held')"""
_TRIGGERS = "SELECT group_id, host, inventory, state, data, manifest_id FROM triggers"
_WHOLE = """
    SELECT g.id FROM groups g JOIN manifests m ON m.id = g.manifest_id WHERE m.intent = 'active'"""


def _items(reading: Any, site: Site) -> list[Found]:
    pieces: dict[int, list[str]] = {}
    for item, path in reading("SELECT piece_of, path FROM copies WHERE piece_of IS NOT NULL"):
        pieces.setdefault(item, []).append(decoded(path))
    found = []
    for name, manifest_id, kind, state, group, files, host, source, to_host, destination, item in reading(_ITEMS):
        one = Found(name, manifest_id, kind, state, group, files, site.root(host) / decoded(source))
        paths = pieces.get(item, []) if kind == "chop" else [decoded(destination)]
        if state == "done":
            one.files = {site.root(to_host) / path: "" for path in paths}
        found.append(one)
    return found


def decoded(path: str) -> str:
    """A path as the database keeps it: a backslash doubled, a byte that is no UTF-8 as \\xff."""

    def plain(found: re.Match[str]) -> str:
        return "\\" if found[1] == "\\" else chr(0xDC00 + int(found[1][1:], 16))

    return re.sub(r"\\(\\|x[0-9a-f]{2})", plain, path)


def listed(line: bytes) -> str:
    """The name in a line of sha256sum's, which begins with a backslash where characters of it are escaped."""
    name = line[66:]
    if line.startswith(b"\\"):
        name = re.sub(rb"\\([\\nr])", lambda found: {b"n": b"\n", b"r": b"\r"}.get(found[1], b"\\"), line[67:])
    return os.fsdecode(name)


def at(site: Site, file: Path) -> Path:
    """Where the bytes of a host's file are to be read."""
    hosts = site.folder / "hosts"
    if hosts not in file.parents:
        return file
    host = file.relative_to(hosts).parts[0]
    return site.views[host] / file.relative_to(site.root(host))


def _check_files(site: Site, found: list[Found], reference: dict[Path, str], bundles: set[Path]) -> None:
    for one in found:
        if one.state != "done":
            continue
        assert len(one.files) == one.expected
        for file in one.files:
            one.files[file] = sha256(at(site, file))
            made_of = reference[file] if one.kind == "chop" and reference else None
            expected = one.files[file] if one.kind == "chop" else site.sources[one.source][0]
            assert one.files[file] == (made_of or expected), f"{file} is not what its source holds"
    for file, known in site.sources.items():
        assert facts(at(site, file)) == known, f"{file} was changed"
    landed = {file for one in found for file in one.files}
    assert all(bundle.is_file() for bundle in bundles)
    landed |= bundles | {bundle.with_name(bundle.name + ".index") for bundle in bundles}
    for host in site.hosts:
        root = site.root(host)
        there = {file for file in root.rglob("*") if file.is_file() and file.relative_to(root).parts[0] != ".stager"}
        extra = there - landed - set(site.sources)
        assert not extra, f"files that nobody proved: {sorted(map(str, extra))[:5]}"
        assert not list(root.rglob("*.part")), "part files are left"
        assert {file.name for file in root.glob(".stager/*")} <= OWN
        assert not list(root.glob(".stager/scratch/*")), "an unpacked focal plane is left"
    manifests = {file.name for file in site.folder.glob("*.toml")} | {file.name for file in site.folder.glob("*.txt")}
    database = {file.name for file in site.folder.glob("stager.db*")}
    assert {file.name for file in site.folder.iterdir()} <= BESIDE | manifests | database
    assert [file.name for file in (site.folder / "outside").iterdir()] == ["witness"]
    assert not list(site.folder.glob("scratch/unpacked*"))


def _check_triggers(site: Site, found: list[Found], triggers: list[Any], wanted: set[int]) -> None:
    members: dict[int, list[Found]] = {}
    for one in found:
        if one.group is not None and one.group in wanted:
            members.setdefault(one.group, []).append(one)
    whole = {
        group
        for group, items in members.items()
        if any(one.state == "done" for one in items) and all(one.state in ("done", "excluded") for one in items)
    }
    current = {one.manifest_id for one in found}
    mine = [trigger for trigger in triggers if trigger[5] in current]
    assert Counter(trigger[0] for trigger in mine) == Counter(whole), "triggers are not the whole groups, one each"
    for group, host, inventory, state, _, _ in mine:
        assert state != "pending", "a trigger's inventory did not come"
        path = site.root(host) / inventory.partition(":")[2]
        proof = subprocess.run(
            ["sha256sum", "--check", "--quiet", "--strict", path],
            cwd=site.views[host], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert proof.returncode == 0, proof.stdout + proof.stderr
        named = {site.root(host) / listed(line) for line in path.read_bytes().split(b"\n") if line}
        assert named == {file for one in members[group] for file in one.files}


def _check_percentages(site: Site, found: list[Found]) -> None:
    rows = site.status()["datasets"]
    for row in rows:
        mine = [one for one in found if one.manifest == row["manifest"]]
        done = [file for one in mine for file in one.files]
        size = sum(at(site, file).stat().st_size for file in done)
        files = sum(one.expected for one in mine if one.state != "excluded")
        assert (row["files"]["done"], row["files"]["total"]) == (len(done), files)
        assert row["bytes"]["done"] == size
        total = row["bytes"]["total"]
        share = size / total if total else len(done) / files if files else 1.0
        expected = 100.0 if len(done) == files else min(99.9, math.floor(share * 1000) / 10)
        assert row["percent"] == expected
        assert (row["state"] == "complete") == (len(done) == files)
