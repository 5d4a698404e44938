"""Copies at hosts over SSH go as those of this machine do; over SFTP alone nothing goes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.sshd import Sshd
from tests.stager.conftest import Stager
from tests.stager.evicting.places import check_all, content, copies, known, left, quarantined
from tests.stager.site import Site
from tests.stager.test_over_ssh import over_ssh

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def url(made_sqlite: str) -> str:
    """On SQLite alone: what is far has nothing to do with the database."""
    return made_sqlite


@pytest.mark.parametrize("far", [("b",), ("b", "c"), ("mss",)], ids="+".join)
def test_copies_go_and_come_back_over_ssh(site: Site, stager: Stager, sshd: Sshd, far: tuple[str, ...]) -> None:
    over_ssh(site, sshd, *far)
    for name in "123":
        known(site, f"b:new/{name}", f"mss:kept/{name}", f"c:also/{name}", data=content(name))
    site.path("mss:kept/2").write_bytes(b"x" * 1000)
    said = stager("evict", "b:", "--to-free", "2k", "--copies", "1", "--yes", "--json")
    assert (said.code, [one["path"] for one in json.loads(said.out)["evicted"]]) == (0, ["new/1", "new/3"])
    assert left(site, "b:new") == ["2"]
    assert [name.partition("-")[2] for name in quarantined(site)] == ["1", "3"]
    assert stager("evict", "b:new/3", "--put-back").code == 0
    site.change("UPDATE evictions SET purge_after = 1 WHERE state = 'quarantined'")
    assert stager("evict", "--purge").code == 0
    assert (copies(site), quarantined(site)) == (["new/2", "new/3"], [])
    site.path("mss:kept/2").write_bytes(content("2"))
    site.change("UPDATE copies SET trouble = NULL")
    check_all(site)


def test_one_file_system_is_one_by_whichever_host(site: Site, stager: Stager, sshd: Sshd) -> None:
    """c is reached over SSH, and lies on the disk that b lies on."""
    over_ssh(site, sshd, "c")
    known(site, "b:new/1", "mss:kept/1", "c:also/1", data=content("1"))
    said = stager("evict", "b:", "--to-free", "1", "--yes")
    assert said.code == 1
    assert "on the file system that it lies on itself: c:also/1" in said.out


def test_over_sftp_nothing_goes_and_nothing_counts(site: Site, stager: Stager, make_sshd: Callable[..., Sshd]) -> None:
    over_ssh(site, make_sshd(sftp_only=True), "b")
    known(site, "b:new/1", "mss:kept/1", "c:also/1", data=content("1"))
    said = stager("evict", "b:", "--to-free", "1", "--copies", "1", "--yes")
    assert (said.code, copies(site)) == (1, ["new/1"])
    assert "its host cannot tell on which file system it lies" in said.out
    said = stager("evict", "c:", "--to-free", "1", "--yes")
    assert (said.code, copies(site, "c")) == (1, ["also/1"])
    assert "b cannot tell on which file system it lies, and is not counted" in said.out
