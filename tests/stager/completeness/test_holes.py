"""What is lacking of a whole exposure, told in few words and without loss."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stager.completeness.holes import MOST_BLOCKS, Key, Value, blocks, told

MEGACAM: dict[str, list[Value]] = {"snap": [0], "ccd": list(range(36)), "amp": [0, 1]}
CORNERS = {(0, 0), (0, 4), (4, 0), (4, 4)}
IMSIM: dict[str, list[Value]] = {
    "snap": [0, 1],
    "raft": [f"{a},{b}" for a in range(5) for b in range(5) if (a, b) not in CORNERS],
    "sensor": [f"{a},{b}" for a in range(3) for b in range(3)],
    "channel": [f"{a},{b}" for a in range(2) for b in range(8)],
}
IMSIM_PLACES = ("raft", "sensor")


def lacking(chosen: Callable[..., bool]) -> list[Key]:
    return [key for key in itertools.product(*IMSIM.values()) if chosen(*key)]


def told_imsim(chosen: Callable[..., bool]) -> list[str]:
    return told(IMSIM, lacking(chosen), IMSIM_PLACES)


def told_ccds(*ccds: int, amps: tuple[int, ...] = (0, 1)) -> list[str]:
    return told(MEGACAM, [(0, ccd, amp) for ccd in ccds for amp in amps], ("ccd",))


values = st.integers(0, 3) | st.sampled_from(["0,0", "0,1", "2,3"])
keys = st.integers(0, 4).flatmap(lambda ids: st.sets(st.tuples(*[values] * ids), max_size=40))


@given(keys)
def test_blocks_expand_to_exactly_what_they_were_made_of(some: set[Key]) -> None:
    expanded = [key for block in blocks(some) for key in block.files()]
    assert len(expanded) == len(set(expanded))
    assert set(expanded) == some
    assert sum(block.count for block in blocks(some)) == len(some)


@given(st.sets(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 1)), max_size=24))
def test_the_sentences_count_every_file_once_and_are_few(some: set[Key]) -> None:
    sets: dict[str, list[Value]] = {"snap": [0, 1], "ccd": list(range(6)), "amp": [0, 1]}
    lines = told(sets, some, ("ccd",))
    counts = [
        int(found[1]) for line in lines if (found := re.search(r"(?:^|: )(?:all )?(\d+)(?: of \d+)? missing", line))
    ]
    assert len(counts) == len(lines) <= MOST_BLOCKS + 1
    assert sum(counts) == len(some)


def test_a_sensor_without_one_of_its_snaps_is_one_sentence() -> None:
    assert told_imsim(lambda snap, raft, sensor, _: (snap, raft, sensor) == (1, "2,3", "1,1")) == [
        "raft 2,3 sensor 1,1: 16 of 32 missing (snap 1)"
    ]


def test_whole_sensors_rafts_and_snaps_are_told_as_such() -> None:
    assert told_imsim(lambda _, raft, sensor, __: (raft, sensor) == ("2,3", "1,1")) == [
        "raft 2,3 sensor 1,1: all 32 missing"
    ]
    assert told_imsim(lambda _, raft, *__: raft in ("2,3", "2,4")) == ["raft 2,3 2,4: all 576 missing"]
    assert told_imsim(lambda snap, *_: snap == 1) == ["3024 of 6048 missing (snap 1)"]
    assert told_imsim(lambda *_: True) == ["all 6048 missing"]
    assert told_imsim(lambda _, raft, *__: raft != "2,2") == ["every raft but 2,2: all 5760 missing"]


def test_a_lost_snap_and_a_lost_sensor_of_the_other_are_two_sentences() -> None:
    assert told_imsim(lambda snap, raft, sensor, _: snap == 1 or (raft, sensor) == ("2,3", "1,1")) == [
        "raft 2,3 sensor 1,1: 16 of 32 missing (snap 0)",
        "3024 of 6048 missing (snap 1)",
    ]


def test_ccds_are_told_by_number_with_runs_of_them() -> None:
    assert told_ccds(5, 17) == ["ccd 5, 17: all 4 missing"]
    assert told_ccds(*range(9), 20) == ["ccd 0-8, 20: all 20 missing"]
    assert told_ccds(5, amps=(1,)) == ["ccd 5: 1 of 2 missing (amp 1)"]


def test_a_ccd_that_no_whole_exposure_has_is_told_too() -> None:
    assert told_ccds(40, amps=(0,)) == ["ccd 40: 1 of 2 missing (amp 0)"]


def test_scattered_losses_are_counted_by_place_and_never_listed_one_by_one() -> None:
    dice = random.Random(4)
    lines = told_imsim(lambda *_: dice.random() < 0.5)
    assert len(lines) == MOST_BLOCKS + 1
    assert lines[-1].startswith("12 more rafts: ")
    few = told_imsim(lambda _, raft, *__: raft == "1,2" and dice.random() < 0.5)
    assert len(few) == 9
    assert all(line.startswith("raft 1,2 sensor ") for line in few)


def test_nothing_lacking_is_nothing_told() -> None:
    assert told(MEGACAM, [], ("ccd",)) == []


def test_a_camera_that_says_nothing_of_what_is_whole_has_its_files_counted() -> None:
    assert told({}, [()]) == ["1 missing"]


@pytest.mark.parametrize("what", ["without a row", "not proven"])
def test_what_is_lacking_is_said_as_the_caller_says_it(what: str) -> None:
    assert told(MEGACAM, [(0, 5, 0)], ("ccd",), what) == [f"ccd 5: 1 of 2 {what} (amp 0)"]
