"""The benchmarks run, at sizes that say nothing of speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def measured(folder: Path, *names: str) -> dict[str, Any]:
    """The figures of tiny runs, as `--json` has them; the folder they were made in must be left empty."""
    made = folder / "made"
    made.mkdir()
    environment = {**os.environ, "STAGER_BENCH_POSTGRES": "postgresql+psycopg://nobody@127.0.0.1:1/none"}
    arguments = ["--runs", "1", "--scale", "0.0005", "--folder", str(made), "--json", str(folder / "figures.json")]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", *names, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert list(made.iterdir()) == []
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text("utf-8"))
    return found


@pytest.mark.slow
def test_every_benchmark_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found["problems"] == []
    subjects = {figure["subject"] for figure in found["figures"]}
    assert subjects == {"planning", "status", "chop", "local verified copy", "idle daemon"}
    assert all(figure["values"] and figure["median"] >= 0 for figure in found["figures"])


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
