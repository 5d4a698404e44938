"""Hosts are made once a process, seen to be there each time they are asked for, and closed at the end."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stager.config import Config, parse_config
from stager.opening import Hosts
from tests.stager.site import Site
from tests.waiting import LATE_S, until
from transfers.errors import HostDown, TransferError


def with_host(site: Site, name: str, **said: Any) -> Config:
    hosts = {one: host.model_dump(exclude_unset=True) for one, host in site.config.hosts.items()}
    hosts[name] = said or hosts[name] | {"file_mode": "0600"}
    document = {"stager": {"database": site.config.stager.database}, "hosts": hosts}
    return parse_config(document, site.config.path)


@pytest.fixture
def silent(tmp_path: Path, sqlite_site: Site) -> Config:
    """A configuration whose host `far` says that nobody is there once there is a file `go`."""
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    wait = "echo once >> ${0%/*}/tries; until [ -e ${0%/*}/go ]; do sleep 0.05; done"
    program.write_text(f"#!/bin/sh\ncase $* in *exec*) {wait};; esac\nexit 255\n")
    program.chmod(0o755)
    return with_host(sqlite_site, "far", kind="ssh", root="/data", address="127.0.0.1", port=1, client="openssh")


def test_the_same_host_is_asked_each_time_and_by_both_ends(sqlite_site: Site) -> None:
    hosts = sqlite_site.hosts
    assert hosts["a"] is hosts["a"]
    assert hosts["a"] is not hosts["b"]
    hosts.close()
    assert hosts["a"].root == str(sqlite_site.path("a:")).rstrip("/")


def test_a_root_is_looked_at_each_time_it_is_asked_for(sqlite_site: Site) -> None:
    hosts = sqlite_site.hosts
    assert hosts["a"].space().free > 0
    away = sqlite_site.path("a:").rename(sqlite_site.folder / "away")
    sqlite_site.path("a:").mkdir()
    with pytest.raises(HostDown):
        hosts["a"]
    assert not list(sqlite_site.path("a:").iterdir())
    sqlite_site.path("a:").rmdir()
    away.rename(sqlite_site.path("a:"))
    assert hosts["a"].space().free > 0


def test_a_root_that_is_only_looked_at_is_neither_marked_nor_remembered(sqlite_site: Site) -> None:
    site = sqlite_site
    site.file("a:raw/1")
    with Hosts(site.database, site.config, marks=False) as hosts:
        for name in ("a", "mss", "a"):
            assert len(list(hosts[name].scan())) == (1 if name == "a" else 0)
        assert not list(site.path("").rglob(".stager"))
        assert site.rows("SELECT * FROM hosts") == []
        marker = site.hosts["a"].open(None)
        assert hosts["a"].space().free > 0
        site.path("a:.stager/marker").unlink()
        with pytest.raises(HostDown, match="no marker"):
            hosts["a"]
        site.change("DELETE FROM hosts")
        site.path("b:.stager").mkdir()
        site.path("b:.stager/marker").write_text(f"{marker}\n")
        assert hosts["b"].space().free > 0, "it carries a marker, and nothing is known of it"
    assert site.rows("SELECT * FROM hosts") == []
    assert not list(site.path("mss:").iterdir())


def test_another_configuration_gives_up_only_what_it_describes_otherwise(sqlite_site: Site) -> None:
    hosts = sqlite_site.hosts
    a, b = hosts["a"], hosts["b"]
    assert hosts.change(with_host(sqlite_site, "c")) == []
    (replaced,) = hosts.change(with_host(sqlite_site, "b"))
    replaced.close()
    assert hosts["a"] is a
    assert hosts["b"] is not b


def test_a_host_that_the_configuration_has_not_is_down(sqlite_site: Site) -> None:
    with pytest.raises(HostDown, match="no such host"):
        sqlite_site.hosts["nowhere"]


def test_a_host_that_is_slow_to_open_holds_up_no_other_and_is_tried_once(
    sqlite_site: Site, silent: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with Hosts(sqlite_site.database, silent) as hosts, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(hosts.__getitem__, "far") for _ in range(4)]
        until(lambda: (tmp_path / "bin/tries").exists() and all(one.running() for one in asking))
        assert hosts["a"].space().free > 0, "a slow host held up another"
        time.sleep(0.5)  # the others of them come to wait
        (tmp_path / "bin/go").touch()
        errors = [one.exception(LATE_S) for one in asking]
    assert all(isinstance(error, TransferError) and error.host == "far" for error in errors), errors
    assert (tmp_path / "bin/tries").read_text().count("once") == 1, "each of them waited for a try of its own"
    assert not [one for one in threading.enumerate() if one.name.startswith("ssh")]
