"""What systemd hears, on a real datagram socket as systemd opens one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stager import notify
from tests.waiting import LATE_S

Hear = Callable[[], list[str]]


@pytest.fixture(params=["file", "abstract"])
def hear(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hear]:
    """Receives one message and gives its assignments."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@stager-test-{os.getpid()}-{id(request)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        supervisor.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield lambda: supervisor.recv(65536).decode().split("\n")


def test_ready_carries_the_first_status(hear: Hear) -> None:
    assert notify.ready("3 manifests, 5 waiting")
    assert hear() == ["READY=1", "STATUS=3 manifests, 5 waiting"]


def test_ready_without_a_line_leaves_the_status_alone(hear: Hear) -> None:
    assert notify.ready()
    assert hear() == ["READY=1"]


def test_watchdog_is_one_word(hear: Hear) -> None:
    assert notify.watchdog()
    assert hear() == ["WATCHDOG=1"]


def test_stopping_says_what_is_waited_for(hear: Hear) -> None:
    assert notify.stopping("2 items under way")
    assert hear() == ["STOPPING=1", "STATUS=2 items under way"]


def test_reloading_carries_the_monotonic_time(hear: Hear) -> None:
    before = time.monotonic_ns() // 1000
    assert notify.reloading()
    first, second = hear()
    assert first == "RELOADING=1"
    name, _, usec = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(usec) <= time.monotonic_ns() // 1000


def test_status_cannot_smuggle_another_assignment(hear: Hear) -> None:
    assert notify.status("D1\nMAINPID=1\x1b[31m \udcff \u2028end")
    (line,) = hear()
    assert line == "STATUS=D1 MAINPID=1 [31m    end"


def test_a_long_status_is_cut_and_not_lost(hear: Hear) -> None:
    assert notify.status("x" * 300_000)
    (line,) = hear()
    assert line == "STATUS=" + "x" * notify.STATUS_LIMIT


def test_nothing_happens_without_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not any([notify.ready(), notify.status("x"), notify.watchdog(), notify.stopping(), notify.reloading()])


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/nowhere/notify", "@nobody-listens-here"])
def test_a_supervisor_that_is_not_there_stops_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.watchdog()


def test_a_supervisor_that_does_not_read_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)
        with pytest.raises(BlockingIOError):
            fill(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        began = time.monotonic()
        assert not notify.watchdog()
        assert time.monotonic() - began < LATE_S


def fill(address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        for _ in range(100_000):
            other.sendto(b"x", address)


def test_the_interval_is_half_of_what_the_unit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_interval() == 30.0
    monkeypatch.delenv("WATCHDOG_PID")
    assert notify.watchdog_interval() == 30.0


def test_a_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert notify.watchdog_interval() is None


@pytest.mark.parametrize("usec", ["", "0", "-5", "soon", "٣"])
def test_no_watchdog_was_asked_for(usec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert notify.watchdog_interval() is None
