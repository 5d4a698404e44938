"""What all commands share: the configuration option, exit codes, printing."""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stager.config import Config
    from stager.database import Database
    from stager.opening import Hosts

LONGEST_S = 30 * 86400  # of a lease, of a grace time: what the configuration allows, too
PIPED_COLUMNS = 400  # of a table that goes to a pipe or a file: a line for each row


class Exit(IntEnum):
    """What a command's exit code says."""

    DONE = 0  # all done
    FAILED = 1  # some items failed or are held
    USAGE = 2  # bad usage, configuration or manifest; nothing was changed
    INCOMPLETE = 3  # not complete yet: a wait ran out, a queue is empty


ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration; else $STAGER_CONFIG, ./stager.toml, /etc/stager/stager.toml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def a_number(seconds: float | None) -> float | None:
    """Refuse what is none, as bad usage: a callback of every option that takes seconds, whose bounds NaN passes."""
    if seconds is not None and math.isnan(seconds):
        raise typer.BadParameter("nan is no number of seconds.")
    return seconds


@contextmanager
def opened(config: str | None) -> Iterator[tuple[Config, Database]]:
    """The configuration and its database, closed at the end."""
    from stager.config import read_config
    from stager.database import open_database

    read = read_config(config)
    database = open_database(read.database_url)
    gc.freeze()  # what is imported stays: that the collector no longer visits it saves a tenth of a large planning
    try:
        yield read, database
    finally:
        database.close()


@contextmanager
def opened_hosts(config: Config, database: Database, *, marks: bool = True) -> Iterator[Hosts]:
    """The hosts of a configuration, closed at the end; without `marks` a root that was never used is left as it is."""
    from stager.opening import Hosts

    with Hosts(database, config, marks=marks) as hosts:
        yield hosts


def console() -> Any:
    """A console as wide as the terminal, or wide enough for a line a row where there is none."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS
    # Names of files are shown as they are, not as the emoji they may name: that table is also a tenth of the start.
    return Console(width=wide, highlight=False, emoji=False)


def say(text: str) -> None:
    """A line for people."""
    print(text)


def complain(text: str) -> None:
    """A line about what went wrong, beside the command's output."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """JSON that any reader takes: ASCII, whatever file names hold."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))
