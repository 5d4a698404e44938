"""`stager hosts --check`: facts by a real transfer, nothing left behind, one that is down holds up no other."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from stager import breakers, checking, drawing, showing
from stager.config import StoreHost
from stager.opening import Hosts
from tests.stager.conftest import Stager
from tests.stager.site import Site
from tests.stager.test_drawing import printed
from tests.tapes import Tapes
from tests.waiting import LATE_S
from transfers.errors import HostDown
from transfers.hosts import Clock


def left(site: Site) -> list[Path]:
    return [path for path in (site.folder / "hosts").rglob("*") if path.is_file() and path.name != "marker"]


def test_each_host_is_looked_at_and_nothing_is_left(site: Site) -> None:
    site.path("c:").rmdir()
    seen = checking.look(site.hosts, ["a", "b", "c", "mss"])
    assert [name for name, one in seen.items() if one.reachable] == ["a", "b", "mss"]
    assert "host down" in str(seen["c"].problem)
    for name in ("a", "b", "mss"):
        one = seen[name]
        assert (one.problem, one.remarks) == (None, [])
        assert one.marker
        assert one.total
        assert one.up_bytes_per_s
        assert one.down_bytes_per_s
    assert left(site) == []


def test_what_a_check_that_was_killed_left_is_removed_by_the_next(site: Site) -> None:
    instance = site.database.instance
    site.file(f"a:.stager/check-{instance}.dat", "half a sample")
    part = site.file(f"a:.stager/.check-{instance}.dat.0-{checking.EPOCH}.{instance}.part")
    assert checking.look(site.hosts, ["a"])["a"].problem is None
    assert not part.exists()
    assert left(site) == []


def test_a_host_that_does_not_answer_is_given_up_in_time(site: Site) -> None:
    with site.database.alone("check b"):  # as if another check hung there
        for patience_s in (1.0, 5.0, 25.0):  # where a machine is busy, what does answer takes its time too
            seen = checking.look(site.hosts, ["a", "b"], patience_s=patience_s)
            assert f"did not answer in {patience_s:g} s" in str(seen["b"].problem)
            if seen["a"].problem is None:
                break
    assert seen["a"].problem is None
    for thread in threading.enumerate():
        if thread.name in ("check a", "check b"):
            thread.join(LATE_S)
    assert left(site) == []


def test_the_table_fits_a_terminal_and_json_has_every_fact(site: Site) -> None:
    site.path("c:").rmdir()
    shown = showing.hosts(site.database, site.hosts, check=True)
    lines = printed(drawing.hosts(shown), *drawing.about_hosts(shown), width=80)
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    for word in ("reachable", "down", "free", "MB/s", "local,"):
        assert word in text
    facts = [json.loads(json.dumps(one.as_dict())) for one in shown]
    by_name = {one["name"]: one for one in facts}
    assert by_name["a"]["up_bytes_per_s"] > 0
    assert by_name["a"]["clock_offset_s"] == 0
    assert (by_name["c"]["state"], by_name["c"]["free"]) == ("down", None)
    assert "host down" in by_name["c"]["problem"]


def test_a_store_that_does_not_tell_its_room_is_said_to_have_none_that_is_known(site: Site) -> None:
    with Tapes() as tapes:
        (site.folder / "tapes/files/store").mkdir(parents=True)
        said = {
            "kind": "store",
            "driver": "command",
            "root": "/store",
            "commands": tapes.commands(site.folder / "tapes"),
        }
        mss = StoreHost.model_validate(said)
        site.config = site.config.model_copy(update={"hosts": site.config.hosts | {"mss": mss}})
        with Hosts(site.database, site.config) as hosts:
            shown = showing.hosts(site.database, hosts, ["mss"], check=True)
    (facts,) = [one.as_dict() for one in shown]
    assert (facts["problem"], facts["free"], facts["total"]) == (None, None, None)
    assert facts["up_bytes_per_s"]
    text = "\n".join(printed(drawing.hosts(shown), width=80))
    assert "space not known: no command tells it" in text
    assert " free" not in text


def test_without_a_check_the_trouble_that_the_daemon_knows_of_is_told(site: Site) -> None:
    breakers.trip(site.database, "b", HostDown("no route", host="b"))
    shown = showing.hosts(site.database, site.hosts, ["a", "b"], check=False)
    assert [(one.name, one.state) for one in shown] == [("a", "unused"), ("b", "in trouble")]
    (line,) = drawing.about_hosts(shown)
    assert "no route" in line.plain
    assert "next look in" in line.plain


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        (Clock(86_400.0, 0.01), "its clock is 24 h 0 min ahead of this machine's"),
        (Clock(-12.0, 0.01), "its clock is 12 s behind this machine's"),
        (Clock(1.5, 0.01), None),
        (Clock(3.0, 4.0), None),
        (Clock(None, 0.01), None),
    ],
)
def test_a_clock_that_is_off_is_said_in_words(clock: Clock, said: str | None) -> None:
    assert checking.about_clock(clock) == said


@pytest.mark.parametrize("names", [[], ["a"]])
def test_the_command_ends_with_1_when_a_host_cannot_be_used(site: Site, stager: Stager, names: list[str]) -> None:
    site.path("b:").rmdir()
    words = [word for name in names for word in ("--host", name)]
    code, out, _ = stager("hosts", "--check", "--json", *words)
    assert code == (0 if names else 1)
    assert [one["name"] for one in json.loads(out)] == (names or ["a", "b", "c", "mss"])
    assert stager("hosts", "--host", "nowhere")[0] == 2
    assert stager("hosts")[0] == 0
