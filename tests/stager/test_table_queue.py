"""The built-in queue: the oldest first, one claimer at a time, nothing lost, said twice is done once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from stager.database import Database
from stager.queues import table
from stager.queues.table import QueueError
from tests.stager.site import Site


@pytest.fixture
def ready(site: Site) -> list[str]:
    """Three triggers that may be claimed, the oldest first."""
    for number in (1, 2, 3):
        site.files(f"a:raw{number}/x")
        site.run(f"m{number}", source=f"a:raw{number}/**", destination=f"b:new{number}")
    return [row[0] for row in site.rows("SELECT id FROM triggers ORDER BY created_at")]


def claim(database: Database, lease_s: float = 60.0) -> str | None:
    event = table.claim(database, "pipeline", "me", lease_s)
    return None if event is None else event["id"]


def test_the_oldest_is_claimed_first_and_each_once(site: Site, ready: list[str]) -> None:
    assert [claim(site.database) for _ in range(4)] == [*ready, None]
    assert table.claim(site.database, "other", "me", 60) is None


def test_the_event_is_a_cloud_event_with_all_that_a_pipeline_needs(site: Site, ready: list[str]) -> None:
    event = table.claim(site.database, "pipeline", "me", 60)
    assert event is not None
    assert json.loads(json.dumps(event)) == event
    assert {key: event[key] for key in ("specversion", "id", "source", "type", "subject")} == {
        "specversion": "1.0",
        "id": ready[0],
        "source": "stager://b",
        "type": "org.stager.dataset.complete",
        "subject": "m1 data",
    }
    data = event["data"]
    assert data.pop("inventory").startswith("b:.stager/inventories/")
    assert data == {
        "dataset": "m1 data", "revision": 1, "group": {}, "manifest": "m1", "host": "b",
        "root": str(site.path("b:").resolve()), "files": 1, "bytes": 192, "excluded": [],
    }  # fmt: skip


def test_a_lease_that_ran_out_goes_to_the_next_with_the_same_id(site: Site, ready: list[str]) -> None:
    assert claim(site.database, -1) == ready[0]
    assert claim(site.database) == ready[0]
    assert claim(site.database) == ready[1]
    assert [one.claims for one in table.waiting(site.database, "pipeline")] == [2, 1, 0]


def test_what_is_acknowledged_is_never_given_again(site: Site, ready: list[str]) -> None:
    claim(site.database, -1)
    table.ack(site.database, "pipeline", ready[0])
    table.ack(site.database, "pipeline", ready[0])
    assert claim(site.database) == ready[1]


def test_what_failed_stays_so_until_it_is_replayed(site: Site, ready: list[str]) -> None:
    claim(site.database)
    table.fail(site.database, "pipeline", ready[0], "bad flat")
    table.fail(site.database, "pipeline", ready[0], "bad flat")
    assert claim(site.database) == ready[1]
    listed = table.waiting(site.database, "pipeline")[0]
    assert (listed.id, listed.state, listed.note) == (ready[0], "failed", "bad flat")
    table.replay(site.database, "pipeline", ready[0])
    assert claim(site.database) == ready[0]


def test_an_acknowledged_trigger_may_be_replayed(site: Site, ready: list[str]) -> None:
    claim(site.database)
    table.ack(site.database, "pipeline", ready[0])
    table.replay(site.database, "pipeline", ready[0])
    assert claim(site.database) == ready[0]


@pytest.mark.parametrize("what", [table.ack, table.fail])
def test_only_a_claimed_trigger_can_be_ended(site: Site, ready: list[str], what: object) -> None:
    with pytest.raises(QueueError, match="not claimed: claim it first"):
        what(site.database, "pipeline", ready[0])  # type: ignore[operator]
    with pytest.raises(QueueError, match="has no trigger nobody"):
        what(site.database, "pipeline", "nobody")  # type: ignore[operator]
    with pytest.raises(QueueError, match="queue other has no trigger"):
        what(site.database, "other", ready[0])  # type: ignore[operator]


def test_an_ended_trigger_does_not_end_otherwise(site: Site, ready: list[str]) -> None:
    claim(site.database)
    table.ack(site.database, "pipeline", ready[0])
    with pytest.raises(QueueError, match="is acked"):
        table.fail(site.database, "pipeline", ready[0])


def test_a_trigger_without_its_inventory_is_neither_claimed_nor_replayed(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    site.change("UPDATE triggers SET state = 'pending'")
    assert claim(site.database) is None
    with pytest.raises(QueueError, match="pending: its inventory is not yet"):
        table.replay(site.database, "pipeline", table.waiting(site.database, "pipeline")[0].id)


def test_racing_claimers_never_get_one_trigger_twice(site: Site) -> None:
    paths = [f"D1/raw/v{visit}-fr/s00/c00-a0.fits" for visit in range(1, 41)]
    site.files(*(f"a:{path}" for path in paths))
    trigger = {"queue": "pipeline", "per": ["visit"]}
    site.run(source="a:D1/**", destination="b:D1", camera="cfht_megacam", check="none", trigger=trigger)

    def race(_: int) -> list[str]:
        got = []
        while (one := claim(site.database)) is not None:
            got.append(one)
        return got

    with ThreadPoolExecutor(4) as pool:
        got = [one for mine in pool.map(race, range(4)) for one in mine]
    assert len(got) == len(set(got)) == 40
