"""What was fetched here is whole, bounded, shared by those who ask at once, and gone when nobody needs it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.waiting import LATE_S
from transfers.agent import Fault
from transfers.fetched import Fetched

DIES = """
import os, sys
from transfers.fetched import Fetched
fetched = Fetched(sys.argv[1], 100)
with fetched.file("a", 4, lambda place: open(place, "wb").write(b"data") and None) as place:
    print(place, flush=True)
    if sys.argv[2] == "waits":
        sys.stdin.read()
    os.abort()
"""


@pytest.fixture
def fetched(tmp_path: Path) -> Iterator[Fetched]:
    fetched = Fetched(str(tmp_path / "scratch"), 1000)
    yield fetched
    fetched.close()


def writes(data: bytes, calls: list[str] | None = None) -> Callable[[str], None]:
    def fetch(place: str) -> None:
        assert not os.path.lexists(place)
        if calls is not None:
            calls.append(place)
        Path(place).write_bytes(data)

    return fetch


def files_in(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def test_file_is_fetched_once_and_read_by_all_who_ask(fetched: Fetched) -> None:
    calls: list[str] = []
    for _ in range(3):
        with fetched.file("a", 4, writes(b"data", calls)) as place:
            assert Path(place).read_bytes() == b"data"
    assert len(calls) == 1
    assert fetched.held() == 4


@pytest.mark.parametrize("other", [{"path": "b"}, {"offset": 4}, {"size": 3}, {"version": "2"}])
def test_other_file_stretch_or_version_is_another(fetched: Fetched, other: dict[str, object]) -> None:
    asked: dict[str, object] = {"path": "a", "size": 4, "offset": 0, "version": "1"}
    with fetched.file(fetch=writes(b"data"), **asked):  # type: ignore[arg-type] # the keys are its own
        pass
    asked |= other
    with fetched.file(fetch=writes(b"other"[: int(str(asked["size"]))]), **asked) as place:  # type: ignore[arg-type]
        assert Path(place).read_bytes() == b"other"[: int(str(asked["size"]))]


def test_size_that_nobody_knew_is_counted_once_it_is_seen(fetched: Fetched) -> None:
    with fetched.file("a", None, writes(bytes(600))):
        assert fetched.held() == 600


def test_least_recently_used_is_given_up_first(fetched: Fetched, tmp_path: Path) -> None:
    for name in ("a", "b", "a", "c"):
        with fetched.file(name, 400, writes(name.encode() * 400)):
            pass
    assert files_in(tmp_path) == [b"a" * 400, b"c" * 400]
    assert fetched.held() == 800


def test_files_in_use_are_kept_beyond_the_bound_and_no_longer(fetched: Fetched, tmp_path: Path) -> None:
    with ExitStack() as uses:
        places = [uses.enter_context(fetched.file(str(n), 400, writes(bytes(400)))) for n in range(5)]
        assert all(Path(place).stat().st_size == 400 for place in places)
    assert fetched.held() == 800
    assert len(files_in(tmp_path)) == 2


def test_file_larger_than_the_bound_is_there_while_it_is_used(fetched: Fetched, tmp_path: Path) -> None:
    with fetched.file("a", 5000, writes(bytes(5000))) as place:
        assert Path(place).stat().st_size == 5000
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("what", ["raises", "short", "nothing", "link", "folder"])
def test_file_that_was_not_fetched_whole_is_never_trusted(fetched: Fetched, tmp_path: Path, what: str) -> None:
    def fetch(place: str) -> None:
        if what == "link":
            Path(place).symlink_to("/etc/passwd")
        elif what == "folder":
            Path(place).mkdir()
        elif what != "nothing":
            Path(place).write_bytes(b"da")
        if what == "raises":
            raise Fault("transient", "the store is away")

    with pytest.raises(Fault) as raised, fetched.file("a", 4, fetch):
        pass
    assert raised.value.kind == ("transient" if what == "raises" else "corrupted on the way")
    assert files_in(tmp_path) == []
    assert fetched.held() == 0
    with fetched.file("a", 4, writes(b"data")) as place:
        assert Path(place).read_bytes() == b"data"


def test_those_who_ask_at_once_wait_for_one_fetch(fetched: Fetched) -> None:
    begun, go = threading.Event(), threading.Event()
    calls: list[str] = []
    seen: list[bytes] = []

    def slow(place: str) -> None:
        calls.append(place)
        begun.set()
        assert go.wait(LATE_S)
        Path(place).write_bytes(b"data")

    def ask() -> None:
        with fetched.file("a", 4, slow) as place:
            seen.append(Path(place).read_bytes())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    threads[0].start()
    assert begun.wait(LATE_S)
    for thread in threads[1:]:
        thread.start()
    with fetched.file("b", 4, writes(b"more")) as place:  # another file waits for nobody
        assert Path(place).read_bytes() == b"more"
    go.set()
    for thread in threads:
        thread.join()
    assert seen == [b"data"] * 8
    assert len(calls) == 1


def test_where_one_fails_the_next_who_waits_fetches(fetched: Fetched) -> None:
    begun, go = threading.Event(), threading.Event()
    turns = iter([False, True])
    results: list[object] = []

    def fetch(place: str) -> None:
        begun.set()
        assert go.wait(LATE_S)
        Path(place).write_bytes(b"da")
        if not next(turns):
            raise Fault("transient", "the store is away")
        Path(place).write_bytes(b"data")

    def ask() -> None:
        try:
            with fetched.file("a", 4, fetch) as place:
                results.append(Path(place).read_bytes())
        except Fault as fault:
            results.append(fault.kind)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(LATE_S)
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["b'data'"] * 3 + ["transient"]


def test_closing_removes_all_but_what_is_in_use(fetched: Fetched, tmp_path: Path) -> None:
    with fetched.file("b", 4, writes(b"idle")):
        pass
    with fetched.file("a", 4, writes(b"data")) as place:
        fetched.close()
        assert files_in(tmp_path) == [b"data"]
        assert Path(place).read_bytes() == b"data"
    assert list((tmp_path / "scratch").iterdir()) == []
    with fetched.file("a", 4, writes(b"anew")) as place:
        assert Path(place).read_bytes() == b"anew"


def test_what_was_forgotten_is_fetched_anew(fetched: Fetched) -> None:
    calls: list[str] = []
    with fetched.file("a", 4, writes(b"data", calls)) as old:
        fetched.forget("a")
        assert Path(old).read_bytes() == b"data"
        with fetched.file("a", 4, writes(b"anew", calls)) as place:
            assert Path(place).read_bytes() == b"anew"
    assert len(calls) == 2


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    command = [sys.executable, "-c", DIES, str(scratch)]
    dead = subprocess.run([*command, "dies"], capture_output=True, text=True, check=False)
    left = Path(dead.stdout.strip())
    assert dead.returncode < 0
    assert left.read_bytes() == b"data"
    with subprocess.Popen([*command, "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout is not None
        held = Path(living.stdout.readline().strip())
        fetched = Fetched(str(scratch), 100)
        with fetched.file("a", 4, writes(b"mine")) as place:
            assert not left.parent.exists()
            assert held.read_bytes() == b"data"
            assert Path(place).read_bytes() == b"mine"
        fetched.close()
        assert held.read_bytes() == b"data"
        living.kill()


def test_many_threads_keep_to_the_bound(fetched: Fetched, tmp_path: Path) -> None:
    wrong: list[object] = []

    def ask(seed: int) -> None:
        for turn in range(60):
            number = (seed * 7 + turn * 5) % 12
            data = bytes([number]) * 150
            with fetched.file(f"f{number}", 150, writes(data)) as place:
                if Path(place).read_bytes() != data:
                    wrong.append(place)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 < fetched.held() <= 1000
    assert len(files_in(tmp_path)) == fetched.held() // 150
