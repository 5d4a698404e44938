"""`stager evict` as it is typed, with a store on another file system than the rest."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stager.conftest import Stager
from tests.stager.evicting.places import KB, check_all, content, copies, known, left, quarantined, spread
from tests.stager.site import Site
from tests.waiting import LATE_S

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def url(made_sqlite: str) -> str:
    """On SQLite alone: what is typed and told has nothing to do with the database."""
    return made_sqlite


def two(site: Site, *names: str) -> None:
    """Copies of each at b and at the store: one other, at the store, is what `--copies 1` asks for."""
    for number, name in enumerate(names):
        known(site, f"b:new/{name}", f"mss:kept/{name}", data=content(name), arrived_at=1.0 + number)


def test_it_evicts_what_is_proven_elsewhere(site: Site, stager: Stager) -> None:
    two(site, "1", "2", "3")
    said = stager("evict", "b:", "--to-free", "1500", "--copies", "1", "--yes")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "b:new/1  1 kB, proven at mss",
        "b:new/2  1 kB, proven at mss",
        "2 files, 2 kB of 1.5 kB, are in quarantine, for 24 h 0 min",
    ]
    assert (left(site, "b:new"), len(quarantined(site))) == (["3"], 2)
    check_all(site)


def test_too_little_is_told_with_every_reason(site: Site, stager: Stager) -> None:
    two(site, "1", "2")
    known(site, "b:new/3")
    spread(site, "4", pin=True)
    site.path("mss:kept/2").write_bytes(b"x" * KB)
    said = stager("evict", "b:new", "--to-free", "1G", "--copies", "1", "--yes")
    assert said.code == 1
    assert said.err == "b: 1 GB of 1 GB could not be evicted\n"
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "b:new/1 1 kB, proven at mss" in lines
    assert "a manifest with `pin = true` keeps it 1 1 kB new/4" in lines
    assert "too few other copies of it are known 1 1 kB new/3: at no other host; 1 are needed" in lines
    assert "too few of its other copies could be proven now 1 1 kB new/2: mss:kept/2 is corrupt" in lines


def test_the_default_is_two_others(site: Site, stager: Stager) -> None:
    two(site, "1")
    said = stager("evict", "b:", "--to-free", "1", "--yes")
    assert said.code == 1
    assert "at mss; 2 are needed" in said.out
    assert copies(site) == ["new/1"]


def test_copies_on_one_file_system_do_not_count(site: Site, stager: Stager) -> None:
    two(site, "1")
    known(site, "c:1", data=content("1"))  # on the file system of b
    said = stager("evict", "b:", "--to-free", "1", "--yes")
    assert said.code == 1
    assert "on the file system that it lies on itself: c:1" in said.out


def test_a_dry_run_changes_nothing(site: Site, stager: Stager) -> None:
    two(site, "1", "2")
    said = stager("evict", "b:", "--to-free", "1k", "--copies", "1", "--dry-run")
    assert said.code == 0
    assert said.out.splitlines() == [
        "b:new/1  1 kB, known at mss",
        "1 file, 1 kB of 1 kB, would go into quarantine once their others are proven",
    ]
    assert copies(site) == ["new/1", "new/2"]
    said = stager("evict", "b:", "--to-free", "9k", "--copies", "1", "--dry-run")
    assert (said.code, said.err) == (1, "b: 7 kB of 9 kB would not be evicted: no more copies are named\n")
    assert not site.path("b:.stager").exists(), "b was marked, which was never used"
    assert site.rows("SELECT * FROM hosts") == []


def test_need_is_met_where_there_is_room_already(site: Site, stager: Stager) -> None:
    two(site, "1")
    said = stager("evict", "b:", "--need", "1", "--copies", "1", "--yes")
    assert said.code == 0
    assert said.out.endswith("free: nothing need go\n")
    assert copies(site) == ["new/1"]
    assert stager("evict", "b:", "--need", "1000P", "--copies", "1", "--yes").code == 1
    assert copies(site) == []


def test_json_has_all_of_it(site: Site, stager: Stager) -> None:
    two(site, "1", "2\n3")
    known(site, "b:new/4")
    said = stager("evict", "b:", "--to-free", "9k", "--copies", "1", "--yes", "--json")
    told: dict[str, Any] = json.loads(said.out)
    assert (told["host"], told["wanted"], told["bytes"], told["enough"]) == ("b", 9000, 2000, False)
    assert told["evicted"][1] == {"path": "new/2\\n3", "bytes": 1000, "others": ["mss:kept/2\\n3"]}
    assert [(one["why"], one["files"], one["bytes"]) for one in told["refused"]] == [("few", 1, 1000)]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("msss:kept", 'there is no host msss, did you mean "mss"?; the configuration has a, b, c, mss'),
        ("b", "b is a host, and no dataset: b: is all of it, b:PATH a part"),
        ("nobody's", "there is no dataset or manifest nobody's; `stager status` lists them"),
    ],
)
def test_what_is_not_known_is_told_with_what_is(site: Site, stager: Stager, what: str, why: str) -> None:
    two(site, "1")
    said = stager("evict", what, "--to-free", "1", "--yes")
    assert (said.code, said.err) == (2, f"{why}\n")


def test_no_grace_removes_at_once(site: Site, stager: Stager) -> None:
    two(site, "1")
    said = stager("evict", "b:", "--to-free", "1", "--copies", "1", "--grace", "0", "--yes")
    assert said.code == 0
    assert said.out.endswith("1 file, 1 kB, removed from quarantine for good\n")
    assert (quarantined(site), left(site, "b:new")) == ([], [])
    told = stager("evict", "b:", "--to-free", "1", "--copies", "1", "--grace", "0", "--yes", "--json")
    assert "purged" not in json.loads(told.out)


def test_quarantine_is_emptied_and_put_back(site: Site, stager: Stager) -> None:
    two(site, "1", "2", "3")
    stager("evict", "b:new/1", "--to-free", "1", "--copies", "1", "--yes")
    stager("evict", "b:new/2", "--to-free", "1", "--copies", "1", "--yes", "--grace", "3600")
    assert stager("evict", "--purge").out == "0 files, 0 B, removed from quarantine for good\n"
    said = stager("evict", "b:new/1", "--put-back")
    assert (said.code, said.out) == (0, "1 file, 1 kB, put back\n")
    assert stager("evict", "b:new/1", "--put-back").out == "0 files, 0 B, put back\n"
    assert copies(site) == ["new/1", "new/3"]
    site.change("UPDATE evictions SET purge_after = 1 WHERE state = 'quarantined'")
    said = stager("evict", "b:", "--purge", "--json")
    assert (said.code, json.loads(said.out)["removed"]) == (0, 1)


def test_what_quarantine_keeps_is_told(site: Site, stager: Stager) -> None:
    two(site, "1")
    stager("evict", "b:new/1", "--to-free", "1", "--copies", "1", "--yes")
    site.change("UPDATE evictions SET purge_after = 1")
    site.path("mss:kept/1").write_bytes(b"rotten")
    said = stager("evict", "--purge")
    assert (said.code, said.err) == (1, "b:new/1 was put back: mss:kept/1 is corrupt\n")
    assert copies(site) == ["new/1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say one of --need BYTES"),
        (["b:"], "say one of --need BYTES"),
        (["b:", "--need", "1", "--to-free", "1"], "say one of --need BYTES"),
        (["b:", "--need", "1", "--purge"], "say one of --need BYTES"),
        (["--need", "1", "--yes"], "--need needs a location"),
        (["b:", "--to-free", "much", "--yes"], 'found "much"; expected bytes'),
        (["b:", "--to-free", "-5", "--yes"], 'found "-5"; expected bytes'),
        (["b:", "--to-free", "1"], "nobody is here to be asked: give --yes"),
        (["mss:", "--to-free", "1", "--yes"], "mss is a mass store, from which nothing is evicted"),
        (["nothing", "--to-free", "1", "--yes"], "there is no dataset or manifest nothing"),
        (["b:/etc", "--to-free", "1", "--yes"], "is absolute"),
        (["b:../a", "--to-free", "1", "--yes"], 'contains ".."'),
        (["--purge", "--grace", "1"], "--grace goes with --need and --to-free"),
        (["b:", "--put-back", "--dry-run"], "--dry-run goes with --need and --to-free"),
        (["--put-back"], "--put-back needs a location"),
        (["b", "--put-back"], "--put-back needs a location"),
        (["--purge", "--host", "x"], "there is no host x"),
        (["b:", "--to-free", "1", "--copies", "0", "--yes"], "copies"),
        (["b:", "--to-free", "1", "--grace", "-1", "--yes"], "grace"),
        (["b:", "--to-free", "1", "--copies", "1", "--grace", "nan", "--yes"], "nan is no number of seconds"),
        (["b:", "--to-free", "1", "--copies", "1", "--grace", "inf", "--yes"], "range 0<=x<=2592000"),
    ],
)
def test_what_is_misused_is_told_and_changes_nothing(
    site: Site, stager: Stager, words: list[str], sentence: str
) -> None:
    two(site, "1")
    said = stager("evict", *words)
    assert said.code == 2
    assert sentence in said.err
    assert copies(site) == ["new/1"]


def test_a_host_that_is_down_is_told(site: Site, stager: Stager) -> None:
    two(site, "1")
    assert site.hosts["b"].space().free > 0
    site.path("b:").rename(site.folder / "unmounted")
    site.path("b:").mkdir()
    for option in ("--dry-run", "--yes"):
        said = stager("evict", "b:", "--to-free", "1", "--copies", "1", option)
        assert said.code == 1
        assert "host down" in said.err


def test_a_disk_that_was_away_at_a_dry_run_is_used_when_it_is_there(site: Site, stager: Stager) -> None:
    two(site, "1")
    disk = site.path("b:").rename(site.folder / "unmounted")
    site.path("b:").mkdir()
    assert stager("evict", "b:", "--to-free", "1", "--copies", "1", "--dry-run").code == 0
    site.path("b:").rmdir()
    disk.rename(site.path("b:"))
    assert stager("evict", "b:", "--to-free", "1", "--copies", "1", "--yes").code == 0
    assert copies(site) == []


DRIVER = """
import sys
from stager import cli
from stager.commands import evicting
if all(one.callback is not evicting.evict for one in cli.app.registered_commands):
    cli.app.command()(evicting.evict)
sys.argv = ["stager", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(("answer", "code", "there"), [("y", 0, []), ("n", 1, ["new/1"])])
def test_a_person_at_a_terminal_is_asked(site: Site, answer: str, code: int, there: list[str]) -> None:
    two(site, "1")
    ours, theirs = pty.openpty()
    words = ["evict", "b:", "--to-free", "1", "--copies", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        cwd=site.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    said = b""
    while b"evict 1 file (1 kB) from b, each once its others are proven?" not in said:
        said += os.read(ours, 9999)  # an error when it ends without
    assert process.wait(LATE_S) == code
    os.close(ours)
    assert copies(site) == there
    assert site.path("b:.stager").exists() == (answer == "y"), "what was only planned marks nothing"


def test_the_help_says_what_it_does(stager: Stager) -> None:
    said = stager("evict", "--help")
    assert said.code == 0
    text = " ".join(said.out.split())
    assert "Exit status: 0 when enough was evicted" in text
