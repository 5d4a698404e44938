"""The hours in which a route works. Standard library only: `stager status` asks too."""

from __future__ import annotations

from datetime import time as Clock


def is_open(hours: str | None, now: Clock) -> bool:
    """Whether `now` is within hours such as "20:00-06:00" (from the first minute on, up to the last); None: always."""
    if hours is None:
        return True
    begin, end = (Clock.fromisoformat(text) for text in hours.split("-"))
    return begin <= now < end if begin < end else now >= begin or now < end


def closed_until(hours: str | None, now: Clock) -> str | None:
    """The time of day at which they begin again; None within them."""
    return None if hours is None or is_open(hours, now) else hours.partition("-")[0]
