"""Files into a folder that others take from: each once, wherever the process is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from stager.queues import folders, joboffice
from stager.queues.errors import FolderTrouble
from stager.queues.folders import Entry, Folder, deliver
from stager.queues.joboffice import ORDER

ENTRIES = [Entry(f"raw-visit{visit}", ".paf", f"visit {visit}".encode()) for visit in (1, 2, 3)]
KEY = "3ebe325b-4425-54fa-ae8f-24c1edcea8d7-1"
Place = Callable[[], Folder]


@pytest.fixture(params=["plain", "ordered"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A folder to deliver into: a plain one, and the `dataAvailable` of a job office."""
    root = tmp_path / "root"
    root.mkdir()
    if request.param == "plain":
        return Folder(root, root)
    joboffice.make(root)
    return joboffice.folder(root)


def items(folder: Folder) -> dict[str, bytes]:
    """What there is to take."""
    return {
        path.name: path.read_bytes() for path in folder.place.iterdir() if path.is_file() and path.name[0] not in "._"
    }


def hidden(folder: Folder) -> list[str]:
    return [path.name for path in folder.place.iterdir() if path.name.startswith(".add.")]


def ordered(folder: Folder) -> bool:
    return folder.arrange is joboffice.arrange


def take(folder: Folder, count: int = 100) -> list[bytes]:
    """Take items away as a job office does: under a hidden name, out of the order, gone."""
    taken = []
    for name in sorted(items(folder))[:count]:
        path = folder.place / name
        gone = path.rename(folder.place / f".del.{name}")
        if ordered(folder):
            left = [one for one in joboffice.order(folder.place) if one != name]
            (folder.place / ORDER).write_text("".join(f"{one}\n" for one in left))
        taken.append(gone.read_bytes())
        gone.unlink()
    return taken


def test_everything_comes_under_its_name_and_nothing_else_is_left(folder: Folder) -> None:
    assert deliver(folder, KEY, ENTRIES)
    assert items(folder) == {one.name(0): one.data for one in ENTRIES}
    assert hidden(folder) == []
    assert sorted(path.name for path in folder.own.iterdir()) == ["delivered", "lock"]
    if ordered(folder):
        assert joboffice.order(folder.place) == [one.name(0) for one in ENTRIES]


def test_the_same_delivery_is_made_once_and_another_of_the_same_again(folder: Folder) -> None:
    assert deliver(folder, KEY, ENTRIES)
    take(folder)
    assert not deliver(folder, KEY, ENTRIES)
    assert items(folder) == {}
    assert deliver(folder, KEY[:-1] + "2", ENTRIES)
    assert len(items(folder)) == 3


def test_a_name_that_is_taken_is_never_replaced(folder: Folder) -> None:
    (folder.place / "raw-visit1.paf").write_text("another's")
    (folder.place / "raw-visit1.1.paf").write_text("another's too")
    (folder.place / ".add.raw-visit2.paf").write_text("on its way")
    deliver(folder, KEY, ENTRIES)
    assert items(folder)["raw-visit1.paf"] == b"another's"
    assert items(folder)["raw-visit1.2.paf"] == b"visit 1"
    assert items(folder)["raw-visit2.1.paf"] == b"visit 2"
    assert hidden(folder) == [".add.raw-visit2.paf"]


def test_a_name_that_is_taken_in_the_last_moment_is_not_replaced_either(folder: Folder) -> None:
    def rival(place: Path, coming: Any) -> None:
        folder.arrange(place, coming)
        if not (place / "raw-visit1.paf").exists():
            (place / "raw-visit1.paf").write_text("another's")

    deliver(Folder(folder.place, folder.root, rival), KEY, ENTRIES)
    assert items(folder)["raw-visit1.paf"] == b"another's"
    assert items(folder)["raw-visit1.1.paf"] == b"visit 1"
    if ordered(folder):
        assert sorted(joboffice.order(folder.place)) == sorted(items(folder))


# -------------------------------------------------------------------------------------------- kills


