"""The benchmarks run, at sizes that say nothing of speed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent


LOCAL = ("planning", "status", "chop", "copies", "idle", "headers", "archive")


def ended(folder: Path, *asked: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """A tiny run, and the figures as `--json` has them; the folder they were made in must be left empty."""
    made = folder / "made"
    made.mkdir()
    environment = {**os.environ, "STAGER_BENCH_POSTGRES": "postgresql+psycopg://nobody@127.0.0.1:1/none"}
    arguments = ["--runs", "1", "--scale", "0.0005", "--folder", str(made), "--json", str(folder / "figures.json")]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks", *asked, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert list(made.iterdir()) == []
    return process, json.loads((folder / "figures.json").read_text("utf-8"))


def measured(folder: Path, *asked: str) -> list[dict[str, Any]]:
    """The figures of a tiny run in which nothing went wrong."""
    process, found = ended(folder, *asked)
    assert process.returncode == 0, process.stderr
    assert found["problems"] == []
    figures: list[dict[str, Any]] = found["figures"]
    assert all(figure["values"] and figure["median"] >= 0 for figure in figures)
    return figures


@pytest.fixture
def far_programs(sshd_program: str, program: Callable[[str], str], require: Callable[[str], NoReturn]) -> None:
    """What the copies over SSH are measured with is installed; else the test is skipped."""
    for name in ("rsync", "scp"):
        program(name)
    if not (Path(sys.executable).parent / "rclone").exists() and not shutil.which("rclone"):
        require("rclone is not installed")


@pytest.mark.slow
def test_every_benchmark_of_one_machine_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    subjects = {figure["subject"] for figure in measured(tmp_path, *LOCAL)}
    assert subjects == {"planning", "status", "chop", "local verified copy", "idle daemon", "headers", "mass store"}


@pytest.mark.slow
@pytest.mark.usefixtures("far_programs")
def test_all_ways_over_ssh_work_and_are_held_against_each_other(tmp_path: Path) -> None:
    from benchmarks import ssh

    figures = {figure["what"]: figure for figure in measured(tmp_path, "ssh-loopback", "--only", "262144 B")}
    for direction in ("up", "down"):
        for way in (*ssh.CPU_OF_ALL, ssh.SCP, ssh.RCLONE, ssh.PARAMIKO):
            assert figures[f"3 x 262144 B {direction}: {way}"]["median"] > 0
        assert figures[f"3 x 262144 B {direction}: stager run / rsync -a"]["goal"] == {"limit": 1.0, "at_most": True}
        assert figures[f"3 x 262144 B {direction}: stager run / rclone copy"]["goal"] == {
            "limit": 0.05,
            "at_most": True,
        }
        assert figures[f"{direction}: stager run, peak memory, ten times the files"]["median"] < 1.5


@pytest.mark.usefixtures("far_programs")
def test_a_distant_host_is_as_far_away_as_the_table_says(tmp_path: Path) -> None:
    figures = measured(tmp_path, "ssh-50ms", "--only", "^1 x .* up: (rsync -a|copying.copy over OpenSSH)$")
    times = {figure["what"].partition(": ")[2]: figure["median"] for figure in figures if figure["unit"] == "s"}
    assert times["rsync -a"] > 0.3  # a handshake, a login and rsync's own questions are more than six round trips
    (held,) = [figure for figure in figures if figure["unit"] == "x"]
    assert held["goal"] == {"limit": 0.25, "at_most": True}


@pytest.mark.usefixtures("far_programs")
def test_a_peer_that_fails_is_told_of_and_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin/scp"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    process, found = ended(tmp_path, "ssh-loopback", "--only", "134218 B up: (scp -r|rsync -a)$")
    assert process.returncode == 1
    assert "scp ended with status 3: no such luck" in process.stderr
    assert "no such luck" in found["problems"][0]
    assert next(figure["what"] for figure in found["figures"]) == "3 x 134218 B up: rsync -a"


@pytest.mark.usefixtures("far_programs")
def test_a_peer_that_brings_too_little_has_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = tmp_path / "bin/scp"
    idle.parent.mkdir()
    idle.write_text("#!/bin/sh\n")
    idle.chmod(0o755)
    monkeypatch.setenv("PATH", f"{idle.parent}:{os.environ['PATH']}")
    process, found = ended(tmp_path, "ssh-loopback", "--only", "134218 B up: scp -r$")
    assert process.returncode == 1
    assert "0 files arrived, 3 were to" in process.stderr
    assert found["figures"] == []


def test_what_all_files_would_take_is_reckoned_from_a_part_without_multiplying_the_start() -> None:
    from benchmarks.measuring import Taken
    from benchmarks.rounds import Measured

    first, some = Measured(Taken(2.0, 1.0), 3.0), Measured(Taken(11.0, 1.9), 4.8)
    assert some.further(first, 10, 100) == Measured(Taken(101.0, pytest.approx(10.9)), pytest.approx(22.8))  # type: ignore[arg-type]


def test_figures_are_judged_by_their_median() -> None:
    from benchmarks.results import Figure, Goal

    slow_once = Figure("chop", "stager / cp", "x", (2.0, 9.0, 2.5), goal=Goal(3.0))
    assert slow_once.median == 2.5
    assert slow_once.met is True
    assert Figure("planning", "files", "files/s", (40_000.0,), goal=Goal(50_000, at_most=False)).met is False
    assert Figure("planning", "memory", "MB", (90.0,)).met is None


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit):
        main(["chopp"])
    assert "chopp" in capsys.readouterr().err
