"""The simulator of a tape store, run as the program that it is."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stager.demo import tape
from tests.waiting import LATE_S, until

PROGRAM = Path(tape.__file__)


class Tape:
    """A simulator's folder, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.local = folder / "local"
        self.local.mkdir()

    def argv(self, *words: object) -> list[str]:
        return [sys.executable, "-I", "-S", str(PROGRAM), "--state", str(self.state), *map(str, words)]

    def run(self, *words: object, expected: int = 0) -> str:
        ended = subprocess.run(self.argv(*words), capture_output=True, text=True, check=False)
        assert ended.returncode == expected, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def put(self, path: str, data: bytes = b"data") -> None:
        (self.local / "in").write_bytes(data)
        self.run("put", self.local / "in", path)

    def get(self, path: str, expected: int = 0) -> bytes | None:
        (self.local / "out").unlink(missing_ok=True)
        self.run("get", path, self.local / "out", expected=expected)
        return (self.local / "out").read_bytes() if (self.local / "out").exists() else None

    def listed(self, *words: str) -> dict[str, dict[str, str | None]]:
        lines = self.run("ls", *words).splitlines()
        matches = [re.fullmatch(tape.LISTED, line) for line in lines]
        assert all(matches), lines
        return {match["path"]: match.groupdict() for match in matches if match}

    def state_of(self, path: str) -> str | None:
        return self.listed(path)[path]["state"]

    def comes(self, path: str) -> None:
        until(lambda: self.state_of(path) == "resident")

    def log(self) -> Any:
        return json.loads(self.run("log"))


@pytest.fixture
def store(tmp_path: Path) -> Tape:
    return Tape(tmp_path)


def test_what_was_put_is_listed_and_comes_back(store: Tape) -> None:
    store.put("/a/b", b"bytes")
    store.put("/a/c/with space", b"")
    found = store.listed("-R", "/")
    assert {path: one["size"] for path, one in found.items()} == {"/a/b": "5", "/a/c/with space": "0"}
    assert found["/a/b"]["digest"] == "sha256:" + hashlib.sha256(b"bytes").hexdigest()
    assert set(store.listed("/a")) == {"/a/b"}
    assert store.get("/a/b") == b"bytes"
    assert store.run("digest", "/a/b").split() == [hashlib.sha256(b"bytes").hexdigest(), "/a/b"]
    assert store.run("digest", "/a/b", "--algorithm", "md5").split()[0] == hashlib.md5(b"bytes").hexdigest()  # noqa: S324


def test_renamed_and_removed_files_are_no_more(store: Tape) -> None:
    store.put("/a")
    store.run("rename", "/a", "/d/b")
    assert set(store.listed("-R", "/")) == {"/d/b"}
    store.run("rm", "/d/b")
    assert store.listed("-R", "/") == {}
    for words in (["rm", "/d/b"], ["ls", "/d/b"], ["get", "/d/b", "x"], ["digest", "/d/b"], ["rename", "/d/b", "/c"]):
        assert "no such file" in store.run(*words, expected=1)


@pytest.mark.parametrize("path", ["relative", "/a/../../x", "/./a"])
def test_no_path_leaves_the_folder(store: Tape, path: str) -> None:
    (store.local / "in").write_bytes(b"x")
    assert "absolute" in store.run("put", store.local / "in", path, expected=1)


def test_migrated_file_comes_only_after_it_was_staged(store: Tape) -> None:
    store.put("/a")
    store.run("migrate", "/a")
    assert store.listed("/a")["/a"]["volume"] == "VOL001"
    assert store.listed("/a")["/a"]["position"] == "1"
    assert store.get("/a", expected=1) is None
    store.run("stage", "/a")
    store.comes("/a")
    assert store.get("/a") == b"data"
    assert store.listed("/a")["/a"]["volume"] == "VOL001", "the copy on tape is still there"


