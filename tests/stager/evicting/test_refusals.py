"""What is never evicted, and what is told of it."""

from __future__ import annotations

import pytest

from manifests.errors import InputError
from stager import intents, revising
from stager.evicting.candidates import name
from stager.evicting.reasons import Why
from stager.models import encode_path
from stager.queues import table
from tests.stager.evicting.places import (
    KB,
    check_all,
    content,
    copies,
    disks,
    evict,
    known,
    left,
    paths,
    spread,
    stays,
    three,
    why,
)
from tests.stager.site import Site

# ------------------------------------------------------------------------------ what the database says


def test_a_copy_without_two_others_stays(site: Site) -> None:
    known(site, "b:new/1", "mss:kept/1")
    assert stays(site, Why.FEW) == "new/1: at mss; 2 are needed"
    assert left(site, "b:new") == ["1"]


def test_the_last_copy_stays_whatever_is_asked_for(site: Site) -> None:
    known(site, "b:new/1")
    assert "at no other host" in stays(site, Why.FEW, least=1)


def test_a_copy_stays_without_one_at_a_mass_store(site: Site) -> None:
    known(site, "b:new/1", "a:1", "c:1")
    assert stays(site, Why.NO_STORE) == "new/1: only at a, c"
    assert paths(evict(site, KB, what="b:", least=1)) == []


def test_one_other_at_a_store_is_enough_where_that_is_asked_for(site: Site) -> None:
    known(site, "b:new/1", "mss:kept/1")
    assert paths(evict(site, KB, least=1)) == ["new/1"]
    check_all(site)


def test_three_others_are_proven_where_that_is_asked_for(site: Site) -> None:
    three(site, "1")
    stays(site, Why.FEW, least=3)
    known(site, "a:1", data=content("1"))
    report = evict(site, KB, least=3)
    assert len(report.evicted[0].others) == 3


def test_other_files_at_the_same_host_are_no_others(site: Site) -> None:
    known(site, "b:new/1", "b:again/1", "b:oncemore/1", "mss:kept/1")
    stays(site, Why.FEW, what="b:new")


def test_what_a_manifest_pins_stays(site: Site) -> None:
    spread(site, "1", pin=True)
    assert stays(site, Why.PINNED) == "new/1"
    intents.cancel(site.database, "first")
    stays(site, Why.PINNED)


def test_a_pin_of_one_manifest_is_enough(site: Site) -> None:
    spread(site, "1", transient=True)
    site.run("pinned", pin=True, trigger=None)
    stays(site, Why.PINNED)


@pytest.mark.parametrize("state", ["waiting", "running", "held"])
@pytest.mark.parametrize("intent", ["active", "held", "planning"])
def test_what_an_item_needs_as_its_source_stays(site: Site, state: str, intent: str) -> None:
    three(site, "1", "2")
    site.submit("onward", source="b:new/1", destination="c:onward", trigger=None)
    site.change("UPDATE items SET state = :state", state=state)
    site.change("UPDATE manifests SET intent = :intent", intent=intent)
    report = evict(site, 2 * KB)
    assert (paths(report), why(report)) == (["new/2"], {Why.NEEDED: 1})
    assert report.refused[Why.NEEDED].examples == ["new/1: manifest onward"]
    site.change("UPDATE items SET state = 'done'")
    site.change("UPDATE manifests SET intent = 'active'")
    assert paths(evict(site, KB)) == ["new/1"]


def test_what_a_manifest_names_that_is_being_submitted_stays(site: Site) -> None:
    three(site, "1", "2")
    manifest = site.manifest("onward", source="b:new/[1]", destination="c:onward", trigger=None)
    _, number = revising.begin(site.database, manifest)  # its source is listed, and its items not written yet
    report = evict(site, 2 * KB)
    assert (paths(report), why(report)) == (["new/2"], {Why.NEEDED: 1})
    assert report.refused[Why.NEEDED].examples == ["new/1: manifest onward, which is being submitted"]
    revising.drop(site.database, number)
    assert paths(evict(site, KB)) == ["new/1"]


@pytest.mark.parametrize("intent", ["cancelled", "superseded"])
def test_what_was_given_up_needs_nothing(site: Site, intent: str) -> None:
    three(site, "1")
    site.submit("onward", source="b:new/1", destination="c:onward", trigger=None)
    site.change("UPDATE manifests SET intent = :intent", intent=intent)
    assert paths(evict(site, KB)) == ["new/1"]


def test_what_is_just_being_brought_there_stays(site: Site) -> None:
    spread(site, "1")
    site.submit("again", trigger=None)
    assert stays(site, Why.AWAITED) == "new/1: manifest again"


