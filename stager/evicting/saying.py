"""Warnings of the log that stay true for long, and are said once."""

from __future__ import annotations

import structlog

from stager.database import Database

log = structlog.get_logger("stager")

_said: dict[tuple[str, str, str], str] = {}  # by database, place and event


def warn_once(database: Database, place: str, event: str, problem: str) -> None:
    """Say this of a place, unless it is what was said last."""
    key = (database.instance, place, event)
    if _said.get(key) != problem:
        _said[key] = problem
        log.warning(event, place=place, problem=problem)


def mended(database: Database, place: str, event: str) -> None:
    """It is so no more, and will be said again when it is."""
    _said.pop((database.instance, place, event), None)
