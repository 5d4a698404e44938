"""A worker does what is its own, at the hours it may, and ends when nothing of that is left."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from stager.config import Config
from stager.daemon import Daemon, standing
from tests.stager.site import Site, configuration


def ends(site: Site, config: Config) -> int:
    """Run a worker until nothing is left that it can do now; the exit code that says how it stands."""
    Daemon(site.database, config, spool=False).run(once=True)
    return standing(site.database)


def with_route(site: Site, **said: Any) -> Config:
    route = site.config.route("a", "b").model_copy(update=said)
    return site.config.model_copy(update={"routes": {"a > b": route}})


def test_a_worker_leaves_alone_what_hosts_it_does_not_serve(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    url = site.config.stager.database
    assert ends(site, configuration(site.folder, url, serves=("a", "c"))) == 3
    assert set(site.states().values()) == {"waiting"}
    assert ends(site, configuration(site.folder, url, serves=("a", "b"))) == 0


def test_a_route_out_of_its_hours_waits_and_another_does_not_notice(site: Site) -> None:
    site.files("a:raw/1", "c:raw/1")
    site.submit("closed")
    site.submit("open", source="c:raw/**", destination="b:c", trigger=None)
    now = datetime.now().astimezone()
    begin, end = now + timedelta(hours=2), now + timedelta(hours=4)
    assert ends(site, with_route(site, hours=f"{begin:%H:%M}-{end:%H:%M}")) == 3
    assert (site.states("closed"), site.states("open")) == ({"raw/1": "waiting"}, {"raw/1": "done"})
    begin, end = now - timedelta(hours=2), now + timedelta(hours=2)
    assert ends(site, with_route(site, hours=f"{begin:%H:%M}-{end:%H:%M}")) == 0


def test_a_slow_route_brings_the_same_bytes(site: Site) -> None:
    site.file("a:raw/1", b"x" * 300_000)
    site.submit()
    assert ends(site, with_route(site, bytes_per_s=1_000_000)) == 0
    assert site.path("b:new/1").read_bytes() == b"x" * 300_000


@pytest.mark.parametrize("state", ["held", "missing"])
def test_what_only_a_person_or_the_source_can_mend_does_not_keep_a_worker(site: Site, state: str) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    if state == "held":
        site.file("b:new/1", b"other bytes")
    else:
        site.path("a:raw/1").unlink()
    assert ends(site, site.config) == (1 if state == "held" else 3)
    assert sorted(site.states().values()) == sorted(["done", state])
