"""The restore as a gate, on each kind of store, its process killed at random: the same end, and 0 only then."""

from __future__ import annotations

import os
import random
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from stager.demo import tape
from tests.rclone import Broken, Rclone
from tests.sshd import Sshd
from tests.system.sites import Site, keys
from tests.tapes import Tapes
from tests.waiting import LATE_S, until

SIZES = (0, 5, 30_000, 120_000, 130_001, 700_000)
FILES = 40
KINDS = ["directory", "ssh", "tape", "s3"]
Prepare = Callable[[Site, ExitStack], None]


def _mss(site: Site, table: dict[str, Any], parts: dict[str, dict[str, Any]]) -> None:
    """Have the store described so, instead of as a folder."""
    del site.hosts["mss"]
    text = f"[hosts.mss]\n{keys({'kind': 'store', **table})}"
    for name, values in parts.items():
        text += f"[hosts.mss.{name}]\n{keys(values)}"
    site.more += text
    site.configure()


@pytest.fixture(params=KINDS)
def stored(
    request: pytest.FixtureRequest, site: Site, require: Callable[[str], NoReturn]
) -> Iterator[tuple[Site, Callable[[], None]]]:
    """A site with a store of each kind, and what the store does by itself before a restore."""
    with ExitStack() as stack:
        meanwhile: Callable[[], None] = _nothing
        if request.param == "ssh":
            server: Sshd = request.getfixturevalue("sshd")
            site.over_ssh(server, "mss")
        elif request.param == "tape":
            state = site.folder / "tapes"
            (state / "files" / "mss").mkdir(parents=True)
            commands = stack.enter_context(Tapes()).commands(state)
            _mss(site, {"driver": "command", "root": "/mss", "recall_s": 5.0}, {"commands": commands})
            meanwhile = lambda: _to_tape(state)  # noqa: E731  a name for one of the four
        elif request.param == "s3":
            try:
                served = stack.enter_context(Rclone.start(site.folder / "s3"))
            except Broken as error:
                require(str(error))
            served.make_bucket("survey")
            keys = site.folder / "keys"
            keys.write_text(f"access_key_id = {served.key}\nsecret_access_key = {served.secret}\n")
            bucket = {"bucket": "survey", "endpoint": served.endpoint, "credentials": str(keys), "region": "other"}
            _mss(site, {"driver": "s3", "root": "/lsst"}, {"s3": bucket})
        yield site, meanwhile


def _nothing() -> None:
    """A store of disks changes nothing by itself."""


def _to_tape(state: Path) -> None:
    for words in (["set", "latency", "0.02"], ["migrate", "--all"]):
        assert tape.main(["--state", str(state), *words]) == 0


def _archived(site: Site) -> dict[str, bytes]:
    """Files of mixed sizes, small ones in bundles, and nothing of them left at the host that they come back to."""
    made = {}
    for number in range(FILES):
        name = f"d{number % 3}/f{number}.dat"
        made[name] = random.Random(number).randbytes(SIZES[number % len(SIZES)])
        file = site.write("lsst10", f"raw/{name}", made[name])
        os.utime(file, (86400 * (number % 4),) * 2)
        site.remember(file)
    path = site.manifest(
        "kept",
        kind="archive",
        source="lsst10:raw/**",
        destination="mss:kept",
        bundle={"per": ["day"], "below": 500_000},
    )
    said = site.run("run", path.name)
    assert said.code == 0, said.out + said.err
    return made


