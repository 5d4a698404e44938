"""The commands of queues that are folders: what was delivered is listed, delivered once more and exported; nothing of
it is claimed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.errors import ManifestError
from stager.queues import paf
from tests.stager.conftest import Stager
from tests.stager.queues.announcements import Read, read
from tests.stager.queues.handoff import add_queue, copy, items, lists, raws
from tests.stager.site import Site

TOLD = ["visit", "filter", "ccd", "amp"]


@pytest.fixture
def office(sqlite_site: Site) -> Path:
    """A job office to which two visits were delivered."""
    folder = add_queue(sqlite_site, "isr", ids=TOLD)
    sqlite_site.files(*(f"a:{path}" for path in raws(2)))
    copy(sqlite_site)
    return folder


@pytest.fixture
def url(made_sqlite: str) -> str:
    return made_sqlite  # what these commands do with a database is tested elsewhere, on both


@pytest.fixture
def site(sqlite_site: Site) -> Site:
    return sqlite_site


def ids(site: Site) -> list[str]:
    return [row[0] for row in site.rows("SELECT id FROM triggers ORDER BY group_label")]


def test_the_list_says_what_was_delivered_and_where(site: Site, office: Path, stager: Stager) -> None:
    said = stager("queue", "list", "isr")
    assert said.code == 0
    assert said.out.count("delivered") == 2
    assert f"4datasetsto{office}" in "".join(said.out.split())  # wherever a narrow terminal breaks it
    first, _ = json.loads(stager("queue", "list", "isr", "--json").out)
    assert (first["id"], first["state"], first["claims"], first["claimed_by"]) == (ids(site)[0], "delivered", 1, None)


@pytest.mark.parametrize("words", [["claim", "isr"], ["ack", "isr", "x"], ["fail", "isr", "x"]])
def test_nothing_is_claimed_from_a_folder(office: Path, stager: Stager, words: list[str]) -> None:
    said = stager("queue", *words)
    assert said.code == 2
    assert f"queue isr is a folder: its pipeline takes what is delivered from {office}" in said.err


def test_a_replay_delivers_once_more_and_says_so(site: Site, office: Path, stager: Stager) -> None:
    first = ids(site)[0]
    said = stager("queue", "replay", "isr", first)
    assert (said.code, said.out) == (0, f"{first} was delivered once more to {office}, with the same id\n")
    names = [path.name for path in (office / "dataAvailable").glob("*.1.paf")]
    assert len(names) == 4
    assert len(items(office)) == 12
    (again, _) = json.loads(stager("queue", "list", "isr", "--json").out)
    assert (again["id"], again["state"], again["claims"]) == (first, "delivered", 2)
    assert stager("queue", "replay", "isr", "nobody").code == 2


def test_a_list_that_is_replayed_gets_a_name_of_its_own(site: Site, stager: Stager) -> None:
    folder = add_queue(site, "isr", kind="lists")
    site.files(*(f"a:{path}" for path in raws(1)))
    copy(site)
    assert stager("queue", "replay", "isr", ids(site)[0]).code == 0
    again, first = lists(folder)
    assert again == first.replace(".txt", "-2.txt")
    assert lists(folder)[first] == lists(folder)[again]


def test_a_replay_that_cannot_be_delivered_waits_and_says_so(site: Site, office: Path, stager: Stager) -> None:
    away = office.rename(site.folder / "away")
    said = stager("queue", "replay", "isr", ids(site)[0])
    assert said.code == 1
    assert "is its disk mounted?" in said.err
    assert f"{ids(site)[0]} waits: the daemon delivers it once more" in said.err
    assert stager("queue", "replay", "isr", ids(site)[0]).code == 2  # it is pending already
    away.rename(office)
    site.work()
    assert len(items(office)) == 12


# -------------------------------------------------------------------------------------------- export


def exported(stager: Stager, *words: str) -> list[Read]:
    said = stager("queue", "export", *words)
    assert said.code == 0, said.err
    return list(read(said.out.splitlines()))


def test_a_trigger_of_the_table_is_exported_as_a_list_too(site: Site, stager: Stager) -> None:
    site.files(*(f"a:{path}" for path in raws(2)))
    copy(site, {"queue": "pipeline", "per": ["visit"]})
    (_, second) = ids(site)
    found = exported(stager, "pipeline", second, "--ids", "visit,ccd,amp", "--type", "PostISR")
    assert found == [Read("PostISR", {"visit": 2, "ccd": ccd, "amp": amp}) for ccd in (0, 1) for amp in (0, 1)]
    assert len(exported(stager, "pipeline")) == 8
    assert sorted(one.ids["visit"] for one in exported(stager, "pipeline", "--group")) == [1, 2]
    assert {row[3] for row in site.triggers()} == {"ready"}


def test_what_is_not_said_is_as_the_queue_has_it(office: Path, stager: Stager) -> None:
    assert list(exported(stager, "isr")[0].ids) == TOLD


def test_items_are_exported_to_a_folder_and_none_is_replaced(site: Site, office: Path, stager: Stager) -> None:
    to = site.folder / "out"
    said = stager("queue", "export", "isr", ids(site)[0], "--format", "paf", "--to", str(to))
    assert said.code == 0
    assert sorted(path.name for path in to.iterdir()) == sorted(
        path.name for path in (office / "dataAvailable").glob("*visit1.paf")
    )
    assert said.out.count(str(to)) == 4
    one = next(to.iterdir())
    assert paf.read(one.read_text())["DATASET"]["type"] == "raw"
    one.write_text("mine")
    again = stager("queue", "export", "isr", "--format", "paf", "--to", str(to))
    assert (again.code, "File exists" in again.err) == (1, True)
    assert one.read_text() == "mine"


def test_only_the_newest_trigger_of_a_group_is_exported(site: Site, office: Path, stager: Stager) -> None:
    site.file("a:D1/raw/v2-fr/s00/c09-a0.fits", "a late one")
    copy(site)
    assert len(ids(site)) == 3
    assert len(exported(stager, "isr")) == 9


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["isr", "nobody"], 2, "queue isr has no trigger nobody"),
        (["nobody"], 2, "no queue nobody"),
        (["other"], 3, "queue other has no trigger"),
        (["isr", "--ids", "visit,"], 2, "--ids: found"),
        (["isr", "--type", "raw visit=1"], 2, "--type: found"),
        (["isr", "--ids", "raft"], 1, "none of its 4 files has by its path the ids raft"),
        (["isr", "--format", "xml"], 2, "xml"),
    ],
)
def test_what_cannot_be_exported_is_a_line(
    office: Path, stager: Stager, words: list[str], code: int, text: str
) -> None:
    said = stager("queue", "export", *words)
    assert said.code == code
    assert text in said.err


def test_a_trigger_that_a_folder_could_not_be_told_of_is_refused_at_once(sqlite_site: Site) -> None:
    add_queue(sqlite_site, "isr", ids=TOLD)
    sqlite_site.files("a:raw/x")
    with pytest.raises(ManifestError, match="camera") as refused:
        sqlite_site.submit(trigger={"queue": "isr"})
    assert [one.place for one in refused.value.problems] == ["trigger.queue"]
