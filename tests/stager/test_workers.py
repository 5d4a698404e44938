"""Workers: who lives is known, and who died is known at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stager import items, workers
from tests.stager.site import Site
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from stager.database import open_database
from stager.workers import Presence
Presence(open_database(sys.argv[1]), "other").start()
print("here", flush=True)
sys.stdin.read()
"""


def test_names_are_never_the_same() -> None:
    assert len({workers.new_name() for _ in range(100)}) == 100


def test_a_worker_that_stops_is_forgotten(site: Site) -> None:
    presence = workers.Presence(site.database, "w")
    presence.start()
    presence.hold()  # again and again changes nothing
    assert site.rows("SELECT name FROM workers") == [("w",)]
    presence.stop()
    assert site.rows("SELECT name FROM workers") == []


def test_on_sqlite_every_other_worker_is_dead(sqlite_site: Site) -> None:
    for name in ("before", "me"):
        workers.Presence(sqlite_site.database, name).start()
    assert workers.dead(sqlite_site.database, "me") == ["before"]
    workers.bury(sqlite_site.database, ["before"])
    assert workers.dead(sqlite_site.database, "me") == []


def test_on_postgresql_a_worker_is_dead_when_its_process_is(postgres_site: Site) -> None:
    site = postgres_site
    site.files("a:raw/1")
    site.submit()
    me = workers.Presence(site.database, "me")
    me.start()
    url = site.config.database_url
    other = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "here\n"
    site.worker = "other"
    assert len(site.claim(lease_s=3600)) == 1
    assert workers.dead(site.database, "me") == []
    other.kill()
    other.communicate()
    gone = until(lambda: workers.dead(site.database, "me"))  # the server notices a closed connection within moments
    assert gone == ["other"]
    assert items.take_back(site.database, dead=gone) == 1
    workers.bury(site.database, gone)
    assert site.rows("SELECT name FROM workers") == [("me",)]
    me.stop()


def test_a_worker_whose_session_was_lost_takes_its_lock_anew(postgres_site: Site) -> None:
    site = postgres_site
    presence = workers.Presence(site.database, "w")
    presence.start()
    assert workers.dead(site.database, "me") == []
    held = """FROM pg_locks JOIN pg_database ON pg_database.oid = database
              WHERE locktype = 'advisory' AND datname = current_database()"""  # and none of another test's
    assert len(site.rows(f"SELECT pg_terminate_backend(pid) {held}")) == 1
    until(lambda: not site.rows(f"SELECT 1 {held}"))
    presence.hold()
    assert workers.dead(site.database, "me") == []
    presence.stop()
