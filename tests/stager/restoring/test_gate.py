"""The gate beside others: a daemon that does the work, a process that dies, signals, kill -9, a store on tape."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stager import intents
from stager.daemon import Daemon
from stager.database import DaemonLock
from stager.restoring import carrying, planning
from stager.restoring.asked import Asked
from stager.restoring.gate import Gate, Limits
from stager.restoring.judging import Verdict
from stager.restoring.progress import Bar, Lines, Silent
from tests.stager.conftest import Stager
from tests.stager.recalls.tapes import Tapes
from tests.stager.site import Site
from tests.waiting import LATE_S, until

SAID: dict[str, Any] = {"kind": "restore", "source": "mss:raw/**", "destination": "b:raw", "trigger": None}


def command(site: Site, *words: str) -> subprocess.Popen[str]:
    """`stager restore` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stager", "restore", *words, "-c", str(site.folder / "stager.toml")],
        cwd=Path(__file__).resolve().parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(site: Site, **limits: Any) -> Verdict:
    """The gate on the manifest m, in this process."""
    asked = [Asked(site.manifest(**SAID), "m.toml")]
    plans = planning.plan(site.database, site.config, site.hosts, asked)
    return Gate(site.database, site.config, site.hosts, Limits(**limits), lambda line: None, Silent()).run(asked, plans)


def short_runs(site: Site, came_to: Callable[[Verdict], object]) -> Verdict:
    """Runs of a few seconds, until one has come to that: how far it comes in them is the machine's to say."""

    def another() -> Verdict | None:
        verdict = run(site, timeout_s=4)
        assert verdict.code == 3
        return verdict if came_to(verdict) else None

    found = until(another, site.states)
    assert found is not None
    return found


def test_on_both_databases_the_end_is_the_same(site: Site, stager: Stager) -> None:
    site.files(*(f"mss:raw/{number}" for number in range(20)))
    site.manifest(**SAID)
    assert stager("restore", "m.toml").code == 0
    for number in range(10):
        site.path(f"b:raw/{number}").unlink()
    site.path("b:raw/15").write_text("spoilt")
    said = json.loads(stager("restore", "m.toml", "--json").out)
    assert (said["code"], said["brought"]["files"], said["proof"]["gone"], said["proof"]["corrupt"]) == (0, 11, 10, 1)
    said = json.loads(stager("restore", "m.toml", "--json").out)
    assert (said["brought"]["files"], said["proof"]["read"]["files"]) == (0, 20)


# -------------------------------------------------------------------------------------- a daemon beside


@contextmanager
def daemon(site: Site) -> Iterator[Daemon]:
    """A daemon that has the database."""
    lock = DaemonLock(site.database)
    assert lock.acquire()
    worker = Daemon(site.database, site.config, spool=False)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join()
        lock.release()


def test_beside_a_daemon_that_does_the_work(sqlite_site: Site) -> None:
    sqlite_site.files(*(f"mss:raw/{number}" for number in range(5)))
    with daemon(sqlite_site) as worker:
        assert run(sqlite_site).code == 0
        until(lambda: worker.progress.items == 5)  # counted just after it is written
        sqlite_site.path("b:raw/3").unlink()
        sqlite_site.path("b:raw/4").write_text("spoilt")
        verdict = run(sqlite_site)
        assert (verdict.code, verdict.brought.files) == (0, 2)
        until(lambda: worker.progress.items == 7)


def test_too_little_room_is_seen_before_a_daemon_could_begin(sqlite_site: Site) -> None:
    site = sqlite_site
    site.files("mss:raw/1")
    full = site.config.hosts["b"].model_copy(update={"floor": 1 << 60})
    site.config = site.config.model_copy(update={"hosts": site.config.hosts | {"b": full}})
    with daemon(site):
        verdict = run(site)
        assert verdict.code == 1
        assert "make room" in verdict.problems[0]
    assert site.value("SELECT count(*) FROM items") == 0


def test_what_a_process_that_died_had_taken_on_is_taken_over(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "TAKE_OVER_S", 0.3)
    sqlite_site.files("mss:raw/1", "mss:raw/2")
    code = (
        "import sys, time; from stager.database import Database, DaemonLock\n"
        "lock = DaemonLock(Database(sys.argv[1])); assert lock.acquire(); print('held', flush=True); time.sleep(600)"
    )
    url = sqlite_site.database.url.render_as_string()
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert run(sqlite_site, timeout_s=0.6).code == 3  # it watches, and nobody works
        killer = threading.Timer(0.5, other.kill)
        killer.start()
        verdict = run(sqlite_site)
        killer.join()
    assert verdict.code == 0
    assert verdict.brought.files == 2


