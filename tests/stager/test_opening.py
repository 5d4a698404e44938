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
from transfers.errors import HostDown, TransferError


def with_host(site: Site, name: str, **said: Any) -> Config:
    hosts = {one: host.model_dump(exclude_unset=True) for one, host in site.config.hosts.items()}
    hosts[name] = said or hosts[name] | {"file_mode": "0600"}
    document = {"stager": {"database": site.config.stager.database}, "hosts": hosts}
    return parse_config(document, site.config.path)


@pytest.fixture
def silent(tmp_path: Path, sqlite_site: Site) -> Config:
    """A configuration whose host `far` takes half a second to say that nobody is there."""
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncase $* in *exec*) echo once >> ${0%/*}/tries; sleep 0.5;; esac\nexit 255\n")
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
        begun = time.monotonic()
        asking = [pool.submit(hosts.__getitem__, "far") for _ in range(4)]
        time.sleep(0.1)
        assert hosts["a"].space().free > 0
        assert time.monotonic() - begun < 0.45, "a slow host held up another"
        errors = [one.exception(30) for one in asking]
    assert all(isinstance(error, TransferError) and error.host == "far" for error in errors), errors
    assert (tmp_path / "bin/tries").read_text().count("once") == 1, "each of them waited for a try of its own"
    assert not [one for one in threading.enumerate() if one.name.startswith("ssh")]
