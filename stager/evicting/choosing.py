"""Which of the copies that may go are to go: as many as are needed, and no more. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Slot(NamedTuple):
    """What goes or stays together: one copy, or all pieces of a focal plane. Slots sort as they are to go."""

    kept: bool  # False: all that brought it is transient
    arrived_at: float
    copies: tuple[int, ...]  # ids
    bytes: int
    partly: bool = False  # pieces of it were not named


def just_enough(slots: Sequence[Slot], needed: int) -> list[Slot]:
    """Those of the slots, which are in the order in which they are to go, that free `needed` bytes; all of them where
    they are too few.

    What is transient goes before the rest. One that would free more than is still needed is passed over while others
    will do; then the smallest such ends it, and those that it made needless stay.
    """
    transient = [slot for slot in slots if not slot.kept]
    if sum(slot.bytes for slot in transient) >= needed:
        slots = transient
    chosen: list[Slot] = []
    smallest: Slot | None = None  # of those passed over
    left = needed
    for slot in slots:
        if left <= 0:
            break
        if slot.bytes <= left:
            chosen.append(slot)
            left -= slot.bytes
        elif smallest is None or slot.bytes < smallest.bytes:
            smallest = slot
    if left > 0 and smallest is not None:
        chosen = [*_without_needless(chosen, smallest.bytes - left), smallest]
    return chosen


def _without_needless(chosen: Sequence[Slot], surplus: int) -> list[Slot]:
    """The chosen ones but for those that the surplus can do without, from the last of them on."""
    stay: set[int] = set()
    for number in range(len(chosen) - 1, -1, -1):
        if chosen[number].bytes <= surplus:
            surplus -= chosen[number].bytes
            stay.add(number)
    return [slot for number, slot in enumerate(chosen) if number not in stay]
