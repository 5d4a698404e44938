"""Hosts over SSH where everything breaks: the far machine, its agent, the network, and what the far side says.

Real sshd, a real proxy, real files. After each fault the same is looked at (`Site.check`): one result for each file,
nothing under a final name that is not the source's bytes, errors that say what they are, and a next try that ends right
and brings nothing again that had landed. Each fault is counted, and none that fired fails the test.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.proxies import Proxy
from tests.sshd import Sshd
from tests.transfers.contract import files_in, wants_of
from tests.waiting import LATE_S, until
from transfers import agent
from transfers.copying import copy
from transfers.errors import (
    Congested,
    HostDown,
    NoSpace,
    Refused,
    TransferError,
    Transient,
    Unsupported,
    shown,
)
from transfers.hosts import FileInfo, Receipt, Want
from transfers.local import LocalHost
from transfers.ssh import openssh, paramiko_client
from transfers.ssh.channels import Client, Login
from transfers.ssh.conversations import BOOT, NOISE_BYTES
from transfers.ssh.host import SshHost
from transfers.ssh.openssh import OpenSSHClient
from transfers.ssh.paramiko_client import ParamikoClient
from transfers.streams import Streams

ALIVE_S = 4  # within which a dead connection is noticed here
DOWN_S = 3  # within which a host must have answered, where it is one that does not
STOP_S = 30  # within which a stop is heard, also on a machine that is busy
CLIENTS: dict[str, type[OpenSSHClient] | type[ParamikoClient]] = {"openssh": OpenSSHClient, "paramiko": ParamikoClient}
both_clients = pytest.mark.parametrize("client", CLIENTS)
both_ways = pytest.mark.parametrize("way", ["up", "down"])
BROKEN = {"transient", "host down", "congested"}  # what a machine or a network that fails may end in


@pytest.fixture(autouse=True)
def _quick_keep_alives(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (openssh, paramiko_client):
        monkeypatch.setattr(module, "KEEP_ALIVE_S", 1)
        monkeypatch.setattr(module, "UNANSWERED", ALIVE_S)


def left_over() -> tuple[set[str], int, list[int]]:
    """Threads, open descriptors, and the ssh processes of this process."""
    me, clients = os.getpid(), []
    for folder in Path("/proc").iterdir():
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name == "ssh" and int(rest.split()[1]) == me:
            clients.append(int(folder.name))
    names = {thread.name for thread in threading.enumerate()}
    return names, len(os.listdir("/proc/self/fd")), sorted(clients)  # noqa: PTH208


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No thread, descriptor or process outlives its test: this is set up before, and looks after, all else."""
    before = left_over()
    yield

    def is_gone() -> bool:
        names, descriptors, clients = left_over()
        return names <= before[0] and descriptors <= before[1] and set(clients) <= set(before[2])

    until(is_gone, lambda: (before, left_over()))


