"""As many copies as are needed go, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stager.evicting.choosing import Slot, just_enough


def slots(*sizes: int, transient: int = 0) -> list[Slot]:
    """Slots of these sizes in the order in which they came, the first of them transient."""
    return [Slot(number >= transient, number, (number,), size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "transient", "needed", "chosen"),
    [
        ([1, 1, 1, 1], 0, 2, [0, 1]),  # the oldest first
        ([1, 1, 1], 0, 5, [0, 1, 2]),  # all of too few
        ([100, 1, 1, 1], 0, 3, [1, 2, 3]),  # not a hundred for three
        ([100, 4, 1], 0, 3, [1]),  # what the last one made needless stays
        ([5, 5, 3], 0, 6, [0, 2]),
        ([9, 7, 8], 0, 6, [1]),
        ([1, 1, 1], 1, 2, [0, 1]),  # what is transient goes before the rest...
        ([8, 2], 1, 2, [0]),  # ...though another would free less
        ([1, 9], 1, 2, [1]),
        ([4, 4, 1], 2, 5, [0, 1]),
        ([], 0, 1, []),
        ([1, 2], 0, 0, []),
    ],
)
def test_just_enough_is_chosen(sizes: list[int], transient: int, needed: int, chosen: list[int]) -> None:
    assert [slot.copies[0] for slot in just_enough(slots(*sizes, transient=transient), needed)] == chosen


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(0, 12), st.integers(0, 300))
def test_nothing_of_what_is_chosen_is_needless_and_all_is_chosen_where_it_is_too_little(
    sizes: list[int], transient: int, needed: int
) -> None:
    there = slots(*sizes, transient=transient)
    chosen = just_enough(there, needed)
    freed = sum(slot.bytes for slot in chosen)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(there)
    if sum(sizes) < needed:
        assert chosen == there
    else:
        assert freed >= needed
        assert all(freed - slot.bytes < needed for slot in chosen)
    if any(slot.kept for slot in chosen):  # then what is transient was not enough
        assert sum(slot.bytes for slot in there if not slot.kept) < needed