def test_get_may_wait_for_the_tape(store: Tape) -> None:
    store.put("/a")
    store.run("migrate", "--all")
    store.run("set", "get", "wait")
    assert store.get("/a") == b"data"


def test_one_drive_serves_in_the_order_asked_and_mounts_each_change_of_volume(store: Tape) -> None:
    store.run("set", "drives", 1)
    store.run("set", "latency", 0.01)
    for number, volume in enumerate(["A", "B", "A", "B"]):
        store.put(f"/{number}")
        store.run("migrate", f"/{number}", "--volume", volume, "--position", number)
    store.run("stage", "/0", "/1", "/2", "/3")
    until(lambda: all(one["state"] == "resident" for one in store.listed("/").values()))
    log = store.log()
    assert [one["path"] for one in log["requests"]] == ["/0", "/1", "/2", "/3"]
    assert log["mounts"] == 4
    assert all(one["outcome"] == "online" for one in log["requests"])
    times = [(one["begun"], one["ended"]) for one in log["requests"]]
    assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(times))


def test_files_of_one_volume_are_brought_with_one_mount(store: Tape) -> None:
    store.run("set", "drives", 2)
    store.run("set", "latency", 0)
    for number, volume in enumerate(["A", "A", "B", "B"]):
        store.put(f"/{number}")
        store.run("migrate", f"/{number}", "--volume", volume)
    store.run("stage", "/0", "/1", "/2", "/3")
    until(lambda: all(one["state"] == "resident" for one in store.listed("/").values()))
    assert store.log()["mounts"] == 2


def test_full_volume_is_followed_by_the_next(store: Tape) -> None:
    store.run("set", "volume_bytes", 5)
    for name in "abc":
        store.put(f"/{name}")
    store.run("migrate", "--all")
    assert [one["volume"] for one in store.listed("/").values()] == ["VOL001", "VOL001", "VOL002"]


def test_store_that_is_full_takes_what_fits_and_says_so(store: Tape) -> None:
    store.put("/a", b"1234")
    store.run("set", "room_bytes", 10)
    (store.local / "large").write_bytes(b"1234567")
    said = store.run("put", store.local / "large", "/b", expected=28)
    assert re.search(tape.commands(store.state)["full"], said.strip())
    store.put("/c", b"123456")
    assert sorted(store.listed("/")) == ["/a", "/c"]
    store.run("set", "room_bytes", "")
    store.run("put", store.local / "large", "/b")


def test_old_files_migrate_by_themselves_where_asked(store: Tape) -> None:
    store.put("/a")
    store.run("set", "migrate_s", 0.01)
    until(lambda: store.state_of("/a") == "migrated")


def test_refused_lost_and_forgotten_recalls(store: Tape) -> None:
    for name in ("refused", "lost", "forgotten"):
        store.put(f"/{name}")
    store.run("migrate", "--all")
    store.run("refuse", "/refused")
    store.run("lose", "/lost")
    store.run("fail", "forget", 1)
    assert "stage refused" in store.run("stage", "/refused", expected=1)
    assert "lost" in store.run("stage", "/lost", expected=1)
    store.run("stage", "/forgotten")
    assert store.log()["requests"] == []
    assert store.state_of("/forgotten") == "migrated"
    store.run("allow", "/refused")
    store.run("stage", "/refused", "/forgotten")
    store.comes("/refused")
    store.comes("/forgotten")


@pytest.mark.parametrize(("how", "state"), [("stuck", "staging"), ("offline", "migrated"), ("lost", "lost")])
def test_files_of_a_bad_volume_never_come(store: Tape, how: str, state: str) -> None:
    store.put("/a")
    store.put("/b")
    store.run("set", "drives", 1)
    store.run("migrate", "/a", "--volume", "BAD")
    store.run("migrate", "/b", "--volume", "GOOD")
    store.run("bad", "BAD", "--how", how)
    store.run("stage", "/a", "/b")
    store.comes("/b")
    assert store.state_of("/a") == state
    assert [one["outcome"] for one in store.log()["requests"]] == ["bad volume", "online"]