class Site:
    """A folder here, and one there behind a proxy and an sshd; files go up or down."""

    def __init__(self, folder: Path, sshd: Sshd, client: str = "openssh", **login: Any) -> None:
        self.sshd = sshd
        self.proxy = Proxy(sshd.port)
        self.roots = {"here": folder / "here", "there": folder / "there"}
        for root in self.roots.values():
            root.mkdir(exist_ok=True)
        self.here = LocalHost("here", str(self.roots["here"]))
        self.here.open(None)
        marker = LocalHost("there", str(self.roots["there"])).open(None)
        self.login: Login = sshd.login(port=self.proxy.port, **login)
        self.far = SshHost("there", str(self.roots["there"]), self.client(client))
        self.far.marker = marker
        self.adopted: set[str] = set()

    def client(self, name: str) -> Client:
        return CLIENTS[name]("there", self.login)

    def close(self) -> None:
        self.far.close()
        self.proxy.stop()

    def fill(self, way: str, sizes: dict[str, int]) -> list[Want]:
        """Files at the source, and what is wanted of them."""
        root = self.roots["here" if way == "up" else "there"]
        for name, size in sizes.items():
            (root / "in").mkdir(exist_ok=True)
            (root / "in" / name).write_bytes(random.Random(name).randbytes(size))
        host = LocalHost("x", str(root))
        return wants_of(host, "in", "out")

    def copied(self, way: str, wants: list[Want], streams: int | Streams = 2, **options: Any) -> dict[str, Any]:
        """One result for each want, by destination."""
        source, target = (self.here, self.far) if way == "up" else (self.far, self.here)
        results = list(copy(source, target, wants, streams=streams, **options))
        assert sorted(want.destination for want, _ in results) == sorted(want.destination for want in wants)
        for want, result in results:
            if isinstance(result, Receipt):
                assert (result.item, result.path, result.size) == (want.item, want.destination, want.size)
            else:
                assert isinstance(result, TransferError)
                assert str(result).isprintable()
                assert result.path
        return {want.destination: result for want, result in results}

    def check(self, way: str, wants: list[Want], results: dict[str, Any], kinds: set[str] = BROKEN) -> None:
        """What must hold after a fault, however it went; then the same again without it."""
        source = files_in(self.roots["here" if way == "up" else "there"])
        root = self.roots["there" if way == "up" else "here"]
        errors = [result for result in results.values() if isinstance(result, TransferError)]
        assert {error.kind for error in errors} <= kinds, [str(error) for error in errors][:3]
        self.proxy.clear()
        self.proxy.refuse(False)
        self.be_patient()
        self.wait_for_the_far_side()
        self.far.sweep("", lambda item, epoch: True)
        landed = files_in(root)
        for want in wants:
            if isinstance(results[want.destination], Receipt):
                assert want.destination in landed
        there = {want.destination for want in wants if want.destination in landed}
        assert set(landed) - set(source) <= there, "a part or another file was left behind"
        for want in wants:
            if want.destination in there:
                assert landed[want.destination] == source[want.source], "under a final name there is what is proven"
        seen: list[int] = []
        again = self.copied(way, [want._replace(epoch=2) for want in wants], on_bytes=seen.append)
        assert {type(result) for result in again.values()} == {Receipt}, [str(result) for result in again.values()][:3]
        assert {path for path, result in again.items() if result.adopted} == there
        assert sum(seen) == sum(want.size or 0 for want in wants if want.destination not in there)
        landed = files_in(root)
        assert {path: data for path, data in landed.items() if path.startswith("out/")} == {
            want.destination: source[want.source] for want in wants
        }

    def be_patient(self) -> None:
        """From now on a host that is slow to answer is not taken for one that is down."""
        client = self.far.client
        client.login = replace(client.login, connect_s=LATE_S)

    def wait_for_the_far_side(self) -> None:
        """Until agents whose connection broke have noticed; one behind a stall is ended with its session."""
        self.far.close()
        deadline = time.monotonic() + 5
        while self.sshd.commands() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.sshd.kill_sessions()
        until(lambda: not self.sshd.commands())


