"""Accept lists as people have them: a line for each, or the outline of a wiki page; nothing is silently lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import manifests
from manifests.errors import ManifestError
from manifests.lists.failure_lists import FailureList, read_failure_list
from manifests.parts import Exclusion

PT1 = Path(manifests.__file__).parent / "pt1"
PAGE = "".join(
    (PT1 / f"{name}-failures.txt").read_text(encoding="utf-8").partition("\n")[2]  # after the line of its source
    for name in ("psf", "wcs", "photocal")
)


def read(text: str | bytes) -> FailureList:
    return read_failure_list(text.encode() if isinstance(text, str) else text, "list.txt")


def ids(text: str) -> list[str]:
    """The ids of every exclusion of a text, as `visit=1 ccd=5`."""
    return [" ".join(f"{name}={value}" for name, value in one.ids.items()) for one in read(text).exclusions]


def wrong(text: str | bytes) -> dict[str, str]:
    """What is said of a text that cannot be read, by place."""
    with pytest.raises(ManifestError) as error:
        read(text)
    assert str(error.value).startswith("list.txt: ")
    return {one.place: one.text for one in error.value.problems}


def test_the_pages_own_lists_are_read_with_the_counts_of_their_headings() -> None:
    found = read(PAGE)
    reasons = [one.reason.partition(" on ")[0] for one in found.exclusions]
    assert {reason: reasons.count(reason) for reason in reasons} == {
        "PSF failure": 1, "WCS failures": 17, "Photocal failures": 11,
    }  # fmt: skip
    assert found.notes == ()
    assert found.exclusions[0] == Exclusion(
        ids={"visit": "85770111", "raft": "4,2", "sensor": "1,2"}, reason="PSF failure on one CCD of 110"
    )
    assert found.exclusions[-1] == Exclusion(
        ids={"visit": "85770111", "raft": "4,3", "sensor": "1,0"},
        reason="Photocal failures on 11 ImSim CCDs of 110: insufficient data points for order",
    )


def test_the_whole_page_gives_its_failures_and_says_what_was_passed_over(shared: Path) -> None:
    page = (shared / "seeds/dc3b-pt1-integration-status.txt").read_bytes()
    found = read_failure_list(page, "page.txt")
    assert found.exclusions == read(PAGE).exclusions
    (note,) = found.notes
    assert "lines name nothing that could be left out (line 1:" in note


@pytest.mark.parametrize("bullet", ["*", "-", "+", "◦", "\u2013", "1.", "> *", ""])
@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u2003"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_however_a_page_was_pasted_it_is_the_same_list(bullet: str, blank: str, end: str) -> None:
    text = PAGE.replace("•", bullet).replace(" ", blank).replace("\n", end)
    assert read(text).exclusions == read(PAGE).exclusions


def test_tabs_case_and_a_byte_order_mark_do_not_matter() -> None:
    pasted = PAGE.replace("      •", "\t\t\u2022\t").replace("    •", "\t•\t").replace("Raft", "RAFT")
    assert read(b"\xef\xbb\xbf" + pasted.replace("Visit", "visit").encode()).exclusions == read(PAGE).exclusions


def test_a_paste_that_lost_its_indentation_is_read_and_said_to_be() -> None:
    flat = "\n".join(line.strip(" •") for line in PAGE.splitlines())
    found = read(flat)
    assert found.exclusions == read(PAGE).exclusions
    (note,) = found.notes
    assert "line 5: stands in the column of the line above it, and is taken to be of its visit or raft" in note


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Visits 1 2", ["visit=1", "visit=2"]),
        ("visits 1, 2 and 3", ["visit=1", "visit=2", "visit=3"]),
        ("ccd 5", ["ccd=5"]),
        ("Visit 1\n  CCDs 5 7", ["visit=1 ccd=5", "visit=1 ccd=7"]),
        ("Visit 1\n  CCDs 5,7", ["visit=1 ccd=5", "visit=1 ccd=7"]),
        ("Visit 788033 ccd 5 amp 1 snap 0", ["visit=788033 ccd=5 amp=1 snap=0"]),
        ("Raft 2,3 sensor 1,2 channels 0,0 1,7", [f"raft=2,3 sensor=1,2 channel={c}" for c in ("0,0", "1,7")]),
        ("raft 4, 2 sensors 0, 1, 1, 2", ["raft=4,2 sensor=0,1", "raft=4,2 sensor=1,2"]),
        ("raft 23, sensors 01 and 12", ["raft=23 sensor=01", "raft=23 sensor=12"]),
        ("raft (4,2) sensors 0,1,1,2", ["raft=4,2 sensor=0,1", "raft=4,2 sensor=1,2"]),
        ("Visit: 5; raft: 2,3", ["visit=5 raft=2,3"]),
        ("Visit #5", ["visit=5"]),
        ("Visit 5 filter r", ["visit=5 filter=r"]),
        ("VISIT=5 Raft=2,3", ["visit=5 raft=2,3"]),
        ("Visits 1 2 ccds 3 4", [f"visit={v} ccd={c}" for v in (1, 2) for c in (3, 4)]),
        ("Visit 1 ccd 5 5 05", ["visit=1 ccd=5", "visit=1 ccd=05"]),
    ],
)
def test_ids_are_read_in_many_spellings(text: str, expected: Sequence[str]) -> None:
    assert ids(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("visit=1 # PSF   failure", "PSF failure"),
        ("visit=1 (clouds)", "clouds"),
        ("Visit 1 (all matches have bad photometry)", "all matches have bad photometry"),
        ("Visit 1 (bad (very) bad).", "bad (very) bad"),
        ("Visit 1: bad seeing", "bad seeing"),
        ("Visit 1 - bad seeing", "bad seeing"),
        ("Visit 1 (clouds) # all night", "clouds: all night"),
        ("PSF failure: Visit 1 (clouds)", "PSF failure: clouds"),
        ("PSF failures:\nVisit 1 (clouds)", "PSF failures: clouds"),
        ("PSF failures:\n  visit=1 # clouds", "PSF failures: clouds"),
        ("Failures\n  PSF:\n    Visit 1", "PSF"),
        ("PSF:\n  Visit 1\n    clouds", "PSF: clouds"),
        ("PSF:\n  Visit 1\n    clouds:\n      Raft 2,3", "PSF: clouds"),
        ("PSF:\n  Visit 1 (clouds)\n    Raft 2,3 (edge)", "PSF: clouds: edge"),
        ("# PSF failures\nvisit=1", ""),
    ],
)
def test_the_reason_is_the_heading_and_what_the_entry_says(text: str, reason: str) -> None:
    (one,) = read(text).exclusions
    assert one.reason == reason


def test_what_has_entries_below_it_is_not_left_out_as_a_whole() -> None:
    assert ids("Visit 1\n  Raft 2,3\n    Sensor 0,0\n  Raft 2,4\nVisit 2\nVisit 3\n    Raft 2,2") == [
        "visit=1 raft=2,3 sensor=0,0", "visit=1 raft=2,4", "visit=2", "visit=3 raft=2,2",
    ]  # fmt: skip


def test_a_paste_whose_first_line_lost_its_indentation_is_read() -> None:
    text = PAGE[PAGE.index("Visit 85656362") :]
    assert [one.ids for one in read(text).exclusions] == [one.ids for one in read(PAGE).exclusions][1:]


def test_notations_may_be_mixed_line_by_line() -> None:
    text = "visit=1 ccd=5 # x\n*c07-a?.fits # y\n• Visit 2\n   • CCD 3\nccd=9 # in every visit\n   • CCD 4\nvisit=4"
    found = read(text).exclusions
    assert sorted(" ".join(one.ids.values()) for one in found if one.glob is None) == ["1 5", "2 3", "2 4", "4", "9"]
    assert [one.glob for one in found if one.glob] == ["*c07-a?.fits"]


def test_one_word_is_a_files_name_but_in_an_outline() -> None:
    names = [one.glob for one in read("bad  # truncated\nREADME\na.fits\n").exclusions]
    assert sorted(map(str, names)) == ["README", "a.fits", "bad"]
    assert '".."' in wrong("a.fits\n..\n")["line 2"]
    (one,) = read("Failures:\nPhotocal\n  Visit 1").exclusions
    assert (one.glob, one.reason) == (None, "Photocal")
    (name, _) = read("Failures:\nbad  # truncated\n  Visit 1").exclusions
    assert (name.glob, name.reason) == ("bad", "Failures: truncated")


def test_todays_lines_never_take_ids_from_each_other() -> None:
    assert ids("visit=1 # clouds\nccd=5 # dead\nvisit=2 ccd=3\namp=1") == ["visit=1", "ccd=5", "visit=2 ccd=3", "amp=1"]
    assert ids("Visit 1\n    raft=2,3 sensor=0,0") == ["visit=1 raft=2,3 sensor=0,0"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Rfat 2,3 sensor 1,2", "speaks of sensor 1,2"),
        ("Rafft 2,3", 'did you mean "raft"?'),
        ("Raft 2,3 snesor 1,2", 'after "Raft 2,3" found "snesor 1,2"'),
        ("Visit 85656362 looks good", "write a reason in brackets"),
        ("Visit 85656362-85656365", 'found "85656362-85656365"'),
        ("Visit 1 raft 2,3 and", None),
        ("Visit 1 raft", "gives no value"),
        ("Visit 1 visit 2", "visit is given twice"),
        ("Visit 1 raft 2,3 (bad), raft 2,4 (worse)", "(worse)"),
        ("Visit 1 raft 2,3 (see sensor", "(see sensor"),
        ("Visit 1: and visit 2", "visit is given twice"),
        ("It rained in visit 5", "speaks of visit 5"),
        ("all of v1: c05-a0.fits c05-a1.fits", "speaks of c05-a0.fits"),
        ("a.fits b.fits", "a line for each"),
        ("visit=", "gives no value"),
        ("visit=1 visit=2", "given twice"),
        ("visit=1 raft 4,2", "expected ids such as"),
        ("85770111 4,2 1,2 PSF", "does not say of which ids"),
        ("85770111", "does not say of which ids"),
        ("Visit 7\n  Detector 5", '"Detector" is none of its ids'),
        ("*", "would leave out every file"),
        ("**/*", "would leave out every file"),
        ("../x", '".."'),
        ("s[01", "too many"),
        ("Visit 1 ccd 5\nCCD 7 (in every visit)", "names no visit"),
        ("visit " + "1 " * 20_000, "longer than 20000 characters"),
    ],
)
def test_what_looks_like_an_entry_and_is_none_is_an_error_with_its_line(line: str, sentence: str | None) -> None:
    if sentence is None:
        assert ids(line)
        return
    said = wrong(f"visit=3\n{line}\n# end\n")
    assert list(said) == [f"line {2 + line.count(chr(10))}"]
    assert sentence in said[f"line {2 + line.count(chr(10))}"]


def test_all_bad_lines_are_said_and_no_more_than_twenty_written_out() -> None:
    assert list(wrong(b"visit=1\nvisit=\n\xff\nRaft 2,3 snesor 1,2\n")) == ["line 2", "line 3", "line 4"]
    said = wrong("visit=\n" * 1000)
    assert len(said) == 21
    assert said[""] == "and 980 more lines like these"


def test_prose_is_no_entry_though_it_speaks_of_ccds() -> None:
    prose = """One sensor has bad TAI and MJD-OBS times.