# ------------------------------------------------------------------------------- signals and kill -9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_came_so_far(sqlite_site: Site, number: signal.Signals) -> None:
    sqlite_site.files("mss:raw/1")
    sqlite_site.manifest(**SAID)
    intents.pause(sqlite_site.database, "b", None)
    process = command(sqlite_site, str(sqlite_site.folder / "m.toml"))
    until(lambda: sqlite_site.rows("SELECT 1 FROM workers"))
    process.send_signal(number)
    out, err = process.communicate(timeout=LATE_S)
    assert process.returncode == 3, out + err
    assert "it was stopped at 0.0 %: 0 of 1 file, " in out
    assert "Traceback" not in err


def goes_on(site: Site, done: int) -> bool:
    """Whether more items are done than so many."""
    return bool(site.value("SELECT count(*) > :done FROM items WHERE state = 'done'", done=done))


def test_killed_at_any_time_it_comes_to_the_same_end(sqlite_site: Site) -> None:
    site = sqlite_site
    chance = random.Random(5)
    for number in range(400):
        site.file(f"mss:raw/v{number % 7}/{number}", chance.randbytes(20_000 if number % 20 else 4_000_000))
    with (site.folder / "stager.toml").open("a") as config:  # so slowly that it is not done before it is killed
        config.write('\n[routes."mss > b"]\nbytes_per_s = 10_000_000\n')
    site.manifest(**SAID)
    killed = 0
    for turn in range(4):
        done = site.value("SELECT count(*) FROM items WHERE state = 'done'")
        process = command(site, str(site.folder / "m.toml"), "--quiet")
        until(lambda process=process, done=done: goes_on(site, done) or process.poll() is not None)
        time.sleep(chance.random() * 0.5 * (turn + 1) / 4)
        process.kill()
        process.communicate(timeout=LATE_S)
        killed += process.returncode == -signal.SIGKILL
        if turn == 2:
            proven = site.rows("SELECT path FROM copies WHERE host = 'b' AND path LIKE '%3' ORDER BY path LIMIT 3")
            for (path,) in proven:  # what landed and is not known to be proven yet would be another's file
                site.path(f"b:{path}").write_bytes(b"spoilt meanwhile")
    assert killed >= 2  # else nothing was tried
    process = command(site, str(site.folder / "m.toml"), "--json")
    out, err = process.communicate(timeout=LATE_S)
    assert process.returncode == 0, out + err
    (manifest,) = json.loads(out)["manifests"]
    assert (manifest["files"]["total"], manifest["files"]["done"]) == (400, 400)
    for path in site.path("mss:raw").rglob("*"):
        if path.is_file():
            assert site.path(f"b:raw/{path.relative_to(site.path('mss:raw'))}").read_bytes() == path.read_bytes()
    assert list(site.path("b:raw").rglob("*.part")) == []


# ------------------------------------------------------------------------------------------- on tape


@pytest.fixture
def tapes(sqlite_site: Site) -> Tapes:
    made = Tapes(sqlite_site)
    sqlite_site.change("INSERT INTO hosts (name, paused) VALUES ('mss', :no)", no=False)  # as opening it does
    return made


def test_what_is_on_tape_is_recalled_and_waited_for(tapes: Tapes) -> None:
    for number in range(6):
        tapes.put(f"raw/{number}", f"T{number % 2}")
    tapes.put("raw/online")
    verdict = run(tapes.site)
    assert (verdict.code, verdict.brought.files) == (0, 7)
    assert sorted(tapes.requests()) == [f"raw/{number}" for number in range(6)]
    tapes.migrate("raw/1", "T1")
    assert run(tapes.site).code == 0
    assert len(tapes.requests()) == 6  # what is in place is not recalled


def test_a_tape_that_does_not_come_costs_the_time_that_is_given_and_holds_up_no_other(tapes: Tapes) -> None:
    tapes.put("raw/good", "T1")
    tapes.put("raw/stuck", "T2")
    tapes.bad("T2")
    verdict = short_runs(tapes.site, lambda verdict: tapes.site.states()["raw/good"] == "done")
    assert tapes.site.states() == {"raw/good": "done", "raw/stuck": "waiting"}
    (entry,) = verdict.manifests[0].entries
    assert entry.state == "waiting"
    assert "waits for mss to bring raw/stuck back from tape (volume T2)" in entry.reason
    tapes.mark("raw/stuck", state="resident")
    assert run(tapes.site, timeout_s=LATE_S).code == 0


