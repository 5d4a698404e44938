"""What was evicted stays so when its manifest gets a new revision, and comes back when somebody asks for it."""

from __future__ import annotations

from stager import intents
from tests.stager.evicting.places import KB, evict, paths, spread
from tests.stager.site import Site


def test_new_files_of_a_dataset_bring_no_evicted_ones_back(site: Site) -> None:
    spread(site, "1", "2")
    assert evict(site, KB).enough
    reason = site.value("SELECT reason FROM items WHERE kind = 'evicted'")
    site.files("a:raw/3")
    assert site.run("first", trigger=None).changed
    assert site.states("first") == {"raw/1": "excluded", "raw/2": "done", "raw/3": "done"}
    assert not site.path("b:new/1").exists()
    revision = "SELECT max(id) FROM manifests WHERE name = 'first'"
    assert site.value(f"SELECT reason FROM items WHERE kind = 'evicted' AND manifest_id = ({revision})") == reason
    intents.retry(site.database, "first")
    site.work()
    assert set(site.states("first").values()) == {"done"}


def test_evicted_file_that_changed_at_its_source_is_brought_again(site: Site) -> None:
    spread(site, "1", "2")
    assert evict(site, KB).enough
    site.file("a:raw/1", "corrected")
    site.run("first", trigger=None)
    assert set(site.states("first").values()) == {"done"}
    assert site.path("b:new/1").read_text() == "corrected"


def test_what_comes_back_in_part_after_a_new_revision_gives_no_second_trigger(site: Site) -> None:
    told = {"queue": "pipeline"}
    spread(site, "1", "2", "3", "4", trigger=told)
    site.change("UPDATE triggers SET state = 'acked'")
    gone = paths(evict(site, 3 * KB))
    assert len(gone) == 3
    site.run("first", trigger=told, priority=5)
    assert len(site.triggers()) == 1
    intents.retry(site.database, "first", gone[0].rpartition("/")[2])
    site.work()
    assert sorted(site.states("first").values()) == ["done", "done", "excluded", "excluded"]
    assert len(site.triggers()) == 1
    intents.retry(site.database, "first")
    site.work()
    assert set(site.states("first").values()) == {"done"}
    assert len(site.triggers()) == 1


def test_a_corrected_file_of_a_group_that_made_room_gives_a_trigger_once_more(site: Site) -> None:
    told = {"queue": "pipeline"}
    spread(site, "1", "2", trigger=told)
    site.change("UPDATE triggers SET state = 'acked'")
    evict(site, KB)
    site.file("a:raw/1", "corrected")
    site.run("first", trigger=told)
    assert set(site.states("first").values()) == {"done"}
    assert len(site.triggers()) == 2