@pytest.fixture
def make_site(make_sshd: Callable[..., Sshd], tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(client: str = "openssh", login: dict[str, Any] | None = None, **variant: Any) -> Site:
        made.append(Site(tmp_path, make_sshd(**variant), client, **(login or {})))
        return made[-1]

    yield make
    for site in made:
        site.close()


SMALL = {f"f{number:02}": 1 + number * 4001 for number in range(20)} | {"large": 2_000_003}
CUT = {"cut": (70 << 20) + 13, "small": 100}


# Noise.


@both_clients
@pytest.mark.parametrize(
    "variant",
    [
        {"noise": b"Welcome!\r\nLast login: never\n\x1b[31m\x07"},
        {"noise": b"\nstager-agent " + b"0" * 32 + b"\n\nstager-agent \n\nstager-ag"},
        {"noise": b"\xf5S\x00\x01\x00\x00\x00\x05[1,2]" * 1000},
        {"garbage": NOISE_BYTES - 5000},
        {"banner": "Only for those who may.\n" * 50},
        {"err_bytes": 50_000_000, "noise": b"x"},
        {"slow_s": 1.5},
    ],
    ids=["start-up", "greeting", "frames", "garbage", "banner", "stderr", "slow"],
)
def test_noise_before_the_agent_is_passed_over(make_site: Callable[..., Site], client: str, variant: Any) -> None:
    site = make_site(client, **variant)
    wants = site.fill("up", {"a": 1000, "b": 0})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = site.copied("up", wants)
    assert {type(result) for result in results.values()} == {Receipt}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000  # KiB
    site.check("up", wants, results)


@both_clients
def test_endless_noise_is_refused_and_bounded(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client, garbage=40 * NOISE_BYTES)
    with pytest.raises(Unsupported, match="no agent answered among the first") as raised:
        site.far.space()
    assert raised.value.facts["no_agent"]
    assert raised.value.host == "there"


@both_clients
def test_login_that_hangs_ends_in_time(
    make_site: Callable[..., Site], client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfers.ssh.conversations.GREETING_S", 1.0)
    site = make_site(client, slow_s=LATE_S)
    with pytest.raises(HostDown, match="no agent answered within 1 s") as raised:
        site.far.space()
    assert (raised.value.side, raised.value.phase) == ("route", "connect")


# The far agent, its session, or our client is killed.


class At:
    """Does something once so many bytes have flowed; counts that it did."""

    def __init__(self, after: int, action: Callable[[], Any]) -> None:
        self.after, self.action, self.seen, self.fired = after, action, 0, 0
        self.lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self.lock:
            self.seen += count
            due = self.seen >= self.after and not self.fired
            self.fired += due
        if due:
            self.action()


def kill_clients() -> int:
    clients = left_over()[2]
    for pid in clients:
        os.kill(pid, signal.SIGKILL)
    return len(clients)


@both_ways
@pytest.mark.parametrize(
    ("client", "what"),
    [("openssh", "kill_commands"), ("openssh", "kill_sessions"), ("paramiko", "kill_commands")],
)
@pytest.mark.parametrize(("sizes", "after"), [(SMALL, 1), (SMALL, 900_001), (CUT, 33_000_001)])
def test_far_side_that_is_killed(
    make_site: Callable[..., Site], client: str, way: str, what: str, sizes: dict[str, int], after: int
) -> None:
    site = make_site(client)
    wants = site.fill(way, sizes)
    kill = At(after, getattr(site.sshd, what))
    results = site.copied(way, wants, 3, on_bytes=kill)
    assert kill.fired
    site.check(way, wants, results)


@both_ways
@pytest.mark.parametrize(("sizes", "after"), [(SMALL, 70_001), (CUT, 20_000_003)])
def test_client_that_is_killed(make_site: Callable[..., Site], way: str, sizes: dict[str, int], after: int) -> None:
    site = make_site()
    wants = site.fill(way, sizes)
    killed: list[int] = []
    kill = At(after, lambda: killed.append(kill_clients()))
    results = site.copied(way, wants, 3, on_bytes=kill)
    assert killed[0] > 0
    site.check(way, wants, results)


@both_clients
def test_every_connection_that_is_tried_is_killed(make_site: Callable[..., Site], client: str) -> None:
    """The far machine kills whatever we begin, for as long as the batch lasts: it ends, and says why."""
    site = make_site(client)
    wants = site.fill("up", CUT | {"another": 40 << 20})
    site.proxy.limit(50_000)  # so that none comes to its work before it is killed
    over = threading.Event()
    killed = [0]

    def keep_killing() -> None:
        while not over.wait(0.05):
            killed[0] += site.sshd.kill_sessions()

    killing = threading.Thread(target=keep_killing)
    killing.start()
    try:
        results = site.copied("up", wants, 3)
    finally:
        over.set()
        killing.join()
    site.proxy.limit(None)
    assert killed[0] > 0
    assert all(isinstance(result, TransferError) for result in results.values())
    site.check("up", wants, results)


@both_clients
def test_agent_that_is_killed_during_other_calls(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client)
    root = site.roots["there"]
    for number in range(30_000):  # more than all buffers on the way hold
        (root / f"f{number:05}").touch()
    with (root / "sparse").open("wb") as file:
        file.truncate(8 << 30)
    calls: dict[str, Callable[[], Any]] = {
        "scan": lambda: [site.sshd.kill_commands() for found in site.far.scan() if found.path == "f00000"],
        "digest": lambda: killing_at(site, "sparse", lambda: list(site.far.digest(["sparse"]))),
        "carry": lambda: killing_at(site, "sparse", lambda: list(site.far.carry([Want(1, 1, "sparse", "out")]))),
    }
    for name, call in calls.items():
        with pytest.raises(Transient) as raised:
            call()
        assert raised.value.host == "there", name
    (found,) = site.far.find(["f00001"])
    assert isinstance(found, FileInfo)
    site.far.sweep("", lambda item, epoch: True)
    assert not [name for name in files_in_names(root) if name.endswith(".part")]


def files_in_names(root: Path) -> list[str]:
    return [name for _, _, names in os.walk(root) for name in names]


def killing_at(site: Site, name: str, call: Callable[[], Any]) -> None:
    """The call, while the far agent is killed in the midst of reading that file."""
    killed: list[int] = []
    place = site.roots["there"] / name

    def is_read() -> bool:
        for pid in site.sshd.commands():
            with suppress(OSError):  # it has just ended
                if any(one.readlink() == place for one in Path(f"/proc/{pid}/fd").iterdir()):
                    return True
        return False

    def kill() -> None:
        until(is_read)
        killed.append(site.sshd.kill_commands())

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        call()
    finally:
        killing.join()
        assert killed[0] > 0


# The network.

PLACES = {
    "up": [21, 2_801, 21_011, 400_009],
    "down": [1, 39, 3_501, 60_013],
}


@both_ways
@pytest.mark.parametrize(
    ("client", "kind"), [("openssh", "reset"), ("paramiko", "close"), ("openssh", "flip"), ("paramiko", "flip")]
)
def test_every_connection_breaks_at_the_same_place(
    make_site: Callable[..., Site], client: str, way: str, kind: str
) -> None:
    """The place grows from the first byte to the middle of the data; each time all that is tried breaks there."""
    site = make_site(client)
    wants = site.fill(way, SMALL)
    fired = 0
    for epoch, place in enumerate(PLACES[way], 10):
        site.far.close()
        fault = getattr(site.proxy, kind)(way, after=place)
        tried = [want._replace(epoch=epoch, destination=f"{epoch}/{want.source}") for want in wants]
        results = site.copied(way, tried, 2)
        fired += fault.fired
        # In the key exchange nobody can tell a flipped bit from somebody in between, and the client must not try.
        kinds = BROKEN | ({"refused", "unsupported"} if kind == "flip" and place < 4000 else set())
        errors = {result.kind for result in results.values() if isinstance(result, TransferError)}
        assert errors <= kinds, (place, [str(result) for result in results.values()][:1])
        site.proxy.clear()
    assert fired >= len(PLACES[way]) - 1
    site.wait_for_the_far_side()
    site.far.sweep("", lambda item, epoch: True)
    source = files_in(site.roots["here" if way == "up" else "there"])
    for path, data in files_in(site.roots["there" if way == "up" else "here"]).items():
        assert data == source[path if path in source else path.partition("/")[2]], path
        if path not in source:
            (site.roots["there" if way == "up" else "here"] / path).unlink()
    site.check(way, wants, {want.destination: Transient("not tried") for want in wants})


@both_ways
@pytest.mark.parametrize(
    ("client", "at", "sizes"),
    [("openssh", "up", SMALL), ("openssh", "up", CUT), ("openssh", "down", CUT), ("paramiko", "down", CUT)],
)
def test_stall_ends_within_the_keep_alives(
    make_site: Callable[..., Site], client: str, way: str, at: Any, sizes: dict[str, int]
) -> None:
    site = make_site(client, {"connect_s": DOWN_S})
    wants = site.fill(way, sizes)
    stall = At(500_001, lambda: site.proxy.stall(at, after=0))
    begun = time.monotonic()
    results = site.copied(way, wants, 2, on_bytes=stall)
    assert stall.fired
    assert site.proxy.fired
    assert time.monotonic() - begun < LATE_S
    errors = [result for result in results.values() if isinstance(result, TransferError)]
    assert errors or sizes is SMALL, "so few bytes may all be on their way by then"
    assert all(error.side == "route" for error in errors if isinstance(error, HostDown)), [str(e) for e in errors]
    site.check(way, wants, results)


@both_clients
def test_host_that_accepts_and_says_nothing_is_down(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client, {"connect_s": DOWN_S})
    wants = site.fill("up", SMALL)
    site.proxy.mute()
    begun = time.monotonic()
    results = site.copied("up", wants)
    assert time.monotonic() - begun < LATE_S
    assert site.proxy.fired
    assert {result.kind for result in results.values()} <= {"host down", "congested"}
    site.proxy.mute(False)
    site.check("up", wants, results)


@both_clients
def test_refused_connections_are_a_host_that_is_down(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client)
    wants = site.fill("up", SMALL | CUT)
    site.proxy.refuse()
    results = site.copied("up", wants)
    assert {result.kind for result in results.values()} == {"host down"}
    site.check("up", wants, results)


@both_clients
@both_ways
def test_slow_and_far_away_is_only_slow(make_site: Callable[..., Site], client: str, way: str) -> None:
    site = make_site(client)
    wants = site.fill(way, SMALL)
    site.proxy.delay(0.02)
    site.proxy.limit(3_000_000)
    results = site.copied(way, wants, 3)
    assert {type(result) for result in results.values()} == {Receipt}
    assert site.far.round_trip_s > 0.03
    site.proxy.delay(0)
    site.proxy.limit(None)
    site.check(way, wants, results)


@both_clients
def test_lost_acknowledgement_is_adopted(make_site: Callable[..., Site], client: str) -> None:
    """Everything lands, and no word of it comes back."""
    site = make_site(client, {"connect_s": DOWN_S})
    wants = site.fill("up", {f"f{n:02}": 30_011 for n in range(30)})  # what ssh sends without a word from there
    stall = At(1, lambda: site.proxy.stall("down", after=0))
    results = site.copied("up", wants, 1, on_bytes=stall)
    assert stall.fired
    assert site.proxy.fired
    assert all(isinstance(result, TransferError) for result in results.values())
    assert {result.kind for result in results.values()} <= BROKEN
    site.proxy.cut()
    assert len(files_in(site.roots["there"])) == len(wants)
    seen: list[int] = []
    site.proxy.clear()
    site.be_patient()
    again = site.copied("up", [want._replace(epoch=2) for want in wants], on_bytes=seen.append)
    assert all(result.adopted for result in again.values())
    assert seen == []
    site.check("up", wants, results)


# sshd.


@both_clients
@pytest.mark.parametrize("startups", ["1:100:1", "2:100:2"])
@pytest.mark.parametrize("sizes", [{f"f{n:03}": 30_000 for n in range(200)}, {"cut": 64 << 20, "other": 40 << 20}])
def test_fewer_streams_where_sshd_takes_no_more(
    make_site: Callable[..., Site], client: str, startups: str, sizes: dict[str, int]
) -> None:
    site = make_site(client, max_startups=startups, slow_s=0.05)
    wants = site.fill("up", sizes)
    streams = Streams(1, 8)
    streams.begin(0.3, time.monotonic())  # so far away, eight are worth it
    assert streams.allowed() == 8
    results = site.copied("up", wants, streams)
    assert {type(result) for result in results.values()} == {Receipt}, [str(result) for result in results.values()][:2]
    if "drop connection" in site.sshd.log() or "exceeded MaxStartups" in site.sshd.log().replace(
        "Exceeded", "exceeded"
    ):
        assert streams.allowed() < 8
        assert "MaxStartups" in streams.why
    site.check("up", wants, results)


@both_clients
def test_sshd_that_is_stopped_is_down_and_back_again(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client)
    wants = site.fill("down", SMALL)
    site.far.space()  # a conversation that is kept, and ends with the server
    site.sshd.stop()
    results = site.copied("down", wants)
    assert {result.kind for result in results.values()} <= BROKEN
    direct = SshHost("there", site.far.root, CLIENTS[client]("there", site.sshd.login()))
    with pytest.raises(HostDown):  # the proxy takes connections and then resets them, which is another thing
        direct.space()
    site.sshd.restart()
    site.check("down", wants, results)


@both_clients
@pytest.mark.parametrize("change", ["host key", "client key"])
def test_keys_that_changed_are_refused_before_anything_is_given_away(
    make_site: Callable[..., Site], client: str, change: str
) -> None:
    site = make_site(client)
    wants = site.fill("up", SMALL)
    begin = len(site.sshd.log())
    (site.sshd.change_host_key if change == "host key" else site.sshd.forget_client_key)()
    results = site.copied("up", wants)
    assert {result.kind for result in results.values()} == {"refused"}
    assert {result.host for result in results.values()} == {"there"}
    assert files_in(site.roots["there"]) == {}
    if change == "host key":
        assert not re.search("Accepted|Failed|userauth|Postponed", site.sshd.log()[begin:])
        assert "ssh-keygen -R" in next(iter(results.values())).text
        login = site.sshd.login(port=site.proxy.port)
        site.far.client = CLIENTS[client]("there", login)  # its owner has told us the new one
    else:
        site.sshd.remember_client_key()
    site.check("up", wants, results, {"refused"})


@both_clients
@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"sftp_only": True}, "sftp|no shell|nobody"),
        ({"no_python": True}, "python3"),
        ({"python": "/bin/false"}, "python3"),
        ({"python": "/usr/bin/printf"}, "python3|no agent"),
        ({"forced_command": "echo You may not; exit 1"}, "no shell"),
    ],
    ids=["sftp only", "no python", "python that fails", "python that prints", "another command"],
)
def test_host_without_an_agent_is_unsupported_and_says_so(
    make_site: Callable[..., Site], client: str, variant: Any, words: str
) -> None:
    site = make_site(client, **variant)
    with pytest.raises(Unsupported, match=words) as raised:
        site.far.space()
    assert raised.value.facts.get("no_agent") or variant.get("sftp_only")
    assert raised.value.host == "there"


