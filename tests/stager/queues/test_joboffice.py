"""The blackboard of a job office: its items, and the order that names them."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stager.queues import joboffice, paf
from stager.queues.announcing import Dataset
from stager.queues.errors import Undeliverable
from stager.queues.folders import deliver
from stager.queues.joboffice import FOLDERS, ORDER, reconciled

AMP = Dataset("raw", {"visit": 793310, "filter": "r", "ccd": 9, "amp": 1})
CHANNEL = Dataset("raw", {"visit": 85470982, "snap": 0, "raft": "2,3", "sensor": "0,0", "channel": "0,7"})


@pytest.fixture
def office(tmp_path: Path) -> Path:
    joboffice.make(tmp_path)
    return tmp_path


def add(office: Path, key: str, *datasets: Dataset) -> None:
    deliver(joboffice.folder(office), key, list(joboffice.entries(datasets)))


def order(office: Path) -> list[str]:
    return (office / "dataAvailable" / ORDER).read_text().splitlines()


def test_there_are_the_six_folders(office: Path) -> None:
    joboffice.make(office)
    assert sorted(path.name for path in office.iterdir()) == sorted(FOLDERS)
    assert len(FOLDERS) == 6


def test_an_item_is_a_data_product_as_a_job_office_reads_it(office: Path) -> None:
    add(office, "1", AMP)
    text = (office / "dataAvailable" / "raw-amp1-ccd9-filterr-visit793310.paf").read_text()
    assert text.startswith("#<?cfg paf policy ?>\n")
    assert paf.read(text) == {
        "NAME": "raw-amp1-ccd9-filterr-visit793310",
        "SUCCESS": True,
        "DATASET": {"type": "raw", "ids": {"visit": 793310, "filter": "r", "ccd": 9, "amp": 1}, "valid": True},
    }


def test_a_raft_is_text_in_quotes_and_a_number_is_none(office: Path) -> None:
    add(office, "1", CHANNEL)
    (file,) = (office / "dataAvailable").glob("*.paf")
    assert file.name == "raw-channel0,7-raft2,3-sensor0,0-snap0-visit85470982.paf"
    assert '        raft: "2,3"\n' in file.read_text()
    assert "        visit: 85470982\n" in file.read_text()


def test_items_come_in_their_order_and_a_clash_has_a_number(office: Path) -> None:
    add(office, "1", CHANNEL, AMP)
    add(office, "2", AMP)
    add(office, "3", AMP)
    name = "raw-amp1-ccd9-filterr-visit793310"
    assert order(office) == [
        "raw-channel0,7-raft2,3-sensor0,0-snap0-visit85470982.paf", f"{name}.paf", f"{name}.1.paf", f"{name}.2.paf"
    ]  # fmt: skip
    assert {paf.read(path.read_text())["NAME"] for path in (office / "dataAvailable").glob("raw-amp*")} == {name}


@pytest.mark.parametrize("value", ["a/b", "..", "a b", "\u00fc" * 300, "_", "a\\", "*", "$(x)", "-rf"])
def test_a_name_is_always_a_good_name_of_a_file(office: Path, value: str) -> None:
    add(office, "1", Dataset("raw", {"field": value}), Dataset("raw", {"field": value + "x"}))
    files = list((office / "dataAvailable").glob("raw-*.paf"))
    assert len(files) == 2
    assert all(len(file.name.encode()) < 200 and " " not in file.name for file in files)
    assert {paf.read(file.read_text())["DATASET"]["ids"]["field"] for file in files} == {value, value + "x"}
    assert sorted(order(office)) == sorted(file.name for file in files)


def test_what_no_paf_can_say_is_refused_before_the_folder_is_touched(office: Path) -> None:
    with pytest.raises(Undeliverable, match=r"field is .* which no policy file can hold"):
        list(joboffice.entries([AMP, Dataset("raw", {"field": "both \" and '"})]))


def test_the_mode_of_the_order_stays_so_that_others_may_write_it(office: Path) -> None:
    add(office, "1", AMP)
    (office / "dataAvailable" / ORDER).chmod(0o664)
    add(office, "2", CHANNEL)
    assert (office / "dataAvailable" / ORDER).stat().st_mode & 0o777 == 0o664


# ------------------------------------------------------------------------------------------ reconciling


def test_a_name_without_a_file_goes_and_a_file_without_a_name_comes(office: Path) -> None:
    add(office, "1", AMP, CHANNEL)
    place = office / "dataAvailable"
    gone, kept = order(office)
    (place / gone).unlink()
    (place / "unnamed.paf").write_text("x")
    (place / ".hidden").write_text("x")
    (place / "_own.list").write_text("x")
    (place / ".add.coming.paf").write_text("x")
    (place / ".add.1.clashing.paf").write_text("x")
    (place / ".del.leaving.paf").write_text("x")
    (place / ORDER).write_text(f"{gone}\ncoming.paf\n\n{kept}\nclashing.paf\nleaving.paf\n{kept}\n")
    add(office, "2", Dataset("raw", {"visit": 7}))
    assert order(office) == ["coming.paf", kept, "clashing.paf", "unnamed.paf", "raw-visit7.paf"]


NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=2)


@given(st.lists(NAMES), st.sets(NAMES), st.sets(NAMES), st.lists(NAMES, unique=True))
def test_the_order_has_each_file_once_and_nothing_else(
    before: list[str], there: set[str], adding: set[str], coming: list[str]
) -> None:
    after = reconciled(before, there, adding, coming)
    assert len(after) == len(set(after))
    assert set(after) == there | set(coming) | (set(before) & adding)
    kept = list(dict.fromkeys(name for name in before if name in after))
    assert after[: len(kept)] == kept
    assert reconciled(after, there | set(coming), adding, []) == after
