"""Networks, sshd and keys that fail while the daemon works: each fault is a host's and no item's, is told in words,
holds up no other route, and is got over by itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sshd import Sshd
from tests.system.checker import check, connection
from tests.system.far import Pt1, nothing_burnt, skipping_waits
from tests.system.preloaded import Preloaded

POSITIONS = (700, 9_000, 120_000, 1_500_000)  # of a connection's bytes: login, the agent's source, files


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("reset", "close"), ("flip", "flip")], ids=["ended", "damaged"])
def test_connections_that_break_anywhere_are_got_over(pt1: Pt1, kinds: tuple[str, str]) -> None:
    """At several positions either way, while files come and go and one large one is filled; nothing is held for it."""
    pt1.fill("here", "raw", 60, 60_000)
    pt1.fill("abe", "raw", 60, 60_000)
    pt1.write("here", "large/one.dat", bytes(range(256)) * (40 << 12))
    pt1.submit("up", "here:raw/**", "lsst:up")
    pt1.submit("large", "here:large/**", "lsst10:large")
    pt1.submit("down", "abe:raw/**", "here:down")
    pt1.submit("between", "abe:raw/**", "mss:raw", kind="archive")
    faults = [
        getattr(proxy, kinds[number % 2])(way, after, times=1)
        for proxy in pt1.proxies.values()
        for way in ("up", "down")
        for number, after in enumerate(POSITIONS)
    ]
    with pt1.daemon():
        skipping_waits(pt1)
    fired = sum(fault.fired for fault in faults)
    print(f"{kinds}: {fired} of {len(faults)} fired; attempts: {pt1.tries()}")
    assert fired >= 12
    for proxy in pt1.proxies.values():
        proxy.clear()
    with connection(pt1) as query:
        kinds = {row[0] for row in query("SELECT DISTINCT kind FROM attempts WHERE outcome <> 'done'")}
    assert kinds <= {"transient", "host down", "congested", "corrupted on the way"}, kinds
    check(pt1)


def test_a_host_that_is_away_burns_no_try_and_holds_up_no_other(pt1: Pt1) -> None:
    """Refused from the beginning, and then in the middle of its work."""
    pt1.fill("here", "raw", 80, 100_000)
    pt1.submit("job", "here:raw/**", "abe:new")
    pt1.submit("other", "here:raw/**", "lsst:new")
    abe = pt1.proxies["abe"]
    abe.refuse()
    with pt1.daemon():
        assert "nothing listens there" in pt1.until(lambda: pt1.trouble("abe"))[1]
        pt1.until_complete("other")
        row = pt1.status("job")
        assert (row["state"], row["files"]["waiting"]) == ("waiting", 80)
        assert "abe" in row["last_error"]
        assert pt1.run("hosts", "--check").code == 1
        drawn = pt1.run("status", "--why").out
        assert "abe" in drawn
        assert "nothing listens there" in " ".join(drawn.split())
        nothing_burnt(pt1)
        assert "failed" not in pt1.tries()
        abe.limit(100_000, "up")  # more than a minute of work: slow machines stop it in its midst too
        abe.refuse(False)
        pt1.until(lambda: pt1.skip_waits() or pt1.status("job")["files"]["done"] > 0)
        abe.refuse()
        abe.cut()
        pt1.until(lambda: pt1.trouble("abe"))
        assert pt1.status("job")["files"]["done"] < 80
        nothing_burnt(pt1)
        abe.limit(None)
        abe.refuse(False)
        skipping_waits(pt1)
    pt1.until(lambda: not pt1.trouble("abe"))
    check(pt1)


def test_a_host_that_says_nothing_holds_up_neither_others_nor_the_end(pt1: Pt1) -> None:
    """Stalled in the middle of its first files; told to stop then, the daemon gives them back, unburnt."""
    pt1.fill("here", "raw", 40, 50_000)
    pt1.fill("here", "big", 3, 5_000_000)
    pt1.submit("job", "here:big/**", "abe:new")
    pt1.submit("other", "here:raw/**", "lsst:new")
    fault = pt1.proxies["abe"].stall("up", 400_000)
    with pt1.daemon(drain_s=2.0):
        pt1.until_complete("other")
        pt1.until(lambda: fault.fired)
        row = pt1.status("job")
        assert (row["state"], row["files"]["done"]) == ("running", 0)
    nothing_burnt(pt1)
    with connection(pt1) as query:
        assert query("SELECT count(*) FROM items WHERE state = 'running' OR worker IS NOT NULL") == [(0,)]
    check(pt1)


def test_another_host_key_is_refused_until_a_person_says_otherwise(pt1: Pt1) -> None:
    pt1.fill("here", "raw", 10, 10_000)
    pt1.submit("job", "here:raw/**", "abe:new")
    assert pt1.run("daemon", "--once").code == 0
    pt1.fill("here", "more", 10, 10_000)
    pt1.submit("more", "here:more/**", "abe:more")
    server = pt1.server
    server.change_host_key()
    logins = server.log().count("Accepted publickey")
    ended = pt1.run("daemon", "--once")
    assert ended.code == 1
    kind, problem = pt1.trouble("abe")
    assert kind == "refused"
    for words in ("another key than the one that is known", "ssh-keygen -R", "abe"):
        assert words in problem
    assert "refused" in pt1.status("more")["last_error"]
    assert pt1.run("wait", "more", "--timeout", "1").code in (1, 3)
    assert pt1.run("verify", "job").code == 1
    nothing_burnt(pt1)
    assert server.log().count("Accepted publickey") == logins, "somebody logged in all the same"
    with pt1.daemon():
        pt1.until(lambda: pt1.trouble("abe"))
        for proxy in pt1.proxies.values():
            server.known_hosts_for(proxy.port)  # a person has compared the fingerprint, and put the key in
        skipping_waits(pt1)
    check(pt1)


@pytest.mark.parametrize("client", ["openssh", "paramiko"])
def test_a_key_of_ours_that_is_lost_there_is_waited_for(pt1: Pt1, client: str) -> None:
    pt1.over_ssh(pt1.server, "abe", proxy=pt1.proxies["abe"], client=client)
    pt1.fill("here", "raw", 200, 20_000)
    pt1.submit("job", "here:raw/**", "abe:new")
    pt1.server.forget_client_key()
    with pt1.daemon():
        kind, problem = pt1.until(lambda: pt1.trouble("abe"))
        assert kind == "refused"
        assert "authorized_keys" in problem
        nothing_burnt(pt1)
        pt1.server.remember_client_key()
        skipping_waits(pt1)
    assert pt1.tries() == {"done": 200}
    check(pt1)


def test_few_startups_make_few_streams_and_no_failures(
    tmp_path: Path, preloaded: Preloaded, make_sshd: Callable[..., Sshd]
) -> None:
    """An sshd that drops connections beyond two at a time, asked by several routes at once."""
    pt1 = Pt1(tmp_path / "site", preloaded, make_sshd(max_startups="2:100:2"))
    try:
        for name in ("lsst10", "lsst", "abe"):
            pt1.fill("here", name, 60, 50_000)
            pt1.submit(name, f"here:{name}/**", f"{name}:new")
        with pt1.daemon():
            skipping_waits(pt1)
        nothing_burnt(pt1)
        check(pt1)
    finally:
        pt1.close()


def test_an_sshd_that_is_killed_and_started_again_is_come_back_to(pt1: Pt1) -> None:
    pt1.fill("here", "raw", 150, 100_000)
    pt1.fill("lsst10", "raw", 150, 100_000)
    pt1.submit("job", "here:raw/**", "abe:new")
    pt1.submit("between", "lsst10:raw/**", "lsst:new")
    for name in ("abe", "lsst"):
        pt1.proxies[name].limit(150_000, "up")  # more than a minute of work: slow machines stop it in its midst too
    with pt1.daemon():
        pt1.until(lambda: all(pt1.status(name)["files"]["done"] for name in ("job", "between")))
        pt1.server.stop()
        pt1.until(lambda: pt1.trouble("abe") and (pt1.trouble("lsst") or pt1.trouble("lsst10")))
        assert not pt1.complete("job")
        pt1.server.restart()
        for name in ("abe", "lsst"):
            pt1.proxies[name].limit(None)
        skipping_waits(pt1)
    with connection(pt1) as query:
        assert not query("SELECT item_id FROM attempts WHERE outcome = 'done' GROUP BY item_id HAVING count(*) > 1")
    nothing_burnt(pt1)
    check(pt1)


# ------------------------------------------------------------------------- told to stop, to change, to pause


def slow_work(pt1: Pt1, bytes_per_s: int) -> None:
    """Small files up and down and a large one, at a pace at which they take a while."""
    pt1.fill("here", "raw", 300, 50_000)
    pt1.fill("lsst", "raw", 300, 50_000)
    pt1.write("here", "large/one.dat", bytes(range(256)) * (64 << 12))
    pt1.submit("up", "here:raw/**", "abe:new")
    pt1.submit("down", "lsst:raw/**", "here:down")
    pt1.submit("large", "here:large/**", "lsst10:large")
    for name in ("abe", "lsst"):
        pt1.proxies[name].limit(bytes_per_s)
    pt1.proxies["lsst10"].limit(4_000_000)


def full_speed(pt1: Pt1) -> None:
    for proxy in pt1.proxies.values():
        proxy.limit(None)


def test_sigterm_ends_within_the_drain_and_leaves_nothing_over_there(pt1: Pt1) -> None:
    slow_work(pt1, 200_000)
    with pt1.daemon(drain_s=1.0):
        pt1.until(lambda: any(pt1.root("abe").rglob("f*.dat")) and any(pt1.root("lsst10").rglob("*.part")))
        begun = time.monotonic()
    took = time.monotonic() - begun
    assert took < 60, f"{took:.1f} s of more than a minute's work"
    with connection(pt1) as query:
        assert query("SELECT count(*) FROM items WHERE state = 'running' OR worker IS NOT NULL") == [(0,)]
        assert query("SELECT count(*) FROM workers") == [(0,)]
    nothing_burnt(pt1)
    assert not pt1.complete("up"), "all was done before the signal: nothing was tested"
    parts = [file for name in pt1.hosts for file in pt1.root(name).rglob("*.part")]
    assert not parts
    full_speed(pt1)
    check(pt1)


def test_sighup_changes_streams_and_hosts_under_way(pt1: Pt1) -> None:
    slow_work(pt1, 500_000)

    def route() -> Any:
        rows = {(one["source"], one["destination"]): one for one in pt1.status()["routes"]}
        return rows.get(("here", "abe"), {"streams": None})

    with pt1.daemon() as daemon:
        pt1.until(lambda: any(pt1.root("abe").rglob("f*.dat")))
        pt1.more = '[routes."here > abe"]\nstreams = 5\n'
        pt1.over_ssh(pt1.server, "mss", client="paramiko")
        daemon.kill(signal.SIGHUP)
        pt1.until(lambda: "was read again" in daemon.err)
        pt1.until(lambda: route()["streams"] == 5)
        assert "configuration" in route()["why"], route()
        pt1.fill("here", "cal", 5, 1000)
        pt1.submit("cal", "here:cal/**", "mss:cal", kind="archive")
        pt1.until_complete("cal")
        full_speed(pt1)
        pt1.until_complete()
    with connection(pt1) as query:
        assert "paramiko" in str(query("SELECT reached FROM hosts WHERE name = 'mss'"))
    check(pt1)


def test_a_host_is_paused_and_resumed_while_the_daemon_runs(pt1: Pt1) -> None:
    slow_work(pt1, 300_000)
    with pt1.daemon():
        pt1.until(lambda: pt1.status("up")["files"]["done"])
        assert pt1.run("hosts", "pause", "abe").code == 0
        pt1.until(lambda: pt1.status("up")["state"] == "paused" and not pt1.status("up")["files"]["running"])
        full_speed(pt1)
        pt1.until_complete("down", "large")
        done = pt1.status("up")["files"]["done"]
        assert done < 300, "all was done before it was paused"
        time.sleep(1.5)
        assert pt1.status("up")["files"]["done"] == done
        assert pt1.run("hosts", "resume", "abe").code == 0
        pt1.until_complete()
    nothing_burnt(pt1)
    check(pt1)