@both_clients
def test_forced_command_lets_the_agent_run(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client, forced_command=f'exec python3 -c "{BOOT}"')
    wants = site.fill("up", SMALL)
    results = site.copied("up", wants)
    assert {type(result) for result in results.values()} == {Receipt}
    site.check("up", wants, results)


@both_clients
def test_pinned_agent_serves_its_root_alone(make_site: Callable[..., Site], client: str, tmp_path: Path) -> None:
    command = f"exec python3 {shlex.quote(agent.__file__)} serve {shlex.quote(str(tmp_path / 'there'))}"
    site = make_site(client, forced_command=command)
    wants = site.fill("down", SMALL)
    results = site.copied("down", wants)
    site.check("down", wants, results)
    assert site.far.about()["agent"] == "installed there, for this root alone"
    for other in (str(tmp_path), str(tmp_path / "there/.."), "/etc"):
        elsewhere = SshHost("elsewhere", other, site.far.client)
        with pytest.raises(Refused, match="only the root"):
            list(elsewhere.scan())
        elsewhere.close()


@both_clients
def test_far_side_with_few_descriptors_is_congested(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client, forced_command=f'ulimit -n 24; exec python3 -c "{BOOT}"')
    wants = site.fill("up", {f"f{n:03}": 10 for n in range(150)})
    results = site.copied("up", wants, 1)
    errors = [result for result in results.values() if isinstance(result, TransferError)]
    assert errors
    assert {error.kind for error in errors} <= {"congested", "transient"}
    site.sshd.variant = type(site.sshd.variant)()
    site.sshd.remember_client_key()
    site.check("up", wants, results, {"congested", "transient"})


