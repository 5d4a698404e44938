"""Which readout a focal plane is of, which CCD each extension holds, and whether all are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from manifests.cameras import ChopRule, load, names
from manifests.chops.readouts import Place
from manifests.errors import CameraError


class Cards(dict[str, Any]):
    """A header; a list is a keyword that stands there more than once."""

    def get(self, keyword: str, default: Any = None) -> Any:
        values = self.all(keyword)
        return values[0] if values else default

    def all(self, keyword: str) -> tuple[Any, ...]:
        value = super().get(keyword, ())
        return tuple(value) if isinstance(value, list | tuple) else (value,)


def rule_of(name: str = "cfht_megacam", *folders: Path) -> ChopRule:
    rule = load(name, folders).chop_rule
    assert rule is not None
    return rule


CFHT = rule_of()
SPLICED, UNSPLICED = CFHT.readouts


def spliced(count: int = 36, first: int = 0) -> list[Cards]:
    return [
        Cards({"EXTNAME": f"ccd{ccd:02d}   ", "EXTVER": ccd, "NAXIS1": 2112, "AMPNAME": f"{ccd:02d}a + {ccd:02d}b"})
        for ccd in range(first, first + count)
    ]


def unspliced(count: int = 72) -> list[Cards]:
    """As in 688231o: of the upper half of the mosaic B before A, of the lower A before B."""
    return [
        Cards(
            {
                "EXTNAME": ["COMPRESSED_IMAGE", f"amp{number:02d}   "],
                "EXTVER": number,
                "NAXIS1": 1056,
                "AMPNAME": f"{number // 2:02d}{('ba' if number < 36 or 72 <= number < 76 else 'ab')[number % 2]}     ",
            }
        )
        for number in range(count)
    ]


def places(headers: Sequence[Cards], science: bool = True, **primary: Any) -> list[Place]:
    said, readout = Cards({"NEXTEND": len(headers), **primary}), CFHT.readout(headers)
    found = CFHT.places(readout, said, headers, science)
    CFHT.check_whole(readout, said, found, science)
    return found


def without(headers: Sequence[Cards], *keywords: str) -> list[Cards]:
    return [Cards({name: value for name, value in cards.items() if name not in keywords}) for cards in headers]


def changed(headers: Sequence[Cards], index: int, **cards: Any) -> list[Cards]:
    """One header with other cards; None takes one out."""
    made = Cards({name: value for name, value in {**headers[index], **cards}.items() if value is not None})
    return [*headers[:index], made, *headers[index + 1 :]]


def refused(headers: Sequence[Cards], science: bool = True, **primary: Any) -> str:
    with pytest.raises(CameraError) as error:
        places(headers, science, **primary)
    return str(error.value)


# --------------------------------------------------------------------------------------------- which readout


@pytest.mark.parametrize(
    ("cards", "name"),
    [
        ({"EXTNAME": "ccd07", "NAXIS1": 2112}, "spliced"),
        ({"EXTNAME": "CCD07", "NAXIS1": 2112}, "spliced"),
        ({"EXTNAME": ["COMPRESSED_IMAGE", "amp07"], "NAXIS1": 8, "ZIMAGE": True, "ZNAXIS1": 1056}, "unspliced"),
        ({"NAXIS1": 2112, "EXTVER": 7}, "spliced"),
        ({"NAXIS1": 1056, "EXTVER": 7}, "unspliced"),
        ({"EXTNAME": "COMPRESSED_IMAGE", "NAXIS1": 8, "ZIMAGE": True, "ZNAXIS1": 2112}, "spliced"),
    ],
)
def test_a_readout_is_known_by_its_names_and_without_them_by_its_columns(cards: dict[str, Any], name: str) -> None:
    assert CFHT.readout([Cards(cards)]).name == name


def test_a_file_of_no_readout_is_refused_with_what_it_has() -> None:
    with pytest.raises(CameraError) as error:
        CFHT.readout([Cards({"EXTNAME": f"im{number}", "NAXIS1": 1024}) for number in (1, 2)])
    said = str(error.value)
    assert said.startswith('its 2 extensions are of no readout of this camera (EXTNAME "im1" and 1024 columns; ')
    assert "spliced: EXTNAME like ccd([0-9]{2}), 2112 columns" in said
    with pytest.raises(CameraError, match="no EXTNAME and no columns"):
        CFHT.readout([Cards()])


def test_most_extensions_decide_so_that_a_damaged_one_is_told() -> None:
    headers = changed(spliced(), 17, EXTNAME="amp17")
    assert CFHT.readout(headers) is SPLICED
    assert "extension 18 (ccd17)" in refused(headers)
    assert "of the unspliced readout in a file that is spliced" in refused(headers)
    half = spliced()[:18] + unspliced()[36:54]
    with pytest.raises(CameraError, match="36 extensions are of no readout"):
        CFHT.readout(half)


# ------------------------------------------------------------------------------------------------- which CCD


def test_the_number_of_a_ccd_survives_what_archives_did_to_it() -> None:
    for cards, position, number in (
        ({"EXTNAME": "ccd07   ", "EXTVER": 7}, 7, 7),
        ({"EXTNAME": ["COMPRESSED_IMAGE", "ccd07"], "EXTVER": 7}, 3, 7),
        ({"EXTNAME": ["ccd07", "CCD07"]}, 3, 7),
        ({"EXTNAME": "Ccd07"}, 3, 7),
        ({"EXTVER": 7}, 3, 7),
        ({"EXTVER": True}, 3, 3),
        ({"EXTVER": "seven"}, 3, 3),
        ({"EXTNAME": 7}, 3, 3),
        ({}, 3, 3),
    ):
        assert SPLICED.place(Cards(cards), position, 36).ccd == number
    for cards in (
        {"EXTNAME": "ccd07", "EXTVER": 8},
        {"EXTNAME": ["ccd07", "ccd08"]},
        {"EXTVER": [7, 8]},
        {"EXTVER": 40},
        {"EXTVER": -1},
        {"EXTVER": 10**40},
        {"EXTNAME": "ccd99"},
    ):
        with pytest.raises(CameraError):
            SPLICED.place(Cards(cards), 7, 36)


def test_the_primary_headers_extver_says_nothing() -> None:
    assert len(places(spliced(), EXTVER=99)) == 36


@pytest.mark.parametrize("change", [lambda h: without(h, "EXTNAME"), lambda h: without(h, "EXTVER"), lambda h: h[::-1]])
def test_ccds_are_found_whatever_is_left_of_their_names(change: Callable[[list[Cards]], list[Cards]]) -> None:
    found = places(change(spliced()))
    assert sorted(place.ccd for place in found) == list(range(36))
    assert {place.amps for place in found} == {(0, 1)}


def test_without_any_name_the_place_in_the_file_counts() -> None:
    assert [place.ccd for place in places(without(spliced(), "EXTNAME", "EXTVER"))] == list(range(36))


def test_amplifiers_as_read_out_are_told_by_ampname_or_by_their_order() -> None:
    found = places(unspliced())
    assert found[:3] == [Place(0, (1,)), Place(0, (0,)), Place(1, (1,))]
    assert found[34:38] == [Place(17, (1,)), Place(17, (0,)), Place(18, (0,)), Place(18, (1,))]
    assert found[71] == Place(35, (1,))
    assert places(without(unspliced(), "AMPNAME")) == found
    assert places(without(unspliced(), "AMPNAME", "EXTNAME")) == found
    assert [place[:2] for place in places(without(unspliced(), "AMPNAME", "EXTNAME", "EXTVER"))] == [
        place[:2] for place in found
    ]
    assert sorted(places(unspliced()[::-1])) == sorted(found)


def test_a_full_readout_of_80_needs_its_ampnames() -> None:
    found = places(unspliced(80))
    assert sorted((place.ccd, *place.amps) for place in found) == [(ccd, amp) for ccd in range(40) for amp in (0, 1)]
    said = refused(changed(unspliced(80), 5, AMPNAME=None))
    assert said.startswith(
        "extension 6 has no AMPNAME that names its amplifier, and its number does not tell in a file"
    )
    assert "of 80 extensions, as in one of 72" in said


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (
            changed(spliced(), 7, EXTNAME="ccd09"),
            'EXTNAME "ccd09" and EXTVER 7 (a whole number) disagree; ccd07 should',
        ),
        (changed(spliced(), 7, EXTNAME=["ccd07", "ccd09"]), '"ccd07", "ccd09"'),
        (changed(without(spliced(), "EXTNAME"), 7, EXTVER=77), "says that it is number 77"),
        (changed(spliced(), 7, EXTNAME=None, EXTVER=77), "0 to 39; ccd07 should be there"),
        (changed(unspliced(), 12, EXTVER=13), "disagree; ccd06 amplifier B should be there"),
        (changed(unspliced(), 12, AMPNAME="06a"), "AMPNAME says ccd06 amplifier A, and number 12 of 72 is ccd06 amp"),
        (changed(unspliced(80), 12, AMPNAME="47a"), "is ccd47 amplifier A by its AMPNAME; there are ccd00 to ccd39"),
        (changed(unspliced(80), 12, AMPNAME="06a"), "ccd06 amplifier A is there more than once; ccd06 amplifier B mis"),
        (changed(unspliced(80), 12, AMPNAME="00a + 00b"), "extension 13 has no AMPNAME that names its amplifier"),
    ],
)
def test_an_extension_that_says_two_things_is_refused(headers: list[Cards], said: str) -> None:
    assert said in refused(headers)


# ---------------------------------------------------------------------------------------- whether it is whole


@pytest.mark.parametrize("count", [36, 40])
def test_a_whole_exposure_has_36_ccds_or_40(count: int) -> None:
    assert len(places(spliced(count))) == count


@pytest.mark.parametrize("first", [0, 18])
def test_half_a_mosaic_is_a_whole_calibration_but_no_whole_exposure(first: int) -> None:
    assert [place.ccd for place in places(spliced(18, first), science=False)] == list(range(first, first + 18))
    assert "18 CCDs where a whole focal plane has 36 or 40" in refused(spliced(18, first))


def lacking(headers: list[Cards], *indexes: int) -> list[Cards]:
    return [cards for index, cards in enumerate(headers) if index not in indexes]


@pytest.mark.parametrize(
    ("headers", "primary", "said"),
    [
        (lacking(spliced(), 17), {"NEXTEND": 36}, "NEXTEND says 36 extensions, the file has 35: ccd17 missing"),
        (lacking(spliced(), 17), {}, "the file has 35 CCDs where a whole focal plane has 36 or 40: ccd17 missing"),
        (lacking(spliced(), 17), {"NEXTEND": None}, "35 CCDs where a whole focal plane has 36 or 40: ccd17 missing"),
        (
            lacking(spliced(40), 3, 17, 38),
            {},
            "37 CCDs where a whole focal plane has 36 or 40: ccd03, ccd17, ccd38 mis",
        ),
        (lacking(spliced(40), 1, 2, 3, 5), {}, "36 CCDs, but not those of a whole focal plane: ccd01, ccd02, ccd03, c"),
        (
            spliced()[:17],
            {"NEXTEND": 36},
            "ccd24 and 11 more missing; nothing after extension 17 (ccd16) is an extension",
        ),
        ([*spliced(), spliced()[35]], {"NEXTEND": 36}, "the file has 37: ccd35 is there more than once"),
        (changed(spliced(), 18, EXTNAME="ccd17", EXTVER=None), {}, "ccd17 is there more than once; ccd18 missing"),
        (
            lacking(unspliced(), 34),
            {},
            "71 amplifiers where a whole focal plane has 72 or 80: ccd17 amplifier B missing",
        ),
        (lacking(unspliced(), 34, 35), {"NEXTEND": 72}, "NEXTEND says 72 extensions, the file has 70: ccd17 missing"),
        (lacking(without(unspliced(), "AMPNAME"), 34), {}, "ccd17 amplifier B missing"),
        (spliced(40), {"NEXTEND": 45}, "NEXTEND says 45 extensions, the file has 40"),
        (spliced(), {"NEXTEND": "many"}, 'NEXTEND is "many"; expected a whole number'),
    ],
)
def test_a_focal_plane_that_is_not_whole_is_refused_by_name(
    headers: list[Cards], primary: dict[str, Any], said: str
) -> None:
    assert said in refused(headers, **primary)


def test_what_is_missing_is_not_guessed() -> None:
    said = refused(lacking(without(spliced(), "EXTNAME", "EXTVER"), 17))
    assert said.endswith("what is missing cannot be told, as there are extensions without EXTNAME and EXTVER")
    assert "ccd" not in said


def test_an_extension_is_named_by_its_header_or_by_those_before_it() -> None:
    primary, plain, read_out = Cards({"NEXTEND": 36}), spliced(), unspliced()
    assert CFHT.name(primary, plain[:18], 17) == "ccd17"
    assert CFHT.name(primary, plain[:17], 17) == "ccd17"
    assert CFHT.name(primary, plain[35:17:-1], 17) == "ccd18"
    assert CFHT.name(primary, plain[35:18:-1], 17) is None  # not in order: nobody knows what follows
    assert CFHT.name(primary, [], 0) == "ccd00"
    assert CFHT.name(Cards({"NEXTEND": 72}), [], 0) == "ccd00 amplifier B"
    assert CFHT.name(Cards(), [], 0) is None
    assert CFHT.name(Cards({"NEXTEND": 72}), read_out[:35], 34) == "ccd17 amplifier B"
    assert CFHT.name(Cards({"NEXTEND": 72}), read_out[:36], 36) == "ccd18 amplifier A"
    assert CFHT.name(Cards({"NEXTEND": 80}), read_out[:36], 36) is None
    assert CFHT.name(primary, [Cards({"EXTNAME": "im1"})], 1) is None
    assert CFHT.name(primary, plain[:3], 17) is None


# ------------------------------------------------------------------------------- how many files, which shift


def pieces(first: Cards, science: bool = True, extensions: int | None = None, **primary: Any) -> int:
    return CFHT.pieces(Cards(primary), first, science, extensions)


def test_a_focal_plane_gives_two_files_per_ccd() -> None:
    assert pieces(spliced()[0], NEXTEND=36) == 72
    assert pieces(spliced()[0], NEXTEND=40) == 80
    assert pieces(spliced()[0], science=False, NEXTEND=18) == 36
    assert pieces(spliced()[0], extensions=36) == 72
    assert pieces(unspliced()[0], NEXTEND=72) == 72
    assert pieces(unspliced()[0], NEXTEND=80) == 80


@pytest.mark.parametrize(
    ("first", "primary", "said"),
    [
        (
            spliced()[0],
            {"NEXTEND": 35},
            "35 extensions, where a science focal plane of the spliced readout has 36 or 40",
        ),
        (spliced()[0], {"NEXTEND": 18}, "36 or 40: it is not whole"),
        (spliced()[0], {"NEXTEND": 72}, "of the spliced readout has 36 or 40"),
        (unspliced()[0], {"NEXTEND": 36}, "of the unspliced readout has 72 or 80"),
        (spliced()[0], {"NEXTEND": "many"}, "whole number"),
        (spliced()[0], {}, "no NEXTEND"),
        (Cards({"EXTNAME": "ccd00", "NAXIS1": 1056}), {"NEXTEND": 36}, "NAXIS1 of the first extension is 1056"),
        (Cards({"EXTNAME": "amp00", "NAXIS1": 2112}), {"NEXTEND": 72}, "expected 1056, as the unspliced readout has"),
    ],
)
def test_what_the_first_headers_show_not_to_be_whole_is_refused(
    first: Cards, primary: dict[str, Any], said: str
) -> None:
    with pytest.raises(CameraError) as error:
        pieces(first, **primary)
    assert said in str(error.value)


def test_the_chop_is_that_of_2010() -> None:
    assert len(SPLICED.removed) == 15
    assert CFHT.path_keyword == "DC3BPATH"
    assert SPLICED.strips(2112) == ((1, 1056), (1057, 2112))
    assert [amp.replaced for amp in SPLICED.amps] == [
        (("GAIN", "GAINA"), ("RDNOISE", "RDNOISEA")),
        (("GAIN", "GAINB"), ("RDNOISE", "RDNOISEB")),
    ]
    assert [CFHT.shift(SPLICED, index, 2112, "exact") for index in (0, 1)] == [0, -1056]
    assert [CFHT.shift(SPLICED, index, 2112, "historic") for index in (0, 1)] == [0, -1024]
    assert CFHT.shift(SPLICED, 1, 64, "exact") == -32
    assert CFHT.shift(SPLICED, 1, 2112, "exact", science=False) == 0
    with pytest.raises(CameraError, match="NAXIS1 is 2113"):
        SPLICED.strips(2113)


def test_an_amplifier_as_read_out_keeps_all_that_it_says() -> None:
    assert UNSPLICED.strips(1056) == ((1, 1056),)
    assert UNSPLICED.removed == ()
    assert {amp.replaced for amp in UNSPLICED.amps} == {()}
    assert CFHT.shift(UNSPLICED, 0, 1056, "exact") == CFHT.shift(UNSPLICED, 0, 1056, "historic") == 0


# ----------------------------------------------------------------------------------------- cameras of one's own


ONE = """
title = "One readout"
raw_layout = "raw"
[ids]
visit = { kind = "int" }
ccd = { kind = "int" }
amp = { kind = "int" }
[layouts.raw]
templates = ["raw/v{visit}/c{ccd:02d}-a{amp}.fits"]
science = true
[input]
templates = ["{visit}.fits"]
[chop]
extension_id = "ccd"
extension_name = "S([0-9]+)"
amp_id = "amp"
removed = ["DATASEC"]
path_keyword = "HERE"
[chop.crpix1]
exact = "width"
historic = "width"
[chop.extensions]
science = [4]
calibration = [4]
[[chop.amps]]
name = "L"
number = 1
[[chop.amps]]
name = "R"
number = 2
"""


def own(folder: Path, text: str, name: str = "own") -> ChopRule:
    (folder / f"{name}.toml").write_text(text)
    return rule_of(name, folder)


def test_a_camera_of_one_readout_is_simple_to_write(tmp_path: Path) -> None:
    rule = own(tmp_path, ONE)
    headers = [Cards({"EXTNAME": f"S{number}", "NAXIS1": 100}) for number in range(4)]
    assert rule.readout(headers).name == "only"
    assert [place.ccd for place in rule.places(rule.readouts[0], Cards(), headers, True)] == [0, 1, 2, 3]
    assert rule.pieces(Cards({"NEXTEND": 4}), headers[0], True) == 8
    assert rule.readouts[0].strips(100) == ((1, 50), (51, 100))
    assert rule.name(Cards(), [], 0) == "ccd00"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('extension_name = "S([0-9]+)"\n', ""), "chop: extension_name missing; expected them here, or"),
        (('"S([0-9]+)"', '"S[0-9]+"'), "chop: extension_name has no group in parentheses"),
        (('"S([0-9]+)"', '"S([0-9]+"'), "chop.extension_name"),
        (("number = 2", "number = 1"), "chop: two amps have one name or one number"),
        (("removed =", "columns = 99\nremoved ="), "chop: 99 columns do not divide into 2"),
        (("science = [4]", "science = []"), "chop.extensions.science"),
        (("removed =", "colums = 100\nremoved ="), 'unknown key `colums`, did you mean "columns"?'),
        (("[[chop.amps]]", '[[chop.readouts]]\nname = "x"\n[[chop.amps]]'), "chop.readouts[0]"),
    ],
)
def test_a_bad_chop_table_is_refused_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in ONE
    with pytest.raises(CameraError) as error:
        own(tmp_path, ONE.replace(*change, 1))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('name = "unspliced"', 'name = "spliced"'), "two readouts have one name"),
        (('extension_id = "ccd"', 'extension_id = "ccd"\nremoved = []'), "removed must stand in the [[chop.readouts]]"),
        (('"([0-9]{2})([ab])"', '"([0-9]{2})"'), "chop.readouts[1]: amplifier.pattern needs two groups"),
        (('amps = ["B", "A"]', 'amps = ["B", "C"]'), "the order names an amplifier that is not in amps; expected A, B"),
        (("science = [72, 80]", "science = [71, 80]"), "must be multiples of that"),
        (('pattern = "([0-9]{2})([ab])"', ""), "chop.readouts[1].amplifier.pattern: missing"),
    ],
)
def test_a_bad_readout_is_refused_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = names()["cfht_megacam"].read_text()
    assert change[0] in text
    with pytest.raises(CameraError) as error:
        own(tmp_path, text.replace(*change, 1))
    assert said in str(error.value)
