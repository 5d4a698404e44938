"""Room: what is promised to one is not promised to another, on whichever host or machine they work."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from stager import reserving, workers
from stager.config import Config
from stager.database import open_database
from stager.reserving import SPARE_BYTES, problem, reserved, room
from tests.stager.site import Site
from tests.waiting import LATE_S
from transfers.errors import HostDown, NoSpace, TransferError, Unsupported
from transfers.hosts import UNKNOWN, Identity, Space
from transfers.local import LocalHost

GB = 10**9


class Disk(LocalHost):
    """A host whose file system is as large as the test says; what is written there is noted, and nothing is."""

    def __init__(self, site: Site, name: str, free: int, system: str | TransferError | None = "disk") -> None:
        super().__init__(name, str(site.path(f"{name}:")))
        self.free = free
        self.system = system
        self.meanwhile: Callable[[], object] = bool  # done after each look

    def space(self) -> Space:
        free = self.free
        self.meanwhile()
        return Space(1 << 60, free, UNKNOWN)

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        for _ in paths:
            yield Identity(self.system, 2) if isinstance(self.system, str) else self.system


def floors(site: Site, **said: int) -> Config:
    """The site's configuration, with these floors."""
    hosts = dict(site.config.hosts)
    for name, floor in said.items():
        hosts[name] = hosts[name].model_copy(update={"floor": floor})
    return site.config.model_copy(update={"hosts": hosts})


@pytest.fixture
def presence(site: Site) -> Iterator[str]:
    """The name of a worker that lives as long as the test."""
    one = workers.Presence(site.database, site.worker)
    one.start()
    yield site.worker
    one.stop()


def promised(site: Site) -> list[Any]:
    return [tuple(row) for row in site.rows("SELECT host, worker, bytes FROM reservations ORDER BY id")]


# -------------------------------------------------------------------------------------- promises


def test_room_is_promised_within_the_block_and_free_after_it(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 10 * GB)
    with reserved(site.database, site.config, disk, presence, 6 * GB):
        assert promised(site) == [("b", presence, 6 * GB)]
        assert 3.9 * GB < room(site.database, site.config, disk) < 4 * GB
    assert promised(site) == []


def test_room_is_free_again_when_the_work_fails(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 10 * GB)
    with pytest.raises(KeyError), reserved(site.database, site.config, disk, presence, 6 * GB):
        raise KeyError
    assert promised(site) == []


def test_what_is_promised_to_one_route_is_not_promised_to_another(site: Site, presence: str) -> None:
    config = floors(site, b=5 * GB)
    disk = Disk(site, "b", 40 * GB)
    with reserved(site.database, config, disk, presence, 30 * GB):
        with pytest.raises(NoSpace) as caught, reserved(site.database, config, disk, presence, 12 * GB):
            pytest.fail("it was promised")
        assert len(promised(site)) == 1
    assert (caught.value.host, caught.value.side, caught.value.phase) == ("b", "destination", "reserve")
    assert caught.value.text == (
        "needs 12 GB; 40 GB are free there, 30 GB of them promised to other work, 5 GB kept by its floor"
    )
    with reserved(site.database, config, disk, presence, 12 * GB):
        assert len(promised(site)) == 1


def test_hosts_on_one_file_system_share_its_room(site: Site, presence: str) -> None:
    one, same, other = (Disk(site, name, 10 * GB, system) for name, system in (("a", "x"), ("b", "x"), ("c", "y")))
    with reserved(site.database, site.config, one, presence, 8 * GB):
        with pytest.raises(NoSpace), reserved(site.database, site.config, same, presence, 8 * GB):
            pytest.fail("it was promised")
        with reserved(site.database, site.config, other, presence, 8 * GB):
            assert len(promised(site)) == 2


def test_two_folders_of_one_disk_are_one_file_system(site: Site, presence: str) -> None:
    one, other = site.hosts["a"], site.hosts["b"]
    large = one.space().free // 2 + GB
    with reserved(site.database, site.config, one, presence, large):
        with pytest.raises(NoSpace), reserved(site.database, site.config, other, presence, large):
            pytest.fail("it was promised")
        assert site.value("SELECT count(*) FROM reservations WHERE system LIKE 'host %'") == 0


@pytest.mark.parametrize("system", [None, Unsupported("no such thing")])
def test_where_file_systems_cannot_be_told_each_host_has_its_own(
    site: Site, presence: str, system: TransferError | None
) -> None:
    one, other = (Disk(site, name, 10 * GB, system) for name in "ab")
    with reserved(site.database, site.config, one, presence, 8 * GB):
        with pytest.raises(NoSpace), reserved(site.database, site.config, one, presence, 8 * GB):
            pytest.fail("it was promised")
        with reserved(site.database, site.config, other, presence, 8 * GB):
            assert len(promised(site)) == 2