@both_clients
@pytest.mark.parametrize("sizes", [{f"f{n:02}": 400_000 for n in range(30)}, {"cut": 40 << 20, "small": 1}])
def test_full_disk_there_is_no_space_at_the_destination(
    make_site: Callable[..., Site], tmp_path: Path, client: str, sizes: dict[str, int]
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "x", there], check=False).returncode
    ):
        pytest.skip("only root may mount a small file system")
    try:
        site = make_site(client)
        wants = site.fill("up", sizes)
        results = site.copied("up", wants)
        errors = [result for result in results.values() if isinstance(result, TransferError)]
        assert errors
        assert {(error.kind, error.side, error.host) for error in errors} == {("no space", "destination", "there")}
        assert all(isinstance(error, NoSpace) for error in errors)
        subprocess.run(["mount", "-o", "remount,size=100m", there], check=True)
        site.check("up", wants, results, {"no space"})
        site.wait_for_the_far_side()
    finally:
        subprocess.run(["umount", "-l", there], check=True)


# Stopping, and leaving.


@both_clients
@both_ways
@pytest.mark.parametrize(
    ("sizes", "after"),
    [({f"f{n}": 8 << 20 for n in range(12)}, 1), ({"cut": 160 << 20}, 30_000_001)],
    ids=["files", "cut"],
)
def test_stop_ends_within_seconds(
    make_site: Callable[..., Site], client: str, way: str, sizes: dict[str, int], after: int
) -> None:
    site = make_site(client)
    wants = site.fill(way, sizes)
    site.proxy.limit(60_000_000)
    stopped: list[float] = []
    stop = At(after, lambda: stopped.append(time.monotonic()))
    results = site.copied(way, wants, 2, on_bytes=stop, stop=lambda: bool(stopped))
    assert time.monotonic() - stopped[0] < STOP_S
    site.proxy.limit(None)
    errors = [result for result in results.values() if isinstance(result, TransferError)]
    assert {error.phase for error in errors} == {"stopped"}
    site.check(way, wants, results)


