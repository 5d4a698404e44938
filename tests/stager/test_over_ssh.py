"""The service with hosts over a real sshd: the same dataset, the same words, and what only a network can do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from stager import breakers, checking, doctor, status
from stager.config import Config, parse_config
from stager.opening import Hosts
from stager.samples import Exposure, write_focal_plane
from tests.proxies import Proxy
from tests.sshd import Sshd
from tests.stager.conftest import Stager
from tests.stager.site import Site, document
from tests.stager.test_daemon import ends, running, trouble
from tests.waiting import until
from transfers.errors import Refused, TransferError

MakeSshd = Callable[..., Sshd]
CLIENTS = ["openssh", "paramiko"]


def over_ssh(site: Site, server: Sshd, *names: str, **more: Any) -> Config:
    """Have these hosts of the site reached through the server from now on, at the same roots."""
    login = server.login()
    hosts: dict[str, Any] = {one: host.model_dump(exclude_unset=True) for one, host in site.config.hosts.items()}
    for name in names:
        known = {"driver": "ssh"} if hosts[name]["kind"] == "store" else {"kind": "ssh"}
        reach = {key: getattr(login, key) for key in ("address", "user", "port", "identity", "known_hosts")}
        hosts[name] |= known | reach | more
    said = {
        "stager": {"database": site.config.stager.database},
        "hosts": hosts,
        "queues": {"pipeline": {"kind": "table"}},
    }
    tables = "".join(
        f"[{kind}.{name}]\n{document(keys)}" for kind in ("hosts", "queues") for name, keys in said[kind].items()
    )
    site.config.path.write_text(f"[stager]\n{document(said['stager'])}{tables}")
    site.hosts.close()
    site.config = parse_config(said, site.config.path)
    site.hosts = Hosts(site.database, site.config)
    return site.config


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("far", [("a",), ("b",), ("a", "b")], ids="+".join)
def test_a_dataset_comes_whole_and_its_trigger_too(
    sqlite_site: Site, sshd: Sshd, client: str, far: tuple[str, ...]
) -> None:
    site = sqlite_site
    over_ssh(site, sshd, *far, client=client)
    for number in range(20):
        site.file(f"a:raw/{number}", bytes([number]) * (1000 * number))
    site.submit()
    assert ends(site, site.config) == 0
    assert all(site.path(f"b:new/{n}").read_bytes() == bytes([n]) * (1000 * n) for n in range(20))
    assert site.triggers() == [("m data", 1, "", "ready")]
    assert all(one.sound for one in doctor.examine(site.database, site.hosts, deep=True))
    with status.reading(site.config.database_url) as connection:
        found = status.snapshot(connection)
    reached = {host.host: host.reached for host in found.hosts}
    assert all(str(reached[name]).startswith(client) and "python 3" in str(reached[name]) for name in far)
    assert found.routes[0].why


def test_archive_and_restore_by_a_store_over_ssh(sqlite_site: Site, sshd: Sshd) -> None:
    site = sqlite_site
    over_ssh(site, sshd, "mss")
    site.files("a:raw/1", "a:raw/2")
    site.submit("up", kind="archive", destination="mss:raw")
    assert ends(site, site.config) == 0
    site.submit("down", kind="restore", source="mss:raw/**", destination="b:back")
    assert ends(site, site.config) == 0
    assert site.path("b:back/1").read_bytes() == site.path("a:raw/1").read_bytes()


def test_a_far_focal_plane_is_chopped_there(sqlite_site: Site, make_sshd: MakeSshd) -> None:
    site = sqlite_site
    site.path("a:in").mkdir(parents=True)
    size = write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(), rows=400).stat().st_size
    assert size > 30_000_000
    server = make_sshd()
    with Proxy(server.port) as proxy:
        known = server.known_hosts_for(proxy.port)
        over_ssh(site, server, "a", client="openssh", port=proxy.port, known_hosts=known)
        site.submit(kind="chop", source="a:in/*.fits", destination="a:out", camera="cfht_megacam")
        assert ends(site, site.config) == 0
        assert proxy.connections > 0
        assert proxy.up + proxy.down < size / 10, "pixels crossed the network"
        site.hosts.close()
    assert len(list(site.path("a:out").rglob("*.fits"))) == 72


@pytest.mark.parametrize("client", ["auto", "openssh", "paramiko"])
def test_without_a_shell_or_a_python_it_goes_by_sftp_and_says_so(
    sqlite_site: Site, make_sshd: MakeSshd, client: str
) -> None:
    site = sqlite_site
    server = make_sshd(sftp_only=True) if client != "paramiko" else make_sshd(no_python=True)
    over_ssh(site, server, "b", client=client)
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    assert ends(site, site.config) == 0
    assert site.path("b:new/2").read_bytes() == site.path("a:raw/2").read_bytes()
    with status.reading(site.config.database_url) as connection:
        (b,) = [host for host in status.snapshot(connection).hosts if host.host == "b"]
    assert "sftp" in str(b.reached)
    assert "the agent cannot run there" in str(b.reached)
    seen = checking.look(site.hosts, ["b"])["b"]
    assert seen.problem is None
    assert "by SFTP" in " ".join(seen.remarks)


def test_a_key_that_is_not_known_is_a_hosts_trouble_and_no_items(sqlite_site: Site, make_sshd: MakeSshd) -> None:
    site, server = sqlite_site, make_sshd()
    over_ssh(site, server, "b")
    site.files("a:raw/1")
    site.submit()
    server.change_host_key()
    assert ends(site, site.config) == 1
    assert site.states() == {"raw/1": "waiting"}
    assert trouble(site, "b") == "refused"
    assert site.value("SELECT count(*) FROM attempts") == 0
    assert not site.path("b:new").exists()
    server.trust_host_key()
    assert ends(site, site.config) == 0


def test_a_server_that_goes_and_comes_back_costs_no_try(sqlite_site: Site, make_sshd: MakeSshd) -> None:
    site, server = sqlite_site, make_sshd()
    over_ssh(site, server, "b")
    for number in range(200):
        site.file(f"a:raw/{number:03d}", b"x" * 50_000)
    site.submit()
    slow = site.config.route("a", "b").model_copy(update={"bytes_per_s": 500_000})
    with running(site, site.config.model_copy(update={"routes": {"a > b": slow}})):
        until(lambda: "done" in site.states().values())
        server.stop()
        until(lambda: trouble(site, "b") == "host down")
        assert site.value("SELECT max(tries) FROM items") == 0
        server._listen()
        until(lambda: set(site.states().values()) == {"done"})
    assert breakers.known(site.database)["b"].breaker.looks == 0
    assert all(site.path(f"b:new/{n:03d}").stat().st_size == 50_000 for n in range(200))


def test_no_connection_outlives_the_daemon(sqlite_site: Site, make_sshd: MakeSshd) -> None:
    site, server = sqlite_site, make_sshd()
    for client in CLIENTS:
        over_ssh(site, server, "b", client=client)
        site.file(f"a:raw/{client}")
        site.submit()
        assert ends(site, site.config) == 0
        site.hosts.close()
        until(lambda: server.sessions() == [])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("check")]


def test_the_check_tells_everything_of_a_far_host(sqlite_site: Site, sshd: Sshd, stager: Stager) -> None:
    site = sqlite_site
    over_ssh(site, sshd, "a", client="openssh")
    over_ssh(site, sshd, "b", client="paramiko")
    said = stager("hosts", "--check", "--json")
    assert said.code == 0, said
    by_name = {one["name"]: one for one in json.loads(said.out)}
    for name in ("a", "b"):
        one = by_name[name]
        assert sshd.host_key_fingerprint in one["about"]["key"], one
        assert one["round_trip_s"] > 0
        assert abs(one["clock_offset_s"]) < 20
        assert one["up_bytes_per_s"] > 0
        assert one["down_bytes_per_s"] > 0
        assert one["total"] >= one["free"] > 0
        assert one["marker"]
    assert not [path for path in site.path("a:").rglob("*") if path.is_file() and path.name != "marker"]
    drawn = stager("hosts", "--check")
    assert (drawn.code, sshd.host_key_fingerprint in drawn.out) == (0, True)


def test_what_can_only_be_read_is_a_source_and_the_check_says_so(sqlite_site: Site, make_sshd: MakeSshd) -> None:
    site = sqlite_site
    over_ssh(site, make_sshd(sftp_read_only=True), "a")
    site.files("a:raw/1")
    seen = checking.look(site.hosts, ["a"])["a"]
    assert seen.problem is None
    assert any("nothing can be written there" in remark for remark in seen.remarks)
    site.submit()
    assert ends(site, site.config) == 0
    assert site.path("b:new/1").read_bytes() == site.path("a:raw/1").read_bytes()


def test_both_ways_are_told_when_neither_works(sqlite_site: Site, make_sshd: MakeSshd) -> None:
    site = sqlite_site
    over_ssh(site, make_sshd(forced_command="/bin/false"), "b")
    with pytest.raises(TransferError, match=r"neither the agent .* nor SFTP") as caught:
        site.hosts["b"]
    assert not isinstance(caught.value, Refused)
