"""Which items go into the next bundle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manifests.parts import Bundling
from stager.bundling.choosing import Row, decide
from transfers.bundles import packed_size

NOW = 1_000_000.0


def row(number: int, size: int = 10, age_s: float = 10.0) -> Row:
    return Row(number, "waiting", False, f"raw/{number:05}", size, int((NOW - age_s) * 1e9), True)


def rule(**said: object) -> Bundling:
    return Bundling.model_construct(**{"per": (), "bytes": 100_000, "files": 5, "below": 1000, "age_s": 60.0} | said)  # type: ignore[arg-type]  # smaller than a manifest may say


def packed(rows: list[Row]) -> int:
    """Bytes of the bundle of these."""
    return packed_size("day=2010-06-01", [(one.destination, one.size, one.mtime_ns or 0) for one in rows])


def test_whole_group_is_packed_at_once() -> None:
    assert decide(rule(), [row(1), row(2)], 0, "", NOW).ids == (1, 2)


def test_group_is_divided_by_bytes_and_by_files() -> None:
    assert decide(rule(), [row(number, 40_000) for number in range(5)], 0, "", NOW).ids == (0, 1)
    assert decide(rule(), [row(number, 1) for number in range(9)], 0, "", NOW).ids == (0, 1, 2, 3, 4)


def test_file_larger_than_a_bundle_is_one_of_its_own() -> None:
    assert decide(rule(), [row(1, 500_000), row(2, 1)], 0, "", NOW).ids == (1,)


def test_incomplete_group_waits_until_its_oldest_file_is_old_enough() -> None:
    rows = [row(1, age_s=30), row(2, age_s=20)]
    waits = decide(rule(), rows, 1, "visit=7", NOW)
    assert (waits.ids, waits.wait_s) == ((), 30.0)
    assert "1 more of visit=7" in str(waits.reason)
    assert decide(rule(), rows, 1, "visit=7", NOW + 31).ids == (1, 2)


def test_incomplete_group_that_fills_a_bundle_is_packed() -> None:
    assert decide(rule(), [row(1, 60_000), row(2, 60_000)], 1, "", NOW).ids == (1,)


def test_group_of_which_nothing_can_be_packed_is_looked_at_again() -> None:
    waits = decide(rule(), [], 3, "", NOW)
    assert (waits.ids, waits.reason, waits.wait_s > 1) == ((), None, True)


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=30), st.integers(1, 30_000), st.integers(1, 12))
def test_choices_one_after_the_other_pack_each_file_once(sizes: list[int], most: int, files: int) -> None:
    left = [row(number, size) for number, size in enumerate(sizes)]
    done: list[int] = []
    while left:
        ids = decide(rule(bytes=most, files=files), left[: files + 1], 0, "", NOW).ids
        chosen = [one for one in left if one.id in ids]
        assert 1 <= len(chosen) <= files
        assert len(chosen) == 1 or packed(chosen) <= most
        done += ids
        left = [one for one in left if one.id not in ids]
    assert sorted(done) == list(range(len(sizes)))
