"""Lengths of time for people."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """`4 s`, `12 min`, `3 h 20 min`, `2 d 4 h`; `-` for unknown."""
    if seconds is None:
        return "-"
    total = round(seconds)
    if total < 90:
        return f"{total} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