Several sensors and one entire visit missing from SLAC data.
We will run background subtraction on snap 0 only.
Circa: 21 June 2010
1534 CFHT focal planes chopped (u, g, r filters only).
$AFWDATA_DIR/ImSim/postISR/v85751839-fr/s[01]/R23-S11-C*.fits
"""
    found = read(prose + "visit=1")
    assert [one.ids for one in found.exclusions] == [{"visit": "1"}]
    assert found.notes == (
        'list.txt: 5 lines name nothing that could be left out (line 1: "One sensor has bad TAI and MJD-OBS times.")',
    )


def test_a_text_that_names_nothing_at_all_is_an_error_and_an_empty_list_is_not() -> None:
    assert "no line can be read as an entry" in wrong("Some notes\nof the night")["line 1"]
    assert read("") == read("# none yet\n\n•\n") == FailureList((), ())


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            "WCS failures on 3 CCDs of 110:\n Visit 1 ccds 1 2",
            "line 2: the heading says 3 CCDs, and 2 are named below it",
        ),
        ("PSF failure on one CCD of 110:\nCrReject still a question", "says one CCD, and 0 are named below it"),
        ("Two sensors:\n visit=1 raft=2,3 sensor=0,0", "says Two sensors, and 1 is named"),
        ("5 of the 110 CCDs:\n Visit 1 ccd 3", "says 5 CCDs, and 1 is named"),
        ("Clouds in 2 visits:\n Visits 1 2 3", "says 2 visits, and 3 are named"),
    ],
)
def test_a_heading_that_counts_otherwise_than_what_is_below_it_is_said(text: str, note: str) -> None:
    assert any(note in said for said in read(f"visit=9\n{text}").notes)


@pytest.mark.parametrize(
    "text",
    [
        "2 CCDs:\n Visit 1 ccd 1 amps 0 1\n Visit 2 ccd 1 amp 0",  # amplifiers of one CCD are one
        "2 CCDs:\n Visit 1\n Visit 2 ccd 1",  # of a whole visit it is not known
        "2 CCDs:\n *c05*.fits",
        "WCS failures on 2 CCDs of 110:\n  Visit 1 ccds 1 2\n  Photocal failures on 1 CCD of 110:\n  Visit 1 ccd 3",
        "All on 3 CCDs of 110:\n  u: \n    Visit 1 ccd 1\n  g:\n    Visit 1 ccds 2 3",
        "One amp in two snaps:\nVisit 1 snap 0",
    ],
)
def test_what_agrees_or_cannot_be_counted_is_not_complained_of(text: str) -> None:
    assert not any("the heading says" in note for note in read(text).notes)


ENTRIES = st.tuples(st.integers(1, 9), st.sampled_from(["2,3", "4,1"]), st.sampled_from(["0,0", "1,2"]))


@given(
    st.lists(ENTRIES, min_size=1, max_size=8),
    st.permutations(["visit", "raft", "sensor"]),
    st.sampled_from("•*-+"),
    st.integers(1, 9),
)
def test_an_outline_says_what_its_lines_say_alone(
    entries: list[tuple[object, ...]], order: list[str], bullet: str, step: int
) -> None:
    lines, expected = ["Failures:"], []
    for entry in entries:
        values = dict(zip(("visit", "raft", "sensor"), entry, strict=True))
        lines += [f"{' ' * step * depth}{bullet} {name.upper()} {values[name]}" for depth, name in enumerate(order, 1)]
        expected.append(" ".join(f"{name}={values[name]}" for name in order))
    assert ids("\n".join(lines)) == expected


PIECES = ["Visit 5", "raft 2,3", "sensor", "(x)", "#", "• ", "ccd=", "5", "a.fits", "*", "\n", "   ", ":", "and"]


@given(st.text(max_size=50), st.lists(st.sampled_from(PIECES)))
def test_no_text_breaks_the_reader(text: str, pieces: list[str]) -> None:
    found, wrong = FailureList((), ()), ""
    try:
        found = read(text + " ".join(pieces))
    except ManifestError as error:
        wrong = "".join(f"{one.place}{one.text}" for one in error.problems)
    assert not wrong or wrong.isprintable()
    assert all(one.ids or one.glob for one in found.exclusions)
    assert all(note.isprintable() for note in found.notes)


@pytest.mark.parametrize(
    "content",
    [
        b"\xe2\x80\xa2 " * 4900 + b"\n",
        b"Visit 1 " + b"(" * 19_000 + b"\n",
        b"visit #1 " * 2200 + b"\n",
        b"visits " + b"1 " * 9000 + b"ccds " + b"2 " * 900 + b"\n",
        b"".join(b" " * n + b"a b\n" for n in range(300)),
        b"a\n" * 200_001,
        b"visits " + b" ".join(b"%d" % n for n in range(2000)) + b" ccds " + b" ".join(b"%d" % n for n in range(2000)),
    ],
)
def test_a_hostile_list_is_done_with_soon(content: bytes) -> None:
    start = time.process_time()
    with suppress(ManifestError):
        read_failure_list(content, "list.txt")
    assert time.process_time() - start < 5