def test_a_host_that_is_down_is_no_host_without_room(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 10 * GB, HostDown("gone", host="b"))
    with pytest.raises(HostDown), reserved(site.database, site.config, disk, presence, 1):
        pytest.fail("it was promised")


def test_a_store_that_does_not_say_how_much_room_it_has_never_refuses(site: Site, presence: str) -> None:
    store = Disk(site, "mss", UNKNOWN)
    with reserved(site.database, floors(site, mss=GB), store, presence, 1 << 60):
        assert promised(site) == []
    assert room(site.database, floors(site, mss=GB), store) == UNKNOWN
    assert problem(site.database, floors(site, mss=GB), store) is None


def test_a_store_without_room_is_told_as_the_stores_trouble(site: Site, presence: str) -> None:
    disk = Disk(site, "mss", GB)
    disk.kind = "store"
    with pytest.raises(NoSpace) as caught, reserved(site.database, site.config, disk, presence, 2 * GB):
        pytest.fail("it was promised")
    assert str(caught.value).startswith("mss: needs 2 GB; 1 GB are free there (reserve) - no space at the store;")


def test_files_that_are_there_already_need_no_room(site: Site, presence: str) -> None:
    site.file("b:new/one", b"x" * 1000)
    site.file("b:new/two", b"other")
    disk = Disk(site, "b", SPARE_BYTES + 2000)
    files = [("new/one", 1000), ("new/two", 1000), ("new/three", 1000)]
    with reserved(site.database, site.config, disk, presence, 2900, files):
        assert promised(site) == [("b", presence, 1900)]
    disk.free -= 200
    with pytest.raises(NoSpace), reserved(site.database, site.config, disk, presence, 2900, files):
        pytest.fail("it was promised")


def test_a_promise_that_ends_while_the_room_is_looked_at_still_counts(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 10 * GB)
    first = ExitStack()
    first.enter_context(reserved(site.database, site.config, disk, presence, 6 * GB))

    def end() -> None:
        disk.meanwhile = bool
        disk.free -= 6 * GB
        first.close()

    disk.meanwhile = end
    with pytest.raises(NoSpace), reserved(site.database, site.config, disk, presence, 6 * GB):
        pytest.fail("bytes that are written were promised")
    assert promised(site) == []


def test_who_asks_while_another_looks_at_the_room_waits_for_its_promise(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 10 * GB)
    granted: list[str] = []
    over = threading.Event()

    def ask(who: str) -> None:
        try:
            with reserved(site.database, site.config, disk, presence, 6 * GB):
                granted.append(who)
                over.wait(LATE_S)
        except NoSpace:
            over.set()

    second = threading.Thread(target=ask, args=("second",))

    def begin() -> None:
        disk.meanwhile = bool
        second.start()
        second.join(0.5)  # time enough to be promised what the first is about to be

    disk.meanwhile = begin
    ask("first")
    second.join()
    assert granted == ["first"]


def test_no_transaction_is_open_while_the_host_is_asked(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 10 * GB)
    looks = []

    def write() -> None:
        site.change("UPDATE hosts SET reason = 'looked' WHERE name = 'b'")  # waits for ever if one were
        looks.append(1)

    disk.meanwhile = write
    with reserved(site.database, site.config, disk, presence, GB):
        problem(site.database, site.config, disk)
        room(site.database, site.config, disk)
    assert len(looks) == 3


def test_many_who_ask_at_once_never_fill_more_than_there_is(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 100 * GB)
    config = floors(site, b=20 * GB)
    refused, lowest = [0], [disk.free]
    lock = threading.Lock()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            nbytes = chance.randrange(GB, 9 * GB)
            try:
                with reserved(site.database, config, disk, presence, nbytes), lock:
                    disk.free -= nbytes
                    lowest[0] = min(lowest[0], disk.free)
            except NoSpace:
                refused[0] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 * GB <= lowest[0] < 40 * GB
    assert refused[0] > 0
    assert promised(site) == []


# ---------------------------------------------------------------------------------- dead and alive


def test_what_a_dead_worker_was_promised_is_free(site: Site, presence: str) -> None:
    for worker in ("buried long ago", "known and dead"):
        site.change(
            "INSERT INTO reservations (host, system, worker, bytes) VALUES ('b', 'disk', :worker, :bytes)",
            worker=worker,
            bytes=9 * GB,
        )
    site.change("INSERT INTO workers (name) VALUES ('known and dead')")
    with reserved(site.database, site.config, Disk(site, "b", 10 * GB), presence, 8 * GB):
        assert promised(site) == [("b", presence, 8 * GB)]