def test_what_no_pipeline_has_taken_over_stays(site: Site) -> None:
    spread(site, "1", trigger={"queue": "pipeline"})
    assert stays(site, Why.UNTOLD) == "new/1: group of the whole dataset"
    event = table.claim(site.database, "pipeline", "me", 60.0)
    assert event is not None
    stays(site, Why.UNTOLD)
    table.ack(site.database, "pipeline", event["id"])
    assert paths(evict(site, KB)) == ["new/1"]
    check_all(site)


def test_part_of_a_group_that_is_not_whole_stays(site: Site) -> None:
    """Else its trigger would tell of what is not there."""
    for name_ in "12":
        site.file(f"a:raw/{name_}", content(name_))
        known(site, f"mss:kept/{name_}", f"c:also/{name_}", data=content(name_))
    site.submit("first")
    (first, *_) = site.claim(most=1)
    from manifests.manifest import Manifest
    from stager import items

    site.carry_out(Manifest.from_canonical(items.document(site.database, first.manifest_id)), [first])
    stays(site, Why.UNTOLD)


def test_a_copy_that_was_found_bad_stays(site: Site) -> None:
    three(site, "1")
    site.change("UPDATE copies SET trouble = 'corrupt' WHERE host = 'b'")
    stays(site, Why.TROUBLED)


@pytest.mark.parametrize("damaged", ["c", "mss"])
def test_a_copy_that_was_found_bad_is_no_other(site: Site, damaged: str) -> None:
    three(site, "1")
    site.change("UPDATE copies SET trouble = 'missing' WHERE host = :host", host=damaged)
    stays(site, Why.FEW)


def test_a_member_of_a_bundle_with_trouble_is_no_other(site: Site) -> None:
    three(site, "1")
    site.change(
        """INSERT INTO bundles (id, host, path, label, state, files, size, digest)
           VALUES (7, 'mss', 'kept/x.stager.tar', 'x', 'stored', 1, 10, 'sha256:0')"""
    )
    site.change("UPDATE copies SET bundle_id = 7, data_offset = 512 WHERE host = 'mss'")
    for trouble in ("trouble = 'corrupt'", "trouble = NULL, state = 'packing'"):
        site.change(f"UPDATE bundles SET {trouble}")
        stays(site, Why.FEW)


def test_a_copy_of_another_size_with_the_same_digest_is_no_other(site: Site) -> None:
    three(site, "1")
    site.change("UPDATE copies SET size = size + 1 WHERE host = 'c'")
    stays(site, Why.FEW)


def test_an_empty_file_frees_nothing_and_is_passed_over(site: Site) -> None:
    known(site, "b:new/1", "mss:kept/1", "c:also/1", data=b"")
    report = evict(site, 1)
    assert (report.evicted, report.refused) == ([], {})


def test_a_host_that_the_configuration_lacks_has_no_others(site: Site) -> None:
    three(site, "1")
    site.change("UPDATE copies SET host = 'elsewhere' WHERE host = 'c'")
    stays(site, Why.FEW)


# -------------------------------------------------------------------------------------------- what is named


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("mss:kept", "mss is a mass store"),
        ("nothing", "there is no dataset or manifest nothing"),
        ("b:../x", "contains"),
        ("second data", "mss is a mass store"),
    ],
)
def test_what_names_nothing_that_can_go_is_told(site: Site, what: str, sentence: str) -> None:
    spread(site, "1")
    with pytest.raises(InputError, match=sentence):
        name(site.database, site.config, what)


def test_a_dataset_names_its_copies_at_the_host_where_they_may_go(site: Site) -> None:
    spread(site, "1", dataset="d")
    site.file("a:raw/2", content("2"))
    site.run("more", source="a:raw/2", destination="b:more", trigger=None)
    known(site, "mss:kept/2", "c:also/2", data=content("2"))
    named = name(site.database, site.config, "d")
    assert (named.host, named.dataset) == ("b", "d")
    from stager.evicting import evicting

    report = evicting.evict(site.database, disks(site), evicting.Request(named, 9 * KB, True))
    assert paths(report) == ["new/1"]
    assert copies(site) == ["more/2"]


def test_a_dataset_at_several_hosts_needs_to_be_told_at_which(site: Site) -> None:
    spread(site, "1", dataset="d")
    site.run("more", dataset="d", destination="c:more", trigger=None)
    with pytest.raises(InputError, match="d has copies at b, c: say of which with --host"):
        name(site.database, site.config, "d")
    assert name(site.database, site.config, "d", "c").host == "c"
    with pytest.raises(InputError, match="b:new is at b and not at c"):
        name(site.database, site.config, "b:new", "c")


def test_encoded_names_are_matched_as_they_are(site: Site) -> None:
    three(site, "back\\slash")
    assert site.value("SELECT path FROM copies WHERE host = 'b'") == encode_path("new/back\\slash")
    assert paths(evict(site, KB, "b:new")) == ["new/back\\slash"]
