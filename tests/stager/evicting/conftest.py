"""What the tests of eviction share: a store on a file system of its own, really."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from stager import cli
from stager.commands import evicting
from tests.stager.site import Site

SHM = Path("/dev/shm")  # noqa: S108  a file system that is another than that of temporary folders, on most machines


@pytest.fixture
def elsewhere(site: Site, require: Callable[[str], NoReturn]) -> Iterator[Path]:
    """The root of the store, moved to another file system than that of the other hosts."""
    root = site.path("mss:")
    if not os.access(SHM, os.W_OK) or SHM.stat().st_dev == root.stat().st_dev:
        require(f"{SHM} is no file system of its own")
    folder = Path(tempfile.mkdtemp(prefix="stager-test-", dir=SHM))
    root.rmdir()
    root.symlink_to(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def command() -> None:
    """The command is one of `stager`'s."""
    if all(one.callback is not evicting.evict for one in cli.app.registered_commands):
        cli.app.command()(evicting.evict)
