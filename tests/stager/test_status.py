"""Status: plain data that is what the database says, and percentages that say of what."""

from __future__ import annotations

import json
import random
from datetime import datetime

import pytest
from rich.console import Console

from stager import breakers, daemon, drawing, intents, showing, status
from stager.status import Row, Snapshot, reading, snapshot
from tests.stager.site import Site, done, failed, recount
from tests.waiting import LATE_S
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
    assert list(row["files"]) == ["total", "done", "running", "waiting", "held", "missing", "excluded", "evicted"]
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


def remarks(site: Site) -> list[str]:
    return [line.plain for line in drawing.remarks(look(site)) if not line.plain.startswith("%")]


def test_what_was_evicted_is_told_as_such_and_not_as_excluded(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2", "a:raw/bad")
    (site.folder / "bad.txt").write_text("bad  # broken\n")
    site.run(accept={"except": "bad.txt"})
    assert remarks(site) == ["m (copy): 1 excluded"]
    site.change("UPDATE items SET state = 'excluded', kind = 'evicted' WHERE source = 'raw/2'")
    assert remarks(site) == ["m (copy): 1 excluded, 1 evicted"]
    site.change("UPDATE items SET state = 'excluded', kind = 'evicted'")
    assert remarks(site) == ["m (copy): 3 evicted"]
    assert (only(site).files["excluded"], only(site).files["evicted"]) == (3, 3)


@pytest.mark.parametrize("width", [200, 60])
def test_of_a_dataset_that_was_evicted_as_a_whole_nothing_is_called_complete(site: Site, width: int) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run()
    site.change("UPDATE items SET state = 'excluded', kind = 'evicted'")
    console = Console(width=width)
    with console.capture() as drawn:
        console.print(drawing.status(look(site), width))
    out = drawn.get()
    assert ("evicted" in out, "complete" in out, "100" in out) == (True, False, False)


def test_more_that_was_evicted_than_is_counted_is_told_as_at_least(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files("a:raw/1", "a:raw/2", "a:raw/3")
    site.run()
    site.change("UPDATE items SET state = 'excluded', kind = 'evicted'")
    monkeypatch.setattr(status, "EVICTED", status.EVICTED.replace(str(status.MOST_COUNTED), "2"))
    monkeypatch.setattr(drawing, "MOST_COUNTED", 2)
    assert remarks(site) == ["m (copy): 3 excluded (at least 2 of them evicted)"]


def test_what_was_evicted_is_counted_without_a_look_at_all_items(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    site.change("""
        INSERT INTO items (manifest_id, source, destination, files, bytes, state, missing, epoch, tries, kind)
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
        SELECT manifest_id, source || n, destination || n, files, bytes,
               CASE WHEN n % 1000 = 0 THEN 'excluded' ELSE 'done' END, missing, epoch, tries,
               CASE WHEN n % 1000 = 0 THEN 'evicted' END FROM items, numbers""")
    site.change("ANALYZE items")
    assert only(site).files["evicted"] == 20
    explain = "EXPLAIN QUERY PLAN" if site.database.is_sqlite else "EXPLAIN"
    plan = " ".join(str(row) for row in site.rows(f"{explain} {status.EVICTED.format(1)}"))
    assert "ix_items_evicted" in plan
    assert "SCAN items" not in plan
    assert "Seq Scan" not in plan


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
    assert b.troubled_s < LATE_S
    assert b.next_look_s is not None
    assert b.next_look_s <= 6
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


def recall(site: Site, path: str, state: str, **said: object) -> None:
    values = {"path": path, "state": state, "reason": None, "asks": 1} | said
    site.change(
        f"""INSERT INTO recalls (host, path, state, asks, wanted_at, asked_at, not_before, reason)
            VALUES ('mss', :path, :state, :asks, {site.database.now} - 60, {site.database.now}, {site.database.now} + 9,
                    :reason)""",
        **values,
    )


def test_recalls_of_a_store_are_told_with_those_in_trouble(site: Site) -> None:
    recall(site, "a", "asked")
    recall(site, "b", "wanted", asks=0)
    recall(site, "c", "refused", reason="no such volume", asks=3)
    (told,) = look(site).recalls
    assert (told.store, told.asked, told.wanted, told.refused) == ("mss", 1, 1, 1)
    assert "no such volume" in told.troubles[0]
    assert json.loads(json.dumps(look(site).as_dict()))["recalls"][0]["store"] == "mss"
    said = "\n".join(str(line) for line in drawing.remarks(look(site)))
    assert "mss: recalls: 1 asked, 1 wanted, 1 refused" in said
    assert "no such volume" in said


def test_host_without_room_is_told_for_as_long_as_it_is_seen_so(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    site.change(f"UPDATE hosts SET no_room = 'b: below its floor', no_room_at = {site.database.now} WHERE name = 'b'")
    assert [host.no_room for host in look(site).hosts if host.no_room] == ["b: below its floor"]
    assert "b: below its floor" in "\n".join(str(line) for line in drawing.remarks(look(site)))
    assert [host.no_room for host in showing.hosts(site.database, site.hosts, ["b"], check=False)] == [
        "b: below its floor"
    ]
    site.change(f"UPDATE hosts SET no_room_at = {site.database.now} - 61 WHERE name = 'b'")
    assert not any(host.no_room for host in look(site).hosts)
    assert not any(host.no_room for host in showing.hosts(site.database, site.hosts, ["b"], check=False))
