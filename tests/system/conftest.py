"""What the tests of the whole system share.

preloaded  commands that start at once, for the tests that run hundreds
site       hosts, a configuration and an SQLite database in a folder of the test's own
pt1        the same with the hosts of the PT1 page, each over SSH and through a proxy
strace     skips where there is no strace, or where it may not trace
rounds     how many times the default counts of a campaign (STAGER_TEST_ROUNDS, 1)
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.system.preloaded import Preloaded
from tests.system.sites import Site

if TYPE_CHECKING:
    from tests.sshd import Sshd
    from tests.system.far import Pt1

pytest.register_assert_rewrite("tests.system.checker", "tests.system.far")


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    parent = Preloaded()
    yield parent
    parent.close()


@pytest.fixture
def site(tmp_path: Path, preloaded: Preloaded) -> Iterator[Site]:
    made = Site(tmp_path / "site", preloaded)
    yield made
    made.close()


@pytest.fixture
def pt1(tmp_path: Path, preloaded: Preloaded, make_sshd: Callable[..., Sshd]) -> Iterator[Pt1]:
    from tests.system.far import Pt1  # after its asserts were seen to, above

    made = Pt1(tmp_path / "site", preloaded, make_sshd())
    yield made
    made.close()


@pytest.fixture(scope="session")
def strace(program: Callable[[str], str], require: Callable[[str], NoReturn]) -> None:
    path = program("strace")
    tried = subprocess.run([path, "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        require(f"strace may not trace here: {tried.stderr.strip()}")


@pytest.fixture(scope="session")
def rounds() -> int:
    return max(1, int(os.environ.get("STAGER_TEST_ROUNDS", "1")))
