"""The daemon's log: one line an event on standard error, where the journal or a file takes it.

JSON with STAGER_LOG=json, else `key=value`. Text from outside is escaped in both.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog


def log_to_stderr(*, least: int = logging.INFO) -> None:
    """Set the daemon's log up; what is of less weight than `least` is left out."""
    shape = os.environ.get("STAGER_LOG", "plain")
    renderer = (
        structlog.processors.JSONRenderer(ensure_ascii=True)
        if shape == "json"
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _escaped,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        # For each event: whoever runs commands within a process of his own may change what standard error is.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _escaped(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """No name of a file may write a second line into the log, nor a byte that the log cannot hold."""
    return {
        key: "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)
        if isinstance(value, str) and key != "traceback"
        else value
        for key, value in event.items()
    }
