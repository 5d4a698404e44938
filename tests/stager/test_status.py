"""Status: plain data that is what the database says, and percentages that say of what."""

from __future__ import annotations

import json
import random
from datetime import datetime

import pytest

from stager import breakers, daemon, intents
from stager.status import Row, Snapshot, reading, snapshot
from tests.stager.site import Site, done, failed, recount
from transfers.errors import HostDown, Refused, SourceMissing, Transient

KEYS = [
    "dataset", "manifest", "revision", "kind", "source", "destination", "lead", "state", "files", "bytes", "percent",
    "rate_bytes_per_s", "eta_s", "last_error",
]  # fmt: skip


def look(site: Site, dataset: str | None = None) -> Snapshot:
    with reading(site.config.database_url) as connection:
        return snapshot(connection, dataset)


def only(site: Site) -> Row:
    (row,) = look(site).datasets
    return row


def test_there_is_nothing_to_see_before_the_first_submission(site: Site) -> None:
    assert look(site).datasets == look(site).refused == []
    with reading(f"sqlite:///{site.folder / 'not-yet.db'}") as connection:
        assert snapshot(connection).datasets == []
    assert not (site.folder / "not-yet.db").exists()


def test_json_has_the_keys_of_the_design(site: Site) -> None:
    site.files("a:raw/1")
    site.run(lead="DG")
    said = json.loads(json.dumps(look(site).as_dict()))
    assert set(said) >= {"at", "datasets"}
    assert datetime.fromisoformat(said["at"]).utcoffset() is not None
    (row,) = said["datasets"]
    assert [key for key in row if key in KEYS] == KEYS
    assert list(row["files"]) == ["total", "done", "running", "waiting", "held", "missing", "excluded"]
    assert list(row["bytes"]) == ["total", "done"]
    assert (row["dataset"], row["manifest"], row["revision"], row["lead"]) == ("m data", "m", 1, "DG")
    assert (row["source"], row["destination"], row["kind"]) == ("a:raw/**", "b:new", "copy")
    assert (row["state"], row["percent"], row["last_error"]) == ("complete", 100.0, None)


def test_percent_is_of_bytes_proven(site: Site) -> None:
    for name, count in (("1", 100), ("2", 300), ("3", 600)):
        site.file(f"a:raw/{name}", bytes(count))
    site.submit()
    first, second, third = site.claim()
    site.finish(done(first))
    row = only(site)
    assert (row.percent, row.percent_of, row.state) == (10.0, "bytes", "running")
    assert (row.bytes, row.files["done"], row.files["running"]) == ({"total": 1000, "done": 100}, 1, 2)
    assert row.rate_bytes_per_s is not None
    assert row.eta_s == pytest.approx(900 / row.rate_bytes_per_s)
    site.finish(done(second), failed(third, Refused("permission denied")))
    row = only(site)
    assert (row.percent, row.state) == (40.0, "held")
    assert "permission denied" in str(row.last_error)


def test_what_is_nearly_whole_is_never_shown_as_whole(site: Site) -> None:
    site.file("a:raw/big", bytes(1_000_000))
    site.file("a:raw/empty", b"")
    site.submit()
    big, empty = site.claim()
    site.finish(done(big))
    assert only(site).percent == 99.9
    assert only(site).state == "running"
    site.finish(done(empty))
    assert (only(site).percent, only(site).state) == (100.0, "complete")


def test_percent_is_of_files_where_bytes_are_unknown(site: Site) -> None:
    site.file("a:raw/1", bytes(10))
    (site.folder / "list.txt").write_text("1\ngone\n")
    site.submit(source="a:raw", files="list.txt")
    site.finish(*(done(item) for item in site.claim()))
    row = only(site)
    assert (row.percent, row.percent_of, row.state) == (50.0, "files", "waiting")
    assert (row.files["missing"], row.bytes["total"]) == (1, None)


def test_what_is_excluded_is_in_no_total(site: Site) -> None:
    site.file("a:raw/1", bytes(10))
    site.file("a:raw/bad", bytes(990))
    (site.folder / "bad.txt").write_text("bad  # broken\n")
    site.submit(accept={"except": "bad.txt"})
    assert only(site).files["total"] == 1
    assert only(site).bytes["total"] == 10
    site.finish(*(done(item) for item in site.claim()))
    row = only(site)
    assert (row.percent, row.state, row.files["excluded"]) == (100.0, "complete", 1)