def killed(work: Callable[[], object], line: int) -> bool:
    """Whether a process doing the work was killed, by SIGKILL, at the line-th line of folders.py and joboffice.py that
    it came to; it ends by itself where there are not so many."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in (folders.__file__, joboffice.__file__):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def every_kill(make: Place, work: Callable[[Folder], object]) -> Iterator[tuple[Folder, int]]:
    """A fresh folder after a kill at each line in turn, until the work is done before one."""
    line = 1
    while killed(lambda: work(folder), line) if (folder := make()) else False:
        yield folder, line
        line += 1
    assert line > 100, "too few lines were tried"


@pytest.fixture
def make(folder: Folder, tmp_path: Path) -> Place:
    """Makes such a folder again, a new one each time."""
    count = iter(range(10_000))

    def made() -> Folder:
        root = tmp_path / f"root{next(count)}"
        root.mkdir()
        if not ordered(folder):
            return Folder(root, root)
        joboffice.make(root)
        (root / "dataAvailable" / "old.paf").write_bytes(b"old")
        (root / "dataAvailable" / ORDER).write_text("old.paf\n")
        return joboffice.folder(root)

    return made


@pytest.mark.parametrize("taken", [0, 1, 100])
def test_a_kill_at_any_line_loses_and_doubles_nothing(make: Place, taken: int) -> None:
    """...also where what was delivered by then was taken before Stager came back."""
    took = 0
    for folder, line in every_kill(make, lambda folder: deliver(folder, KEY, ENTRIES)):
        got = take(folder, taken)
        took += bool(got)
        deliver(folder, KEY, ENTRIES)
        if ordered(folder):
            assert sorted(joboffice.order(folder.place)) == sorted(items(folder)), line
        got += take(folder)
        wanted = [one.data for one in ENTRIES] + ([b"old"] if ordered(folder) else [])
        assert sorted(got) == sorted(wanted), f"killed at line {line}"
        assert hidden(folder) == [], line
        assert sorted(path.name for path in folder.own.iterdir()) == ["delivered", "lock"], line
    assert took or not taken


def test_a_kill_while_it_recovers_from_a_kill_loses_and_doubles_nothing(make: Place) -> None:
    tried = 0
    for first in range(40, 400, 31):
        for second in range(1, 400, 17):
            folder = make()
            killed(lambda folder=folder: deliver(folder, KEY, ENTRIES), first)
            got = take(folder, 1)
            if not killed(lambda folder=folder: deliver(folder, KEY, ENTRIES), second):
                break
            tried += 1
            got += take(folder, 1)
            deliver(folder, KEY, ENTRIES)
            counted = Counter(got + take(folder))
            assert {counted[one.data] for one in ENTRIES} == {1}, f"killed at lines {first} and {second}"
    assert tried > 50


def test_a_line_that_a_power_cut_halved_counts_for_nothing(folder: Folder) -> None:
    deliver(folder, KEY, ENTRIES)
    told = folder.own / "delivered"
    told.write_bytes(told.read_bytes()[:-1])
    take(folder)
    other = KEY.replace("3", "4")
    deliver(folder, other, ENTRIES[:1])
    assert folders.is_delivered(folder, other)
    assert len(told.read_text().splitlines()) == 2
    assert not folders.is_delivered(folder, KEY[:-2])


def test_of_what_was_delivered_only_so_much_is_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_BYTES", 2000)
    for number in range(100):
        deliver(folder, f"key-{number}", [Entry("x", ".txt", b"x")])
        take(folder)
    assert (folder.own / "delivered").stat().st_size < 2200
    assert folders.is_delivered(folder, "key-99")
    assert not folders.is_delivered(folder, "key-0")


# -------------------------------------------------------------------------------------------- trouble


def test_two_processes_at_once_deliver_once(make: Place) -> None:
    for _ in range(10):
        folder = make()
        with ThreadPoolExecutor(4) as pool:
            new = list(pool.map(lambda _, folder=folder: deliver(folder, KEY, ENTRIES), range(4)))
        assert sorted(new) == [False, False, False, True]
        assert len(items(folder)) == 3 + ordered(folder)


def test_a_folder_that_another_process_keeps_to_itself_is_said(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LOCK_S", 0.2)
    folder.own.mkdir()
    with open(folder.own / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FolderTrouble, match="another process is delivering there"):
            deliver(folder, KEY, ENTRIES)
    assert deliver(folder, KEY, ENTRIES)


def test_a_disk_that_is_full_leaves_nothing_behind(folder: Folder) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(FolderTrouble, match=os.strerror(errno.EFBIG)):
            deliver(folder, KEY, [*ENTRIES, Entry("large", ".paf", b"x" * (1 << 17))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert items(folder) == {}
    assert hidden(folder) == []
    assert [path.name for path in folder.own.iterdir()] == ["lock"]
    assert deliver(folder, KEY, ENTRIES)


def test_a_journal_that_cannot_be_read_stops_everything_and_is_named(folder: Folder) -> None:
    folder.own.mkdir()
    (folder.own / f"{KEY}.json").write_text("{")
    with pytest.raises(FolderTrouble, match=rf"{KEY}.json: this journal of a delivery cannot be read"):
        deliver(folder, KEY, ENTRIES)
    assert items(folder) == {}


def test_a_link_in_the_place_of_a_file_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    folder.own.mkdir()
    (tmp_path / "outside").write_text("mine")
    (folder.own / "delivered").symlink_to(tmp_path / "outside")
    with pytest.raises(FolderTrouble):
        deliver(folder, KEY, ENTRIES)
    assert (tmp_path / "outside").read_text() == "mine"


def test_files_come_while_others_are_taken(make: Place) -> None:
    """A reader that takes what it sees at once sees each file whole, and each once."""
    folder = make()
    take(folder)
    seen: list[bytes] = []
    done = threading.Event()

    def reader() -> None:
        while not done.is_set() or items(folder):
            for name in list(items(folder)):
                path = folder.place / name
                seen.append(path.read_bytes())
                path.unlink()

    thread = threading.Thread(target=reader)
    thread.start()
    for number in range(20):
        deliver(
            folder,
            f"key-{number}",
            [Entry(f"x{number}-{one}", ".paf", f"{number} {one}".encode()) for one in range(20)],
        )
    done.set()
    thread.join()
    assert sorted(seen) == sorted(f"{number} {one}".encode() for number in range(20) for one in range(20))
