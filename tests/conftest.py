"""What every test may use.

shared        the folder of real samples beside the checkout, or skipped
require       require(reason): skip for want of something outside the checkout; in CI, fail
program       program(name): the path of an installed program, or `require`
sqlite_url    a database of the test's own, by kind
postgres_url  the same on a real server (STAGER_TEST_POSTGRES says which), dropped afterwards
database_url  both in turn: what a test of the database asks for
sshd          a plain sshd of the whole run: for tests that leave it as it is
make_sshd     make_sshd(**variant): an sshd of the test's own, stopped afterwards (tests/sshd.py says which variants)
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import URL, make_url

if TYPE_CHECKING:
    from tests.sshd import Sshd

# How long an example takes, or the making of one, is the machine's: a busy one fails no test for it.
settings.register_profile("stager", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stager")

ROOT = Path(__file__).resolve().parent.parent
POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples, where this checkout has one; the test is skipped where it has not."""
    folder = Path(os.environ.get("STAGER_TEST_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no folder of real samples at {folder}")
    return folder


def _require(reason: str) -> NoReturn:
    if os.environ.get("STAGER_TEST_REQUIRE"):
        pytest.fail(f"{reason} (STAGER_TEST_REQUIRE is set: a skip would hide it)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Callable[[str], NoReturn]:
    """End the test for want of a service or a program: a skip on a laptop, a failure in CI."""
    return _require


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """The full path of a program that a test cannot do without."""

    def find(name: str) -> str:
        # Debian keeps sshd and mkfs where a user's PATH does not look.
        path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        return path or _require(f"{name} is not installed")

    return find


@pytest.fixture(scope="session")
def sshd_program(program: Callable[[str], str]) -> str:
    """The sshd to test with: the one that STAGER_TEST_SSHD names, or the one installed."""
    for client in ("ssh", "ssh-keygen"):
        program(client)
    return program(os.environ.get("STAGER_TEST_SSHD") or "sshd")


@pytest.fixture(scope="session")
def sshd(sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A plain server, one for the whole run. What changes it, or counts its sessions, asks for `make_sshd`."""
    from tests.sshd import Sshd

    with Sshd.start(tmp_path_factory.mktemp("sshd"), program=sshd_program) as server:
        yield server


@pytest.fixture
def make_sshd(sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sshd]]:
    """A function that starts a server of the test's own: make_sshd(sftp_only=True)."""
    from tests.sshd import Sshd

    with ExitStack() as servers:

        def make(**variant: Any) -> Sshd:
            folder = tmp_path_factory.mktemp("sshd")
            return servers.enter_context(Sshd.start(folder, **({"program": sshd_program} | variant)))

        yield make


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'stager.db'}"


@pytest.fixture(scope="session")
def postgres_server() -> URL:
    """A server that answers, and where databases may be made."""
    url = make_url(os.environ.get("STAGER_TEST_POSTGRES", POSTGRES))
    try:
        import psycopg

        psycopg.connect(_conninfo(url), connect_timeout=60).close()
    except (ImportError, psycopg.OperationalError) as error:
        _require(f"no PostgreSQL at {url.render_as_string()}: {str(error).splitlines()[0]}")
    return url


@pytest.fixture
def postgres_url(postgres_server: URL) -> Iterator[str]:
    """An empty PostgreSQL database, dropped afterwards with whatever is still connected to it."""
    name = f"stager_test_{uuid.uuid4().hex}"
    _administer(postgres_server, f'CREATE DATABASE "{name}"')
    yield postgres_server.set(database=name).render_as_string(hide_password=False)
    _administer(postgres_server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of the test's own, on each kind of server in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def _conninfo(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _administer(server: URL, statement: str) -> None:
    import psycopg

    with psycopg.connect(_conninfo(server), autocommit=True, connect_timeout=120) as connection:
        connection.execute(statement.encode())