def test_a_file_that_the_store_has_lost_closes_the_gate_and_is_named(tapes: Tapes) -> None:
    tapes.put("raw/good", "T1")
    tapes.put("raw/lost", "T2")
    tapes.mark("raw/lost", state="lost")
    verdict = run(tapes.site)
    assert verdict.code == 1
    (entry,) = verdict.manifests[0].entries
    assert (entry.state, entry.location) == ("held", "b:raw/lost")
    assert "lost on the store" in entry.reason


def test_what_the_store_refused_is_told_with_its_reason(tapes: Tapes) -> None:
    tapes.put("raw/refused", "T1")
    tapes.control("refuse", "/raw/refused")
    verdict = short_runs(tapes.site, lambda verdict: "refused it" in verdict.manifests[0].entries[0].reason)
    (entry,) = verdict.manifests[0].entries
    assert entry.reason.startswith(
        "waits for mss to bring raw/refused back from tape (volume T1); the store refused it"
    )
    assert "stage refused" in entry.reason


def test_what_goes_while_others_are_waited_for_is_brought_again(tapes: Tapes) -> None:
    tapes.put("raw/online", data=b"as it was")
    tapes.put("raw/late", "T1")
    tapes.bad("T1")
    place, site = tapes.site.path("b:raw/online"), tapes.site

    def remove() -> None:
        until(lambda: site.states().get("raw/online") == "done")
        place.unlink()
        tapes.mark("raw/late", state="resident")

    thread = threading.Thread(target=remove)
    thread.start()
    verdict = run(site, timeout_s=LATE_S)
    thread.join()
    assert (verdict.code, verdict.brought.files) == (0, 3)
    assert place.read_bytes() == b"as it was"


def test_what_cannot_be_read_at_the_end_closes_the_gate(tapes: Tapes) -> None:
    tapes.put("raw/online")
    tapes.put("raw/late", "T1")
    tapes.bad("T1")
    place, site = tapes.site.path("b:raw/online"), tapes.site

    def spoil() -> None:
        until(lambda: site.states().get("raw/online") == "done")
        place.unlink()
        place.mkdir()
        tapes.mark("raw/late", state="resident")

    thread = threading.Thread(target=spoil)
    thread.start()
    verdict = run(site, timeout_s=LATE_S)
    thread.join()
    assert verdict.code == 1
    assert "b:raw/online" in str(verdict.problems)


class UntilOutOfTime(Silent):
    """Everything is in place, and then the time runs out."""

    def tell(self, what: str, percent: float, said: str, *, seconds: float | None = None) -> None:
        if percent == 100.0:
            time.sleep(3)


def test_time_that_runs_out_before_the_last_look_leaves_the_gate_shut(sqlite_site: Site) -> None:
    site = sqlite_site
    site.files("mss:raw/1")
    asked = [Asked(site.manifest(**SAID), "m.toml")]
    plans = planning.plan(site.database, site.config, site.hosts, asked)
    limits = Limits(timeout_s=3)
    verdict = Gate(site.database, site.config, site.hosts, limits, lambda line: None, UntilOutOfTime()).run(
        asked, plans
    )
    assert (verdict.code, verdict.manifests[0].holds) == (3, True)
    assert verdict.problems == ["what is in place was not looked at once more at the end"]
    assert run(site).code == 0


# ----------------------------------------------------------------------------------------- progress


def test_lines_come_at_the_beginning_of_each_thing_and_then_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(Console(stderr=True), every_s=1000) as lines:
        lines.tell("reading again", 1.0, "1 file")
        lines.tell("reading again", 2.0, "2 files")
        lines.tell("in place", 99.9, "9 of 10 [red]files[/red]", seconds=90)
        lines.tell("in place", 100.0, "10 of 10 files")
    assert capsys.readouterr().err.splitlines() == [
        "reading again: 1.0 %, 1 file",
        "in place: 99.9 %, 9 of 10 [red]files[/red], 2 min left",
    ]


def test_on_a_narrow_terminal_the_percent_and_the_time_that_is_left_are_told() -> None:
    out = io.StringIO()
    with Bar(Console(file=out, force_terminal=True, width=80)) as bar:
        said = "17 of 40 files, 11.9 MB of 14 MB, 385 kB/s, 7 files of the store on their way from tape"
        bar.tell("reading again", 84.7, said, seconds=90)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n").strip().splitlines()[-1]
    assert re.fullmatch(r"reading again \S+ +84\.7 %, 2 min left, 17 of 40 files.*…", last)
    assert len(last) <= 80