@both_clients
def test_stop_of_a_digest_ends_within_seconds(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client)
    with (site.roots["there"] / "sparse").open("wb") as file:
        file.truncate(200 << 30)  # minutes of reading
    begun = time.monotonic()
    (result,) = site.far.digest(["sparse"], stop=lambda: time.monotonic() - begun > 0.5)
    assert isinstance(result, TransferError)
    assert result.phase == "stopped"
    assert time.monotonic() - begun < STOP_S


@both_clients
@both_ways
@pytest.mark.parametrize("sizes", [{f"f{n}": 1 << 20 for n in range(30)} | {"cut": 64 << 20}])
def test_results_that_are_left_early_leave_nothing_running(
    make_site: Callable[..., Site], client: str, way: str, sizes: dict[str, int]
) -> None:
    site = make_site(client)
    wants = site.fill(way, sizes)
    source, target = (site.here, site.far) if way == "up" else (site.far, site.here)
    results = copy(source, target, wants, streams=3)
    next(results)
    begun = time.monotonic()
    results.close()  # type: ignore[attr-defined] # it is a generator
    assert time.monotonic() - begun < STOP_S
    site.wait_for_the_far_side()
    assert not [name for root in site.roots.values() for name in files_in(root) if name.endswith(".part")]
    site.check(way, wants, {want.destination: Transient("left") for want in wants})


