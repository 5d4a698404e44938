"""Lists of datasets: what is written reads as it was meant, by rules that are not ours, and as the real ones do."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stager.queues.announcing import Announced, Dataset, Excluded
from stager.queues.dataset_lists import line_of, write
from stager.queues.errors import Undeliverable
from tests.stager.queues.announcements import Read, read

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=8)
VALUES = st.integers(0, 2**63) | st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="#"), max_size=8
)


def told(*datasets: Dataset, **more: object) -> list[Read]:
    return list(read(write(Announced(datasets, **more)).splitlines()))  # type: ignore[arg-type]


@given(NAMES, st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5), min_size=1, max_size=5))
def test_what_is_written_is_read_as_it_was_meant(kind: str, every: list[dict[str, int | str]]) -> None:
    texts = {name for ids in every for name, value in ids.items() if isinstance(value, str)}
    meant = [{name: str(value) if name in texts else value for name, value in ids.items()} for ids in every]
    assert told(*(Dataset(kind, ids) for ids in every)) == [Read(kind, ids) for ids in meant]


@pytest.mark.parametrize("value", ["a b", "a#b", "a\nraw visit=3", "\t", "\x00", "\u202e"])
def test_what_no_list_can_say_is_refused(value: str) -> None:
    with pytest.raises(Undeliverable, match=r"field is .*, which no list of datasets can say"):
        write(Announced([Dataset("raw", {"visit": 1, "field": value})]))


def test_what_is_excluded_is_a_comment_with_its_reason_and_never_a_dataset() -> None:
    amp = Dataset("raw", {"visit": 793310, "ccd": 9, "amp": 1})
    odd = Dataset("raw", {"field": "a b"})
    text = write(
        Announced(
            [Dataset("raw", {"visit": 793310, "ccd": 9, "amp": 0})],
            [Excluded(amp, "x", "dead\ncolumn"), Excluded(None, "a/b.fits", ""), Excluded(odd, "odd\npath", "odd")],
            ["README\nraw visit=1"],
        ),
        ["CFHTLS D1\nraw visit=2, revision 3"],
    )
    assert text == (
        "# CFHTLS D1\\nraw visit=2, revision 3\n"
        ">intids visit ccd amp\n"
        "raw visit=793310 ccd=9 amp=0\n"
        "#raw visit=793310 ccd=9 amp=1  # excluded: dead\\ncolumn\n"
        "# a/b.fits  # excluded: by the accept list\n"
        "# odd\\npath  # excluded: odd\n"
        "# not announced, for want of ids: README\\nraw visit=1\n"
    )
    assert list(read(text.splitlines())) == [Read("raw", {"visit": 793310, "ccd": 9, "amp": 0})]


def test_zeros_of_the_same_ids_flush_at_the_end() -> None:
    sensor = Dataset("raw", {"visit": 85683275, "raft": "3,1", "sensor": "2,0"})
    lines = write(Announced([sensor]), flush=10).splitlines()
    assert lines == [">intids visit", "raw visit=85683275 raft=3,1 sensor=2,0"] + ["raw visit=0 raft=0 sensor=0"] * 10


@pytest.mark.parametrize("name", ["cfht-isr-inputdata", "imsim-isr-inputdata", "ctrl_sched_triggerdatasets"])
def test_the_real_lists_written_again_say_the_same(shared: Path, name: str) -> None:
    lines = (shared / "data" / "dataset_lists" / f"{name}.txt").read_text().splitlines()
    real = list(read(lines))
    assert len(real) == sum(not line.lstrip().startswith(("#", ">")) and bool(line.strip()) for line in lines)
    written = write(Announced([Dataset(one.type, one.ids) for one in real]))
    assert list(read(written.splitlines())) == real
    wanted = {" ".join(line.split()) for line in lines if line.startswith(("raw", "PostISR"))}
    assert {line_of(Dataset(one.type, one.ids)) for one in real} == wanted


def test_the_rules_that_we_read_by_are_those_of_the_real_directives(shared: Path) -> None:
    real = list(read((shared / "data" / "dataset_lists" / "ctrl_sched_datasetlist.txt").read_text().splitlines()))
    assert {one.type for one in real} == {"PostISR"}
    assert [one.ids["visit"] for one in real][1:4] == ["888", 888, "888"]
    assert [one.valid for one in real][4:11] == [False, False, True, False, True, False, True]
    assert real[-1].ids == {"visit": 888, "ccd": "10", "amp": "08", "snap": 1}
    with pytest.raises(ValueError, match="more than one"):
        list(read([">i 3"]))
    with pytest.raises(ValueError, match="no directive"):
        list(read([">nonsense"]))
