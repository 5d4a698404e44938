"""Waiting for what another thread or process does.

What is asserted of work beside the test is waited for, never slept for: a machine may be busy, so that the limit is far
beyond what anything takes, and says no more than that it does not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LATE_S = 120.0  # what does not come until then does not come
PAUSE_S = 0.02  # between two looks

T = TypeVar("T")


def until(
    holds: Callable[[], T],
    wanted: str | Callable[[], object] = "what was waited for",
    within_s: float = LATE_S,
    pause_s: float = PAUSE_S,
) -> T:
    """What `holds` gives once that is true; fails when it does not become so. `wanted` names it, or tells how it stands
    instead."""
    ends = time.monotonic() + within_s
    while not (found := holds()):
        if time.monotonic() > ends:
            told = wanted if isinstance(wanted, str) else wanted()
            raise AssertionError(f"not so after {within_s:g} s: {told}")
        time.sleep(pause_s)
    return found