@both_clients
def test_calls_that_are_left_early_leave_nothing_running(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client)
    wants = site.fill("down", {f"f{n}": 300_000 for n in range(40)})
    for call in (
        site.far.scan,
        lambda: site.far.find(want.source for want in wants),
        lambda: site.far.digest(want.source for want in wants),
        lambda: site.far.read(wants),
        lambda: site.far.carry(wants),
    ):
        left = call()
        next(left)  # type: ignore[call-overload] # an iterator each
        left.close()  # type: ignore[union-attr] # a generator each
    site.wait_for_the_far_side()
    assert not [name for name in files_in(site.roots["there"]) if name.endswith(".part")]


def test_far_clock_that_is_wrong_is_only_said(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """A far Python whose time is a day ahead: it is reported, and everything else works."""
    folder = tmp_path / "ahead"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import time\nreal = time.time\ntime.time = lambda: real() + 86400\n")
    wrapper = tmp_path / "python-ahead"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {shlex.quote(sys.executable)} "$@"\n')
    wrapper.chmod(0o755)
    site = make_site(python=str(wrapper))
    site.far.python = str(site.sshd.folder / "bin/python3")
    clock = site.far.clock()
    assert 0 < clock.round_trip_s < LATE_S
    assert clock.offset_s == pytest.approx(86400, abs=2 + clock.round_trip_s)
    wants = site.fill("up", SMALL)
    site.check("up", wants, site.copied("up", wants))


# What is secret.


@both_clients
def test_no_secret_is_in_errors_or_on_the_far_side(make_site: Callable[..., Site], client: str) -> None:
    site = make_site(client)
    secret = "".join(Path(site.sshd.identity).read_text().splitlines()[1:-1])[60:120]
    site.sshd.forget_client_key()
    with pytest.raises(Refused) as raised:
        site.far.space()
    assert secret not in shown(str(raised.value)) + repr(raised.value.as_dict()) + repr(site.far)
    assert secret not in site.sshd.log()


def test_errors_are_of_one_tree() -> None:
    """What these tests take for the end of a broken route are kinds of errors that are tried again."""
    assert {Transient.kind, HostDown.kind, Congested.kind} == BROKEN