@pytest.mark.parametrize("how", ["stuck", "offline"])
def test_files_of_a_volume_that_is_good_again_come_when_they_are_asked_for_anew(store: Tape, how: str) -> None:
    store.put("/a")
    store.put("/b")
    store.run("set", "drives", 1)
    store.run("migrate", "/a", "--volume", "BAD")
    store.run("migrate", "/b", "--volume", "GOOD")
    store.run("bad", "BAD", "--how", how)
    store.run("stage", "/a", "/b")
    store.comes("/b")
    store.run("bad", "BAD", "--how", "good")
    assert store.state_of("/a") == "migrated"
    store.run("stage", "/a")
    store.comes("/a")


def test_commands_fail_as_they_are_told(store: Tape) -> None:
    (store.local / "in").write_bytes(b"0123456789")
    store.run("fail", "put", 2, "--exit", 72, "--say", "put ok", "--nothing")
    for _ in range(2):
        assert "put ok" in store.run("put", store.local / "in", "/a", expected=72)
    assert store.listed("-R", "/") == {}
    store.run("put", store.local / "in", "/a")
    store.run("fail", "get", 1, "--exit", 0, "--nothing")
    assert store.get("/a") is None
    store.run("fail", "get", 1, "--half")
    assert store.get("/a") == b"01234"
    store.run("fail", "get", 1, "--flip")
    assert store.get("/a") == b"01234" + bytes([ord("5") ^ 1]) + b"6789"
    assert store.get("/a") == b"0123456789"
    store.run("fail", "ls", "100%", "--exit", 3)
    store.run("ls", "/a", expected=3)
    store.run("ls", "/a", expected=3)
    store.run("fail", "ls", 0)
    store.run("ls", "/a")


def test_store_that_is_down_does_nothing(store: Tape) -> None:
    store.put("/a")
    store.run("set", "down", "yes")
    assert store.get("/a", expected=75) is None
    store.run("ls", "/", expected=75)
    store.run("set", "down", "no")
    assert store.get("/a") == b"data"


def test_killed_put_leaves_half_a_file_under_its_name(store: Tape) -> None:
    (store.local / "in").write_bytes(b"0123456789")
    store.run("set", "put_s", LATE_S)
    with subprocess.Popen(store.argv("put", store.local / "in", "/a")) as killed:
        place = store.state / "files/a"
        until(lambda: place.exists() and place.stat().st_size == 5)
        killed.send_signal(signal.SIGKILL)
    assert store.listed("/a")["/a"]["size"] == "5"


def test_planted_file_is_resident_and_unknown_settings_are_refused(store: Tape) -> None:
    store.run("ls", "/")
    (store.state / "files/x").write_bytes(b"planted")
    os.utime(store.state / "files/x", ns=(1, 1_234_567_890_123_456_789))
    assert store.listed("/x")["/x"]["mtime"] == "1234567890.123456789"
    assert store.state_of("/x") == "resident"
    assert "no setting" in store.run("set", "nonsense", 1, expected=2)


def test_many_processes_at_once_lose_nothing(store: Tape) -> None:
    (store.local / "in").write_bytes(b"x")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: store.run("put", store.local / "in", f"/{n}"), range(24)))
        list(pool.map(lambda n: store.run("migrate", f"/{n}"), range(24)))
        list(pool.map(lambda n: store.run("stage", f"/{n}"), range(24)))
    until(lambda: all(one["state"] == "resident" for one in store.listed("/").values()))
    assert sorted(one["position"] for one in store.log()["requests"]) == list(range(1, 25))
    assert store.log()["calls"]["put"] == 24


def test_it_is_started_as_a_module_too(store: Tape) -> None:
    argv = [sys.executable, "-m", "stager.demo.tape", "--state", str(store.state), "ls", "/"]
    here = Path(__file__).parents[3]
    assert subprocess.run(argv, cwd=here, check=False).returncode == 0