def _came_back(site: Site) -> dict[str, bytes]:
    root = site.root("abe") / "again"
    files = (file for file in root.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def _until_in_place(site: Site, enough: int) -> None:
    """Until the gate has put that many files in their places: how long it takes is the machine's."""
    until(lambda: len(_came_back(site)) >= enough, pause_s=0.001)


@pytest.mark.slow
def test_a_gate_that_is_killed_opens_only_when_all_is_there(
    stored: tuple[Site, Callable[[], None]], rounds: int
) -> None:
    site, meanwhile = stored
    made = _archived(site)
    meanwhile()
    path = site.manifest("back", kind="restore", source="mss:kept/**", destination="abe:again", dataset="back")
    planned = site.run("restore", path.name, "--dry-run", "--json")
    assert planned.code == 0, planned.out + planned.err
    assert _came_back(site) == {}
    chance, killed = random.Random(rounds), 0
    for number in range(4 * rounds):
        running = site.start("restore", path.name, "--quiet")
        if number % 2:
            time.sleep(chance.uniform(0.1, 2.5))
        else:
            _until_in_place(site, min(len(_came_back(site)) + chance.randint(1, FILES // 4), FILES))
        running.kill()
        ended = running.end()
        killed += ended.code == -9
        assert ended.code in (-9, 0)
        assert ended.code != 0 or _came_back(site) == made, "it opened before all was there"
    assert killed, "none was killed"
    ended = site.run("restore", path.name, "--json", timeout=2 * LATE_S)
    assert ended.code == 0, ended.out + ended.err
    assert _came_back(site) == made
    before = {file: file.stat().st_ino for file in (site.root("abe") / "again").rglob("*") if file.is_file()}
    assert site.run("restore", path.name, "--quiet").code == 0
    assert {file: file.stat().st_ino for file in before} == before, "what was in place was brought again"


@pytest.mark.slow
def test_a_gate_stays_shut_for_what_is_spoilt_on_the_store(stored: tuple[Site, Callable[[], None]]) -> None:
    site, meanwhile = stored
    made = _archived(site)
    roots = [site.folder / "hosts" / "mss", site.folder / "tapes" / "files", site.folder / "s3" / "served"]
    (bundle, *_) = sorted(file for root in roots if root.exists() for file in root.rglob("*.stager.tar"))
    data = bytearray(bundle.read_bytes())
    with tarfile.open(bundle) as tar:
        spoilt = next(one for one in tar if one.size >= 30_000 and one.name.startswith("kept/"))
    data[spoilt.offset_data + 100] ^= 1
    info = bundle.stat()
    bundle.write_bytes(data)
    os.utime(bundle, ns=(info.st_atime_ns, info.st_mtime_ns))
    meanwhile()
    path = site.manifest("back", kind="restore", source="mss:kept/**", destination="abe:again", dataset="back")
    ended = site.run("restore", path.name, timeout=2 * LATE_S)
    assert ended.code == 1, ended.out + ended.err
    there = _came_back(site)
    assert len(there) == len(made) - 1, "one bad member kept others back"
    assert all(made[name] == data for name, data in there.items())
    assert made.keys() - there.keys() == {spoilt.name.removeprefix("kept/")}
    assert spoilt.name in ended.out + ended.err


# ------------------------------------------------------------------- a store that says nothing any more

SILENT = """
echo >> "$0.calls"
if [ "$(wc -l < "$0.calls")" -gt "$(cat "$0.most")" ]; then echo $$ >> "$0.pids"; exec sleep 10000; fi
exec "$@"
"""


@pytest.fixture
def silent(site: Site) -> Iterator[Callable[[int], None]]:
    """A site with a store of commands that has a file, and what lets it answer so many listings and no more."""
    state, script = site.folder / "tapes", site.folder / "list"
    (state / "files" / "mss" / "kept").mkdir(parents=True)
    (state / "files" / "mss" / "kept" / "a").write_bytes(b"data")
    script.write_text(SILENT)

    def after(listings: int) -> None:
        (site.folder / "list.calls").write_text("")
        (site.folder / "list.most").write_text(str(listings))

    with Tapes() as tapes:
        commands = tapes.commands(state)
        commands["list"] = ["/bin/sh", str(script), *commands["list"]]
        _mss(site, {"driver": "command", "root": "/mss"}, {"commands": commands})
        after(1000)
        assert site.run("hosts", "--check").code == 0
        site.manifest("back", kind="restore", source="mss:kept/**", destination="abe:again", dataset="back")
        yield after
    for pid in (site.folder / "list.pids").read_text().split():  # what was cut off left its command, as kill -9 does
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def test_a_time_that_runs_out_while_a_store_is_listed_ends_it(site: Site, silent: Callable[[int], None]) -> None:
    silent(0)
    every = [site.start("restore", "back.toml", "--timeout", "1", "--json", *more) for more in ([], ["--dry-run"])]
    for ended in [running.end() for running in every]:
        assert ended.code == 3, ended.out + ended.err
        assert ended.json()["code"] == 3
        assert "there was no time to see how it stands" in ended.out


def test_a_time_that_runs_out_while_files_are_submitted_ends_it(site: Site, silent: Callable[[int], None]) -> None:
    silent(1000)
    assert site.run("restore", "back.toml", "--dry-run").code == 0
    silent((site.folder / "list.calls").read_text().count("\n"))
    ended = site.run("restore", "back.toml", "--timeout", "4", "--quiet")
    assert ended.code == 3, ended.out + ended.err
    assert ended.out.splitlines()[-1].startswith("the time ran out; 0 brought")
    silent(1000)
    assert site.run("restore", "back.toml", "--quiet").code == 0, "it does not go on where it stopped"
    assert _came_back(site) == {"a": b"data"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_store_is_listed_ends_it_at_once(
    site: Site, silent: Callable[[int], None], number: signal.Signals
) -> None:
    silent(0)
    running = site.start("restore", "back.toml", "--json")
    site.until((site.folder / "list.calls").read_text)
    running.kill(number)
    ended = running.end()  # the store would answer in hours
    assert (ended.code, ended.json()["ended"]) == (3, "it was stopped"), ended.out + ended.err
