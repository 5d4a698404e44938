"""The proxy carries what it gets unchanged, and every fault fires where and as often as it is told to."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from random import Random

import pytest

from tests.proxies import Proxy, ProxyProcess
from tests.sshd import Sshd
from tests.waiting import LATE_S, until

DATA = Random(1).randbytes(3_000_000)
QUIET_S = 0.2  # so long nothing must come


class Server:
    """A port that sends back all it gets, and ends when that ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.ends: list[str] = []  # how connections ended, as this side saw it
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 20):
                    connection.sendall(data)
                self.ends.append("end")
            except OSError as error:
                self.ends.append(errno.errorcode[error.errno or 0])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as made:
        yield made


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=LATE_S)


def through(port: int, data: bytes) -> bytes:
    """All that comes back of the data, with RST after it where a reset ended it."""
    try:
        client = connect(port)
    except ConnectionResetError:
        return b"RST"
    with client:
        resets: list[bool] = []  # the kernel tells one of the two threads, whichever asks first
        sender = threading.Thread(target=lambda: resets.append(was_reset(client, data)))
        sender.start()
        got = bytearray()
        try:
            while part := client.recv(1 << 20):
                got += part
        except ConnectionResetError:
            resets.append(True)
        sender.join()
        return bytes(got) + b"RST" * any(resets)


def was_reset(client: socket.socket, data: bytes) -> bool:
    """Send it all, and the end."""
    try:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
    except OSError as error:
        return error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
    return False


