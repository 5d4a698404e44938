"""Numbers of things for people."""

from __future__ import annotations


def counted(number: int, noun: str, several: str | None = None) -> str:
    """`1 file`, `3 files`; where an `s` does not make it several, they are given: `2 copies`, `2 files are`."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"
