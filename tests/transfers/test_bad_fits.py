"""Crafted files: each is refused or has a trouble, in bounded memory, and leaves whoever looks unharmed.

They are looked into by a process of its own (`looking.py`), so that its peak of memory is theirs.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transfers import crafted
from tests.transfers.crafted import extension, integer, padded, primary
from tests.transfers.looking import BRIEF, DEEP
from transfers.agent import Agent, Fault
from transfers.integrity import troubles

MEMORY = 200 << 20
PATIENCE_S = 120  # for all files of a folder, on a machine that others use: one takes far less than a second


def looked(folder: Path) -> tuple[dict[str, str], int]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.transfers.looking", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["found"], answer["peak"]


def made(folder: Path, files: dict[str, crafted.Made]) -> Path:
    for name, make in files.items():
        make(folder / name)
    return folder


@pytest.mark.slow
def test_crafted_files_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    found, peak = looked(made(tmp_path, crafted.BAD))
    assert len(found) == 2 * len(crafted.BAD)
    for name, sentence in found.items():
        assert sentence.startswith("source corrupt: "), f"{name}: {sentence}"
        assert len(sentence) < 400, name
        assert sentence.isprintable(), name
    assert peak < MEMORY, f"{peak >> 20} MB"


@pytest.mark.slow
def test_odd_and_long_files_are_walked_in_bounded_memory(tmp_path: Path) -> None:
    found, peak = looked(made(tmp_path, {**crafted.ODD, **crafted.PLAIN}))
    for name in crafted.ODD:
        assert "HDUs: " in found[f"{name} fits"], found[f"{name} fits"]
        assert not found[f"{name} fits"].endswith("HDUs: "), name
    for name in crafted.PLAIN:
        assert "HDUs: " in found[f"{name} fits"], found[f"{name} fits"]
    assert all(sentence.isprintable() for sentence in found.values())
    assert peak < MEMORY, f"{peak >> 20} MB"


def test_what_is_no_file_is_refused_and_hangs_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.fits").mkdir()
    os.mkfifo(tmp_path / "fifo.fits")
    (tmp_path / "link.fits").symlink_to("/dev/zero")
    (tmp_path / "loop.fits.gz").symlink_to("loop.fits.gz")
    names = ["folder.fits", "fifo.fits", "link.fits", "loop.fits.gz", "../a.fits", "/dev/zero", "none.fits"]
    for limits in (DEEP, BRIEF):
        kinds = [found.kind for found in Agent(str(tmp_path)).headers(names, limits) if isinstance(found, Fault)]
        assert kinds == ["refused"] * 6 + ["source missing"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_anywhere_is_seen(tmp_path: Path, packed: bool) -> None:
    """At every boundary of blocks, and a byte before and behind it. Between two HDUs NEXTEND tells."""
    whole = primary(integer("NEXTEND", 3), *["COMMENT"] * 40)
    whole += extension(axes=(5000,)) + padded(b"x" * 5000) + extension() + extension(axes=(2880,)) + b"y" * 2880
    path = tmp_path / ("a.fits.gz" if packed else "a.fits")
    for limits in (DEEP, BRIEF):
        for at in range(0, len(whole), 2880):
            for size in (at - 1, at, at + 1):
                if size < 0:
                    continue
                path.write_bytes(gzip.compress(whole[:size]) if packed else whole[:size])
                (found,) = Agent(str(tmp_path)).headers([path.name], limits)
                assert isinstance(found, Fault) or troubles(found), size
        path.write_bytes(gzip.compress(whole) if packed else whole)
        (found,) = Agent(str(tmp_path)).headers([path.name], limits)
        assert not isinstance(found, Fault)
        assert troubles(found) == []


def test_a_gzip_file_cut_anywhere_is_corrupt(tmp_path: Path) -> None:
    whole = gzip.compress(primary(axes=(3000,)) + os.urandom(3000) + bytes(2760))
    path = tmp_path / "a.fits.gz"
    for limits in (DEEP, BRIEF):
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            (found,) = Agent(str(tmp_path)).headers([path.name], limits)
            assert isinstance(found, Fault), size
            assert found.kind == "source corrupt"


def test_flipped_bits_of_a_header_never_break_who_looks(tmp_path: Path) -> None:
    """Whatever a header says, the answer is a fault, a trouble, or a file as sound as it looks."""
    whole = bytearray(primary(integer("NEXTEND", 1), axes=(50,)) + bytes(2880) + extension("DATASUM = '0'"))
    path = tmp_path / "a.fits"
    for at in [*range(480), *range(5760, 5760 + 560)]:
        for bit in (0, 3, 7):
            whole[at] ^= 1 << bit
            path.write_bytes(whole)
            (found,) = Agent(str(tmp_path)).headers([path.name], DEEP)
            if isinstance(found, Fault):
                assert found.kind == "source corrupt"
            else:
                assert all(one.text.isprintable() for one in troubles(found, path.name))
            whole[at] ^= 1 << bit