def is_quiet(client: socket.socket) -> bool:
    client.settimeout(QUIET_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(LATE_S)
    return False


# ----------------------------------------------------------------------------------- without a fault


def test_all_bytes_pass_both_ways_and_are_counted(proxy: Proxy) -> None:
    assert through(proxy.port, DATA) == DATA
    assert through(proxy.port, b"pixels") == b"pixels"
    assert (proxy.up, proxy.down) == (len(DATA) + 6, len(DATA) + 6)
    assert (proxy.connections, [one.up for one in proxy.seen], proxy.fired) == (2, [len(DATA), 6], 0)


def test_many_connections_pass_at_once(proxy: Proxy) -> None:
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(through(proxy.port, DATA))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [DATA] * 8


def test_a_connection_that_ended_is_closed(proxy: Proxy) -> None:
    through(proxy.port, b"pixels")
    until(lambda: proxy.open == 0)


def test_a_target_that_is_not_there_is_a_reset() -> None:
    with socket.socket() as taken:  # by who does not listen, so that nobody else is given it
        taken.bind(("127.0.0.1", 0))
        with Proxy(taken.getsockname()[1]) as proxy:
            assert through(proxy.port, b"pixels") == b"RST"


def test_stopped_it_refuses_and_ends_what_it_carried(server: Server) -> None:
    proxy = Proxy(server.port)
    with connect(proxy.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        proxy.stop()
        proxy.stop()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy.port)


# -------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("after", [0, 1, 1000, 1_000_000])
def test_a_reset_comes_after_so_many_bytes(proxy: Proxy, after: int) -> None:
    fault = proxy.reset("up", after)
    assert through(proxy.port, DATA).endswith(b"RST")
    assert (fault.fired, proxy.fired, proxy.up) == (1, 1, after)
    assert proxy.down <= after


def test_a_reset_reaches_the_server_too(proxy: Proxy, server: Server) -> None:
    proxy.reset("down", 10)
    with connect(proxy.port) as client:  # which ends nothing itself
        client.sendall(b"pixels and more")
        until(lambda: server.ends == ["ECONNRESET"])


def test_an_orderly_end_comes_after_exactly_so_many_bytes(proxy: Proxy, server: Server) -> None:
    fault = proxy.close("down", 6)
    assert through(proxy.port, b"pixels and more") == b"pixels"
    assert (fault.fired, proxy.down) == (1, 6)
    until(lambda: server.ends == ["end"])


def test_an_orderly_end_is_no_reset_for_who_sends_much(proxy: Proxy, server: Server) -> None:
    fault = proxy.close("up", 1_000_000)
    got = through(proxy.port, DATA * 5)
    assert (fault.fired, proxy.up, b"RST" in got[-3:]) == (1, 1_000_000, False)
    until(lambda: server.ends == ["end"] and proxy.open == 0)


def test_a_stall_lasts_until_it_is_cleared(proxy: Proxy) -> None:
    fault = proxy.stall("down", 6)
    with connect(proxy.port) as client:
        client.sendall(b"pixels and more")
        assert client.recv(100) == b"pixels"
        assert is_quiet(client)
        assert (fault.fired, proxy.up, proxy.down) == (1, 15, 6)
        proxy.clear()
        assert client.recv(100) == b" and more"


def test_a_stall_lets_no_end_pass(proxy: Proxy) -> None:
    proxy.stall("up", 3)
    with connect(proxy.port) as client:
        client.sendall(b"pixels")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"pix"
        assert is_quiet(client)


@pytest.mark.parametrize("after", [0, 1, 2_999_999])
def test_one_byte_is_flipped(proxy: Proxy, after: int) -> None:
    fault = proxy.flip("up", after)
    got = through(proxy.port, DATA)
    assert [at for at in range(len(DATA)) if got[at] != DATA[at]] == [after]
    assert (len(got), fault.fired) == (len(DATA), 1)


def test_a_fault_fires_so_many_times(proxy: Proxy) -> None:
    fault = proxy.reset("up", 3, times=2)
    assert [through(proxy.port, b"pixels").endswith(b"RST") for _ in range(4)] == [True, True, False, False]
    assert fault.fired == 2


def test_a_fault_concerns_the_first_connections_alone(proxy: Proxy) -> None:
    through(proxy.port, b"before")
    fault = proxy.reset("up", 3, first=1)
    assert through(proxy.port, b"pi") == b"pi"
    assert through(proxy.port, b"pixels") == b"pixels"
    assert fault.fired == 0


def test_several_faults_fire_in_their_order(proxy: Proxy) -> None:
    proxy.close("up", 5)
    proxy.flip("up", 1)
    assert through(proxy.port, b"pixels") == b""
    assert (proxy.up, proxy.fired) == (5, 2)


def test_an_open_connection_meets_a_fault_so_many_bytes_from_now(proxy: Proxy) -> None:
    with connect(proxy.port) as client:
        client.sendall(b"pixels")
        assert client.recv(6) == b"pixels"
        flip = proxy.flip("down", 1)
        client.sendall(b"AAA")
        assert client.recv(3) == b"A@A"
        reset = proxy.reset("down", 3)
        client.sendall(b"BB")
        assert client.recv(2) == b"BB"
        now = proxy.stall("up", 0)
        client.sendall(b"CC")
        assert is_quiet(client)
        assert (flip.fired, reset.fired, now.fired) == (1, 0, 1)


def test_all_that_is_open_can_be_cut(proxy: Proxy) -> None:
    with connect(proxy.port) as one, connect(proxy.port) as other:
        for client in (one, other):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert (proxy.cut(), proxy.fired, proxy.open) == (2, 2, 0)
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    assert through(proxy.port, b"pixels") == b"pixels"


def test_new_connections_are_refused_and_open_ones_go_on(proxy: Proxy) -> None:
    with connect(proxy.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.port)
        client.sendall(b"y")
        assert client.recv(1) == b"y"
    proxy.refuse(False)
    assert through(proxy.port, b"pixels") == b"pixels"


def test_a_mute_one_accepts_and_says_nothing(proxy: Proxy) -> None:
    proxy.mute()
    with connect(proxy.port) as client:
        client.sendall(b"pixels")
        assert is_quiet(client)
    assert (proxy.fired, proxy.up) == (1, 0)
    proxy.clear()
    assert through(proxy.port, b"pixels") == b"pixels"


def test_too_many_at_once_are_reset(proxy: Proxy) -> None:
    proxy.at_most(1)
    with connect(proxy.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert through(proxy.port, b"pixels") == b"RST"
    assert proxy.fired == 1


# ----------------------------------------------------------------------------------- latency and rate


def test_latency_delays_both_ways(server: Server) -> None:
    with Proxy(server.port, latency_s=0.05) as proxy, connect(proxy.port) as client:

        def round_trip() -> float:
            begin = time.monotonic()
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            return time.monotonic() - begin

        round_trip()  # with the connection itself
        seen: list[float] = []
        until(lambda: seen.append(round_trip()) or seen[-1] < 0.2, lambda: seen)
        assert min(seen) > 0.098
        proxy.delay(0.0)
        until(lambda: round_trip() < 0.09, "a round trip without the latency")


def test_latency_keeps_the_order_and_every_byte(server: Server) -> None:
    with Proxy(server.port, latency_s=0.005) as proxy:
        assert through(proxy.port, DATA) == DATA


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_rate_is_kept(server: Server, way: str) -> None:
    with Proxy(server.port) as proxy:
        proxy.limit(4_000_000, "up" if way == "up" else "down")
        seen: list[float] = []

        def is_quick_enough() -> bool:
            begin = time.monotonic()
            assert through(proxy.port, DATA) == DATA
            seen.append(time.monotonic() - begin)
            return seen[-1] < 1.5

        until(is_quick_enough, lambda: seen)
        assert min(seen) > 0.6


def test_a_rate_is_shared_by_all_connections(server: Server) -> None:
    seen: list[tuple[float, list[int]]] = []

    def is_fair_and_quick_enough() -> bool:
        with Proxy(server.port) as proxy:
            proxy.limit(2_000_000, "down")
            begin = time.monotonic()
            threads = [threading.Thread(target=through, args=(proxy.port, DATA[:500_000])) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            parts = [one.down for one in proxy.seen]
            for thread in threads:
                thread.join()
            seen.append((time.monotonic() - begin, parts))
        return seen[-1][0] < 2 and len(parts) == 4 and min(parts) > max(parts) / 4

    until(is_fair_and_quick_enough, lambda: seen)
    assert min(took for took, _ in seen) > 0.8


FLOOD = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
data = bytes(1 << 20)
for _ in range(int(sys.argv[1])):
    connection.sendall(data)
connection.close()
"""


def flooded(latency_s: float) -> float:
    """The rate, MB/s, that comes through so much latency: sender and proxy each in a process of its own."""
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, "600"], stdout=subprocess.PIPE)
    assert flood.stdout is not None
    port = int(flood.stdout.readline())
    with flood, ProxyProcess(port, latency_s=latency_s) as proxy, connect(proxy.port) as client:
        view, got, begin = memoryview(bytearray(1 << 20)), 0, time.monotonic()
        while received := client.recv_into(view):
            got += received
        rate = got / (time.monotonic() - begin) / 1e6
        assert (got, proxy.down) == (600 << 20, 600 << 20)
    return rate


def test_latency_keeps_the_full_rate() -> None:
    """200 MB/s and more through 25 ms, which needs 5 MB under way; where the machine is busy, half of what comes
    through without."""
    seen: list[tuple[float, float]] = []

    def is_kept() -> bool:
        seen.append((flooded(0.025), flooded(0.0)))
        late, at_once = seen[-1]
        return late > min(200.0, at_once / 2)

    until(is_kept, lambda: seen)
    print(f"{seen} MB/s")


# ---------------------------------------------------------------------------- in a process of its own


def test_in_its_own_process_it_does_the_same(server: Server) -> None:
    with ProxyProcess(server.port) as proxy:
        assert through(proxy.port, DATA) == DATA
        assert (proxy.up, proxy.down, proxy.connections, proxy.fired) == (len(DATA), len(DATA), 1, 0)
        assert proxy.call("reset", "up", 3, times=1) == "reset"
        assert through(proxy.port, b"pixels").endswith(b"RST")
        assert proxy.fired == 1
    with pytest.raises(ConnectionRefusedError):
        connect(proxy.port)


# ------------------------------------------------------------------------------- in front of an sshd


def ssh_through(proxy: Proxy, sshd: Sshd, command: str) -> subprocess.CompletedProcess[bytes]:
    told = ["ssh", "-F", sshd.config_for(proxy.port), sshd.alias, command]
    return subprocess.run(told, capture_output=True, stdin=subprocess.DEVNULL, timeout=LATE_S, check=False)


def test_ssh_passes_and_its_faults_are_ssh_errors(sshd: Sshd) -> None:
    command = "head -c 1000000 /dev/zero"
    with Proxy(sshd.port) as proxy:
        assert len(ssh_through(proxy, sshd, command).stdout) == 1_000_000
        assert proxy.down > 1_000_000
        fault = proxy.flip("down", 500_000)
        flipped = ssh_through(proxy, sshd, command)
        assert (flipped.returncode, fault.fired) == (255, 1)
        proxy.clear()
        fault = proxy.reset("down", 500_000)
        assert (ssh_through(proxy, sshd, command).returncode, fault.fired) == (255, 1)