def test_the_state_says_what_holds_it_up(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    assert only(site).state == "waiting"
    intents.pause(site.database, "b", "disks")
    assert only(site).state == "paused"
    intents.resume(site.database, "b")
    intents.hold(site.database, "m")
    assert only(site).state == "held"
    intents.cancel(site.database, "m")
    assert only(site).state == "cancelled"
    intents.release(site.database, "m")
    first, second = site.claim()
    assert only(site).state == "running"
    site.finish(done(first), failed(second, SourceMissing("gone", side="source")))
    assert (only(site).state, only(site).percent) == ("waiting", 50.0)


def test_only_the_newest_revision_is_shown_and_by_dataset_or_manifest(site: Site) -> None:
    site.files("a:raw/1", "a:other/1")
    site.submit("one", dataset="d1")
    site.submit("one", dataset="d1", lead="DG")
    site.submit("two", dataset="d2", source="a:other/**", destination="b:two")
    assert [(row.manifest, row.revision) for row in look(site).datasets] == [("one", 2), ("two", 1)]
    for name in ("d2", "two"):
        assert [row.manifest for row in look(site, name).datasets] == ["two"]
    assert look(site, "nothing").datasets == []


def test_counts_equal_a_recount_and_percent_stays_in_bounds(site: Site) -> None:
    for number in range(40):
        site.file(f"a:raw/{number:02d}", bytes(number * 7))
    site.submit()
    rng = random.Random(7)
    before = 0.0
    while claimed := site.claim(most=5):
        error = rng.choice([Transient("reset"), Refused("no"), SourceMissing("gone")])
        site.finish(*(done(item) if rng.random() < 0.8 else failed(item, error) for item in claimed))
        row = only(site)
        counted = {state: counts for (_, state), counts in recount(site.database).items()}
        assert {state: count for state, count in row.files.items() if count and state != "total"} == {
            state: counts[1] for state, counts in counted.items()
        }
        assert row.bytes["done"] == counted.get("done", (0, 0, 0))[2]
        assert before <= row.percent < 100
        before = row.percent


@pytest.mark.parametrize(("outcome", "code"), [("done", 0), ("held", 1), ("waiting", 3)])
def test_the_exit_code_says_how_it_stands(site: Site, outcome: str, code: int) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    first, second = site.claim()
    ended = {"done": done(second), "held": failed(second, Refused("no")), "waiting": failed(second, Transient("x"))}
    site.finish(done(first), ended[outcome])
    assert daemon.standing(site.database) == code
    assert daemon.standing(site.database, ["another"]) == 0


def test_a_host_in_trouble_is_said_with_what_waits_for_it(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2", "c:raw/1")
    site.submit("one")
    site.submit("two", source="c:raw/**", destination="a:two")
    breakers.trip(site.database, "b", HostDown("no route to it", host="b", phase="connect"))
    found = look(site)
    (b,) = [host for host in found.hosts if host.kind]
    assert (b.host, b.kind, b.files, b.triggers) == ("b", "host down", 2, 0)
    assert "no route to it" in str(b.problem)
    assert b.troubled_s is not None
    assert b.troubled_s < 10
    assert b.next_look_s is not None
    assert 0 < b.next_look_s <= 6
    assert datetime.fromisoformat(str(b.since)).utcoffset() is not None
    one, two = found.datasets
    assert "no route to it" in str(one.last_error)
    assert two.last_error is None
    assert [(route.source, route.destination) for route in found.routes] == [("a", "b"), ("c", "a")]
    assert daemon.standing(site.database) == 1
    assert daemon.standing(site.database, ["one"]) == 1
    assert daemon.standing(site.database, ["two"]) == 3
    said = json.loads(json.dumps(found.as_dict()))
    assert {host["host"] for host in said["hosts"]} >= {"b"}
    assert said["routes"][0]["why"]


def test_an_items_own_error_is_told_before_that_of_its_host(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    (item,) = site.claim()
    site.finish(failed(item, Transient("a reset", host="b")))
    breakers.trip(site.database, "b", HostDown("no route", host="b"))
    assert "a reset" in str(only(site).last_error)


def test_what_a_paused_host_holds_up_is_counted_and_no_failure(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    intents.pause(site.database, "b", "disks")
    (b,) = [host for host in look(site).hosts if host.paused]
    assert (b.host, b.reason, b.files, b.kind) == ("b", "disks", 1, None)
    assert daemon.standing(site.database) == 3