def test_what_a_worker_could_not_give_back_is_free_when_it_asks_again(site: Site, presence: str) -> None:
    site.change(
        "INSERT INTO reservations (host, system, worker, bytes) VALUES ('b', 'disk', :worker, :bytes)",
        worker=presence,
        bytes=9 * GB,
    )
    disk = Disk(site, "b", 10 * GB)
    assert room(site.database, site.config, disk) < GB
    with reserved(site.database, site.config, disk, presence, 8 * GB):
        assert promised(site) == [("b", presence, 8 * GB)]


def test_workers_of_two_machines_do_not_count_on_the_same_bytes(postgres_site: Site) -> None:
    site = postgres_site
    far = open_database(site.database.url.render_as_string(hide_password=False))
    here, there = workers.Presence(site.database, "here"), workers.Presence(far, "there")
    here.start()
    there.start()
    disk = Disk(site, "b", 10 * GB)
    with reserved(far, site.config, disk, "there", 8 * GB):
        reserving._mine.clear()  # as in a process of its own
        with pytest.raises(NoSpace), reserved(site.database, site.config, disk, "here", 8 * GB):
            pytest.fail("it was promised")
        there._close()  # its process is gone, with its session
        with reserved(site.database, site.config, disk, "here", 8 * GB):
            assert promised(site) == [("b", "here", 8 * GB)]
    here.stop()
    far.close()


# ------------------------------------------------------------------------------------------ floors


def told(site: Site, host: str = "b") -> str | None:
    found: str | None = site.value("SELECT no_room FROM hosts WHERE name = :host", host=host)
    return found


def test_a_host_below_its_floor_says_so_until_room_is_promised_again(site: Site, presence: str) -> None:
    assert site.hosts["b"]
    disk = Disk(site, "b", 3_100_000_000)
    config = floors(site, b=5 * GB)
    sentence = "b: below its floor (3.1 GB free, 5 GB kept): work to it waits"
    assert problem(site.database, config, disk) == sentence
    assert told(site) == sentence
    assert room(site.database, config, disk) == 0
    disk.free = 6 * GB
    assert problem(site.database, config, disk) is None
    assert 0 < room(site.database, config, disk) < GB
    with reserved(site.database, config, disk, presence, 1000):
        assert told(site) is None


def test_a_host_that_has_no_room_for_what_is_next_says_so_until_it_has(site: Site, presence: str) -> None:
    assert site.hosts["b"]
    disk = Disk(site, "b", GB)
    with pytest.raises(NoSpace) as caught, reserved(site.database, site.config, disk, presence, 2 * GB):
        pytest.fail("it was promised")
    assert told(site) == str(caught.value)
    assert problem(site.database, site.config, disk) is None  # for something smaller there is room
    assert told(site) == str(caught.value)
    disk.free = 3 * GB
    with reserved(site.database, site.config, disk, presence, 2 * GB):
        assert told(site) is None


def test_a_sentence_that_stays_true_is_said_anew_now_and_then_only(site: Site) -> None:
    assert site.hosts["b"]
    disk = Disk(site, "b", GB)
    config = floors(site, b=5 * GB)
    problem(site.database, config, disk)
    first = site.value("SELECT no_room_at FROM hosts WHERE name = 'b'")
    problem(site.database, config, disk)
    assert site.value("SELECT no_room_at FROM hosts WHERE name = 'b'") == first
    site.change("UPDATE hosts SET no_room_at = no_room_at - 60")
    problem(site.database, config, disk)
    assert site.value("SELECT no_room_at FROM hosts WHERE name = 'b'") >= first


def test_a_host_all_of_whose_room_is_promised_says_so(site: Site, presence: str) -> None:
    assert site.hosts["b"]
    disk = Disk(site, "b", 8 * GB)
    with reserved(site.database, site.config, disk, presence, 7 * GB):
        disk.free -= 5 * GB  # so much of it is written
        sentence = "b: its room is promised to work under way (3 GB free, 7 GB promised): more waits"
        assert problem(site.database, site.config, disk) == sentence
        assert room(site.database, site.config, disk) == 0
    assert problem(site.database, site.config, disk) is None


def test_a_full_disk_without_a_floor_is_left_to_the_work_to_find(site: Site) -> None:
    assert problem(site.database, site.config, Disk(site, "b", 0)) is None


def test_what_there_is_room_for_is_promised(site: Site, presence: str) -> None:
    disk = Disk(site, "b", 50 * GB)
    config = floors(site, b=7 * GB)
    with reserved(site.database, config, disk, presence, room(site.database, config, disk)):
        assert room(site.database, config, disk) < GB // 10  # what was to spare
