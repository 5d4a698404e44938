"""Running commands: bounded in time, number and output."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.transfers.command.test_templates import HSI
from tests.waiting import LATE_S
from transfers.agent import Fault, never
from transfers.command.running import AT_ONCE, KEPT_BYTES, LINE_BYTES, Ended, Running


def running(*words: str, timeout_s: float = LATE_S) -> Running:
    """One whose command to list is these words."""
    return Running(replace(HSI, list=words, timeout_s=timeout_s))


def python(code: str, **more: float) -> Running:
    return running(sys.executable, "-I", "-S", "-c", code, **more)


def call(made: Running, take: Callable[[str], None] | None = None) -> Ended:
    return made.call("list", stop=never, take=take)


def test_exit_status_and_output_are_told() -> None:
    ended = call(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"))
    assert ended.status == 7
    assert sorted(ended.said.split()) == ["err", "out"]
    assert ended.how == "ended with exit status 7"
    assert call(python("import os; os.kill(os.getpid(), 9)")).how == "was killed by SIGKILL"


def test_environment_is_kept_but_for_the_language_and_nothing_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", "FILE:/x")
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    ended = call(python("import json, os, sys; print(json.dumps([dict(os.environ), sys.stdin.read()]))"))
    environment, read = json.loads(ended.said)
    assert (environment["KRB5CCNAME"], environment["LC_ALL"], read) == ("FILE:/x", "C", "")


def test_lines_come_whole_and_what_is_kept_is_bounded() -> None:
    lines: list[str] = []
    code = f"import sys; print('first'); print('x' * {LINE_BYTES + 9}); [print(n, 'y' * 90) for n in range(5000)]"
    ended = call(python(code + "; sys.stdout.write('last')"), lines.append)
    assert len(lines) == 5003
    assert (lines[0], lines[-1]) == ("first", "last")
    assert "\0" in lines[1]
    assert len(lines[1]) < 300
    assert len(ended.said) == KEPT_BYTES
    assert ended.said.endswith("last")


def test_what_a_command_leaves_behind_does_not_hold_it_up(tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = call(running("sh", "-c", "echo done; sleep 600 & exit 0"))
    assert (ended.status, ended.said) == (0, "done\n")
    assert time.monotonic() - begun < LATE_S


def test_command_that_hears_no_request_to_end_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )
    with pytest.raises(Fault) as raised:
        call(python(code, timeout_s=5.0))
    assert (raised.value.kind, raised.value.phase) == ("transient", "timeout")
    assert "did not end within 5 s" in raised.value.text
    assert raised.value.facts["said"] == "deaf\n"


COUNTS = """
import os, sys, time
mine = f"{sys.argv[1]}/{os.getpid()}"
os.mkdir(mine)
time.sleep(0.3)
print(len(os.listdir(sys.argv[1])))
os.rmdir(mine)
"""


def test_no_more_than_some_run_at_once(tmp_path: Path) -> None:
    made = running(sys.executable, "-I", "-S", "-c", COUNTS, str(tmp_path))
    said: list[int] = []
    threads = [threading.Thread(target=lambda: said.append(int(call(made).said))) for _ in range(3 * AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 3 * AT_ONCE
    assert 1 < max(said) <= AT_ONCE


def test_all_that_run_are_ended_and_later_ones_are_not_concerned() -> None:
    made = python("import time; print('up', flush=True); time.sleep(99)")
    up = threading.Event()
    faults: list[Fault] = []

    def run() -> None:
        try:
            made.call("list", stop=never, take=lambda line: up.set())
        except Fault as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    assert up.wait(LATE_S)
    made.halt()
    thread.join()
    assert [fault.phase for fault in faults] == ["stopped"]
    made.templates = replace(HSI, list=("true",))
    assert call(made).status == 0


@pytest.mark.parametrize("program", ["/nowhere/at/all", "no-such-program-at-all", "/"])
def test_program_that_is_not_there_is_a_host_that_is_down(program: str) -> None:
    with pytest.raises(Fault, match="cannot be started") as raised:
        call(running(program))
    assert (raised.value.kind, raised.value.side) == ("host down", "local")


def test_no_descriptor_is_left_open() -> None:
    made = running("true")
    call(made)
    before = descriptors()
    for _ in range(20):
        call(made)
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
