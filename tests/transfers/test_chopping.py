"""A focal plane chopped: cards verbatim, pixels in their place, sums right, and clear refusals.

Which CCD an extension is of, and whether all are there, is the camera's to say: tests/manifests/test_chop_rules.py,
and for whole files tests/stager/test_focal_planes.py.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given
from hypothesis import strategies as st

from stager.samples import FULL_ROWS, OVERSCAN, amplifier_pixels, focal_plane_pixels, write_focal_plane
from transfers import fits
from transfers.agent import Cut, Hdu, Piece, Want
from transfers.chopping import ChopRule, Extension, Made, Strip, pieces, printable, string_cards
from transfers.copying import copy
from transfers.errors import SourceCorrupt, TransferError
from transfers.fits import Header
from transfers.local import LocalHost
from transfers.unpacking import unpack

REMOVED = (
    *("DETSEC", "DETSECA", "DETSECB", "DATASEC", "BIASSEC"),
    *("ASECA", "DSECA", "TSECA", "BSECA", "CSECA"),
    *("ASECB", "DSECB", "TSECB", "BSECB", "CSECB"),
)
RULE = ChopRule(2112, REMOVED)
A = Strip({"ccd": 0, "amp": 0}, (1, 1056), (("GAIN", "GAINA"), ("RDNOISE", "RDNOISEA")))
B = Strip({"ccd": 0, "amp": 1}, (1057, 2112), (("GAIN", "GAINB"), ("RDNOISE", "RDNOISEB")), -1056)
OUT = "/usr/data/CFHTDeep"

Cards = list[bytes]
Change = Callable[[list[tuple[Cards, bytes]]], list[tuple[Cards, bytes]]]


def destination(ids: Mapping[str, int]) -> str:
    return f"D3/raw/v1038843-fr/s00/c{ids['ccd']:02d}-a{ids['amp']}.fits"


def host(name: str, folder: Path) -> LocalHost:
    return LocalHost(name, str(folder))


def walk(path: Path) -> tuple[Hdu, ...]:
    (found,) = host("lsst10", path.parent).headers([path.name])
    assert not isinstance(found, TransferError), found
    return found


def extensions(path: Path, *strips: Strip) -> list[Extension]:
    """The extensions of a file, in the order of their CCDs, each to be cut into these strips."""
    return [
        Extension(
            f"ccd{ccd:02d}",
            hdu,
            Header.parse(hdu.header),
            tuple(replace(strip, ids={**strip.ids, "ccd": ccd}) for strip in strips or (A, B)),
        )
        for ccd, hdu in enumerate(walk(path)[1:])
    ]


def recipes(path: Path, rule: ChopRule = RULE, *strips: Strip) -> list[Made]:
    return pieces(extensions(path, *strips), rule, destination, OUT)


def chopped(path: Path, rule: ChopRule = RULE, *strips: Strip) -> dict[tuple[int, int], Piece]:
    return {(made.ids["ccd"], made.ids["amp"]): made.piece for made in recipes(path, rule, *strips)}


def changed(path: Path, change: Change) -> Path:
    """The file with its HDUs changed: each is its cards and its padded data."""
    raw = path.read_bytes()
    hdus = walk(path)
    ends = [hdu.offset for hdu in hdus[1:]] + [len(raw)]
    parts = [
        (list(Header.parse(hdu.header).cards), raw[hdu.data_offset : end]) for hdu, end in zip(hdus, ends, strict=True)
    ]
    path.write_bytes(b"".join(fits.header_bytes(cards) + data for cards, data in change(parts)))
    return path


def with_card(index: int, name: str, text: str | None) -> Change:
    """The card of this keyword in one HDU changed, or taken out (None)."""

    def change(hdus: list[tuple[Cards, bytes]]) -> list[tuple[Cards, bytes]]:
        cards, data = hdus[index]
        kept = [card if fits.keyword(card) != name else None for card in cards]
        new = f"{name:<8}= {text}".encode().ljust(80) if text is not None else None
        hdus[index] = ([one for card in kept if (one := card if card is not None else new) is not None], data)
        return hdus

    return change


def with_rows(index: int, rows: int) -> Change:
    def change(hdus: list[tuple[Cards, bytes]]) -> list[tuple[Cards, bytes]]:
        (cards, _), size = with_card(index, "NAXIS2", f"{rows:>20}")(hdus)[index], 2112 * rows * 2
        hdus[index] = (cards, bytes(size + -size % 2880))
        return hdus

    return change


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sound focal plane, not to be changed."""
    return write_focal_plane(tmp_path_factory.mktemp("plane") / "1038843o.fits", rows=8)


@pytest.fixture
def own(plane: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copy(plane, tmp_path / plane.name))


def test_a_focal_plane_becomes_a_piece_for_each_amplifier_in_order(plane: Path) -> None:
    found = recipes(plane)
    assert [(made.ids["ccd"], made.ids["amp"]) for made in found] == [(ccd, amp) for ccd in range(36) for amp in (0, 1)]
    assert found[47].destination == "D3/raw/v1038843-fr/s00/c23-a1.fits"
    data = walk(plane)[24].data_offset
    assert found[46].piece.cuts == (Cut(data, 2112, 4224, 8),)
    assert found[47].piece.cuts == (Cut(data + 2112, 2112, 4224, 8),)
    assert all((len(made.piece.header) + 2112 * 8 + made.piece.pad) % 2880 == 0 for made in found)
    assert {made.shift for made in found[::2]} == {0}
    assert {made.shift for made in found[1::2]} == {-1056}


def expected_cards(source: Header, amp: int, ccd: int, crpix1: str) -> list[bytes]:
    """What the chop must make of an extension's cards, said card by card."""
    letter = "AB"[amp]
    lines = []
    for card in source.cards:
        name = fits.keyword(card)
        if name in (*REMOVED, "PCOUNT", "GCOUNT"):
            continue
        if name == "XTENSION":
            lines.append(b"SIMPLE  =                    T / conforms to FITS standard")
        elif name == "NAXIS1":
            lines.append(b"NAXIS1  =                 1056" + card[30:])
        elif name == "GAIN":
            lines.append(b"GAIN    " + (source.card(f"GAIN{letter}") or b"")[8:])
        elif name == "RDNOISE":
            lines.append(b"RDNOISE " + (source.card(f"RDNOISE{letter}") or b"")[8:])
        elif name == "CRPIX1" and amp == 1:
            lines.append(f"CRPIX1  = {crpix1:>20}".encode() + card[30:])
        else:
            lines.append(card)
    lines.append(f"DC3BPATH= '{OUT}/{destination({'ccd': ccd, 'amp': amp})}'".encode())
    lines.append(b"DATASUM = '0000000000'         / data unit checksum")
    lines.append(b"CHECKSUM= '0000000000000000'   / HDU checksum")
    return [line.ljust(80) for line in lines]


@pytest.mark.parametrize("shift", [-1056, -1024])
def test_all_other_cards_are_kept_byte_for_byte(plane: Path, shift: int) -> None:
    found = chopped(plane, RULE, A, replace(B, shift=shift))
    for (ccd, amp), piece in found.items():
        source = Header.parse(walk(plane)[ccd + 1].header)
        shown = str(Decimal(str(source["CRPIX1"])) + shift)
        assert list(Header.parse(piece.header).cards) == expected_cards(source, amp, ccd, shown)
    b = Header.parse(found[0, 1].header)
    assert b["CRPIX1"] == {-1056: -8356.4, -1024: -8324.4}[shift]
    assert b["QID"] == 55100500000000020236
    assert b["GAIN"] == 1.63
    assert (b.card("GAIN") or b"")[30:].startswith(b" / Gain (e-/ADU) of the B amplifier")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("             -7300.4 / pixel", "             -8356.4 / pixel"),
        ("              1083.9 / pixel", "                27.9 / pixel"),
        ("             1056.00 / pixel", "                0.00 / pixel"),
        ("-3.5 / free format", "-1059.5 / free format"),
        ("             -10664. / pixel", "             -11720. / pixel"),
        ("                1000 / pixel", "                 -56 / pixel"),
        ("         1.08390D+03 / pixel", "               27.90 / pixel"),
        ("             1.0E+03 / pixel", "                -56. / pixel"),
        (" 12345.67890123456789012 / pixel", " 11289.67890123456789012 / pixel"),
    ],
)
def test_crpix1_is_shifted_without_losing_or_inventing_digits(own: Path, old: str, new: str) -> None:
    piece = chopped(changed(own, with_card(5, "CRPIX1", old)))[4, 1]
    assert Header.parse(piece.header).card("CRPIX1") == f"CRPIX1  = {new}".encode().ljust(80)


def test_crpix1_that_is_no_number_is_said(own: Path) -> None:
    changed(own, with_card(5, "CRPIX1", "'unknown'"))
    with pytest.raises(SourceCorrupt, match=r"CRPIX1 of ccd04 is \"'unknown'\""):
        chopped(own)


def test_what_is_not_shifted_keeps_its_crpix(plane: Path) -> None:
    source = Header.parse(walk(plane)[1].header)
    found = recipes(plane, RULE, A, replace(B, shift=0))
    assert {made.shift for made in found} == {0}
    for made in found[:2]:
        assert Header.parse(made.piece.header).card("CRPIX1") == source.card("CRPIX1")


def test_the_shift_that_is_told_is_the_one_that_was_applied(own: Path) -> None:
    changed(own, with_card(5, "CRPIX1", None))
    assert [made.shift for made in recipes(own)[6:12]] == [0, -1056, 0, 0, 0, -1056]


def test_an_extension_that_is_one_amplifier_is_taken_whole_with_its_cards(tmp_path: Path) -> None:
    path = write_focal_plane(tmp_path / "688231o.fits", rows=33, ccds=range(17, 19), spliced=False)
    found = recipes(path, ChopRule(1056), Strip({"ccd": 0, "amp": 0}, (1, 1056)))
    for hdu, made in zip(walk(path)[1:], found, strict=True):
        assert made.piece.cuts == (Cut(hdu.data_offset, 2112, 2112, 33),)
        first, *kept = Header.parse(made.piece.header).cards[:-3]
        assert first.startswith(b"SIMPLE  =                    T")
        assert kept == [
            card for card in Header.parse(hdu.header).cards[1:] if fits.keyword(card) not in ("PCOUNT", "GCOUNT")
        ]


def hazards() -> Cards:
    """Cards that a chop has no say in, whatever they look like."""
    return [
        card.encode("latin-1").ljust(80)
        for card in (
            "HIERARCH CRPIX1 = 12.5 / not the keyword of these letters",
            "HIERARCH GAIN = 3.3 / nor this",
            "HIERARCH DETSEC = '[1:2,3:4]' / nor this",
            "HIERARCH ESO DET CHIP1 NAME = 'x' / a long keyword",
            "LONGTEXT= 'begins here and &'",
            "CONTINUE  'goes on&'",
            "CONTINUE  ' to its end' / with a comment",
            "COMMENT DETSEC = '[0:0,0:0]' stood here once",
            "HISTORY imsplice: GAIN replaced by a pair",
            "        = 'no keyword'",
            "UTC-OBS2= '5:23:35.46'",
            "QID2    = 55100500000000020236",
            "lower   = 'case'",
            "TRAILING=                 5  /   blanks   kept  ",
            "NOSLASH =                 'a'comment",
        )
    ]


@pytest.mark.parametrize("spliced", [True, False])
def test_long_keywords_continued_strings_and_comments_survive(tmp_path: Path, spliced: bool) -> None:
    def change(hdus: list[tuple[Cards, bytes]]) -> list[tuple[Cards, bytes]]:
        for cards, _ in hdus[1:]:
            cards[40:40] = hazards()
        return hdus

    path = write_focal_plane(tmp_path / "1038843o.fits", rows=8, ccds=range(1), spliced=spliced)
    whole = Strip({"ccd": 0, "amp": 0}, (1, 1056))
    found = recipes(changed(path, change), *((RULE,) if spliced else (ChopRule(1056), whole)))
    for made in found:
        kept = Header.parse(made.piece.header).cards
        start = kept.index(hazards()[0])
        assert list(kept[start : start + len(hazards())]) == hazards()


def test_a_removed_string_goes_with_its_continuation(own: Path) -> None:
    def change(hdus: list[tuple[Cards, bytes]]) -> list[tuple[Cards, bytes]]:
        cards, _ = hdus[1]
        cards[30:30] = [b"BSECA   = 'long &'".ljust(80), b"CONTINUE  'end'".ljust(80)]
        return hdus

    assert b"CONTINUE" not in chopped(changed(own, change))[0, 0].header


def test_old_sums_go_and_new_ones_come_last(own: Path) -> None:
    def change(hdus: list[tuple[Cards, bytes]]) -> list[tuple[Cards, bytes]]:
        names = ("CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM", "DC3BPATH")
        for cards, _ in hdus[1:]:
            cards[20:20] = [f"{name:<8}= 'old'".encode().ljust(80) for name in names]
        return hdus

    names = [fits.keyword(card) for card in Header.parse(chopped(changed(own, change))[0, 0].header).cards]
    assert names[-3:] == ["DC3BPATH", "DATASUM", "CHECKSUM"]
    assert not {"ZHECKSUM", "ZDATASUM"} & set(names)
    assert all(names.count(name) == 1 for name in names[-3:])


def test_a_header_without_the_amplifiers_gain_keeps_the_average(own: Path) -> None:
    found = Header.parse(chopped(changed(own, with_card(1, "GAINB", None)))[0, 1].header)
    assert found["GAIN"] == 1.585
    assert b"= Average" in (found.card("GAIN") or b"")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=300))
def test_a_path_of_any_length_reads_back(text: str) -> None:
    text = f"/{text}/c00-a0.fits"
    cards = string_cards("DC3BPATH", text)
    assert all(len(card) == 80 for card in cards)
    assert Header(cards)["DC3BPATH"] == text
    if "'" not in text:  # astropy 8 takes the two quotes that stand for one before a slash for the end
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", astropy_fits.verify.VerifyWarning)
            assert astropy_fits.Header.fromstring(b"".join(cards))["DC3BPATH"] == text


def test_a_path_beyond_ascii_is_written_with_escapes() -> None:
    assert printable("/home/andré/a\n") == "/home/andr\\xc3\\xa9/a\\x0a"
    assert printable("/a\udcff") == "/a\\xff"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_card(6, "NAXIS1", f"{2111:>20}"), r"^extension 6 \(ccd05\) has NAXIS1 2111 where 2112"),
        (with_card(1, "NAXIS1", f"{1056:>20}"), r"^extension 1 \(ccd00\) has NAXIS1 1056 where 2112"),
        (with_rows(6, 9), r"^extension 6 \(ccd05\) has NAXIS2 9 where most have 8"),
        (with_rows(1, 9), r"^extension 1 \(ccd00\) has NAXIS2 9 where most have 8"),
        (with_card(6, "BITPIX", f"{8:>20}"), r"^extension 6 \(ccd05\) has BITPIX 8 where most have 16"),
        (with_card(6, "BITPIX", f"{17:>20}"), r"^extension 6 \(ccd05\) has BITPIX 17, which is none"),
        (with_card(6, "NAXIS", f"{3:>20}"), r"^extension 6 \(ccd05\) has axes \(2112, 8, None\) where two"),
        (with_card(6, "XTENSION", "'BINTABLE'"), r"^extension 6 \(ccd05\) has XTENSION 'BINTABLE'"),
        (with_card(6, "GCOUNT", f"{2:>20}"), r"^extension 6 \(ccd05\) has PCOUNT 0 and GCOUNT 2"),
    ],
)
def test_an_extension_that_cannot_be_cut_is_refused_by_name(own: Path, change: Change, sentence: str) -> None:
    sound = extensions(own)
    _, *parts = change([([], b""), *((list(one.header.cards), b"") for one in sound)])
    found = [one._replace(header=Header(cards)) for one, (cards, _) in zip(sound, parts, strict=True)]
    with pytest.raises(SourceCorrupt, match=sentence):
        pieces(found, RULE, destination, OUT)


def test_all_that_are_bad_are_said(own: Path) -> None:
    found = [one._replace(header=Header([*one.header.cards[:3]])) for one in extensions(own)[:6]]
    with pytest.raises(SourceCorrupt, match=r"\(ccd00\).*; extension 4 \(ccd03\).*; and 2 more"):
        pieces(found, RULE, destination, OUT)


# ------------------------------------------------------------------------------------- end to end, on disks


def land(source: Path, root: Path, rule: ChopRule = RULE, *strips: Strip) -> dict[tuple[int, int], Path]:
    """Chop a plain focal plane as a worker does: recipes, then a verified copy of all of them."""
    root.mkdir(exist_ok=True)
    made = pieces(extensions(source, *strips), rule, destination, str(root))
    state = source.stat()
    wants = [
        Want(1, 1, source.name, one.destination, state.st_size, state.st_mtime_ns, None, False, one.piece)
        for one in made
    ]
    here, there = host("lsst10", source.parent), host("abe", root)
    there.open(None)
    for _, result in copy(here, there, wants):
        assert not isinstance(result, TransferError), result
    return {(one.ids["ccd"], one.ids["amp"]): root / one.destination for one in made}


def check_pixels(found: Mapping[tuple[int, int], Path], rows: int) -> None:
    assert len(found) == 72
    for (ccd, amp), path in found.items():
        with astropy_fits.open(path, checksum=True, memmap=False) as hdus:  # a wrong sum is a warning: an error here
            assert len(hdus) == 1
            assert hdus[0].data.dtype == np.uint16
            expected = focal_plane_pixels(ccd, rows)[:, 1056 * amp : 1056 * (amp + 1)]
            assert np.array_equal(hdus[0].data, expected), path


def check_sums(found: Mapping[tuple[int, int], Path]) -> None:
    for path in found.values():
        (hdu,) = walk(path)
        raw = path.read_bytes()
        assert len(raw) % 2880 == 0
        assert fits.verify(hdu.header, [raw[hdu.data_offset :]]) == (True, True)


Verify = Callable[[Path], int]


@pytest.fixture
def errors_of(program: Callable[[str], str]) -> Verify:
    """How many errors fitsverify finds; stale sums would be warnings of their own."""
    tool = program("fitsverify")

    def verify(path: Path) -> int:
        out = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False).stdout
        assert "checksum" not in out.lower().replace("keyword checksum", ""), out
        return sum(line.startswith("*** Error") for line in out.splitlines())

    return verify


def test_the_files_on_disk_hold_their_pixels_and_true_sums(plane: Path, tmp_path: Path) -> None:
    found = land(plane, tmp_path / "out")
    check_pixels(found, 8)
    check_sums(found)


def test_a_second_chop_makes_the_same_bytes(plane: Path, tmp_path: Path) -> None:
    first = {place: path.read_bytes() for place, path in land(plane, tmp_path / "out").items()}
    shutil.rmtree(tmp_path / "out")
    assert {place: path.read_bytes() for place, path in land(plane, tmp_path / "out").items()} == first


def test_fitsverify_finds_no_error_that_the_source_has_not(plane: Path, tmp_path: Path, errors_of: Verify) -> None:
    assert errors_of(plane) == 0
    for path in list(land(plane, tmp_path / "out").values())[::9]:
        assert errors_of(path) == 0


def test_a_focal_plane_truncated_in_its_data_is_refused(own: Path) -> None:
    with own.open("r+b") as file:
        file.truncate(own.stat().st_size - 2112 * 8)
    (found,) = host("lsst10", own.parent).headers([own.name])
    assert isinstance(found, SourceCorrupt)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1257365o.fits.fz.gz", "02AE10.bias.0.36.00.fits.fz.gz"])
def test_a_full_size_focal_plane_with_real_headers(shared: Path, tmp_path: Path, name: str, errors_of: Verify) -> None:
    scratch = host("scratch", tmp_path)
    source = tmp_path / unpack(host("cadc", shared / "data" / "derived_mef"), name, scratch)
    hdus = walk(source)
    calibration = name.endswith("bias.0.36.00.fits.fz.gz")
    found = land(source, tmp_path / "out", RULE, A, replace(B, shift=0) if calibration else B)
    check_pixels(found, FULL_ROWS)
    for (ccd, amp), path in found.items():
        real = Header.parse(hdus[ccd + 1].header)
        kept = [card for card in real.cards if fits.keyword(card) not in (*REMOVED, "PCOUNT", "GCOUNT")]
        new = list(Header.parse(walk(path)[0].header).cards)
        differing = [fits.keyword(a) for a, b in zip(kept, new, strict=False) if a != b]
        shifted = ["CRPIX1"] if amp and not calibration and "CRPIX1" in real else []
        usual = ["XTENSION", "NAXIS1", "GAIN", "RDNOISE", *shifted]
        assert set(differing) <= set(usual), (path, differing)
        assert "CRPIX1" in differing or not shifted
        names = [fits.keyword(card) for card in new[len(kept) :]]
        assert [each for each in names if each != "CONTINUE"] == ["DC3BPATH", "DATASUM", "CHECKSUM"]
    check_sums(found)
    for path in list(found.values())[::24]:
        assert errors_of(path) <= errors_of(source)


def test_the_samples_overscan_is_where_the_cameras_is() -> None:
    pixels = focal_plane_pixels(3, FULL_ROWS)
    assert pixels.shape == (4644, 2112)
    assert set(pixels[4612:, 1:-1].flat) == {803}
    assert set(pixels[1:4612, :OVERSCAN].flat) == {906}
    assert set(pixels[1:4612, -OVERSCAN:].flat) == {907}
    assert (pixels[100, 1055], pixels[100, 1056], pixels[100, 32], pixels[100, 2079]) == (
        50001,
        50002,
        50003,
        50004,
    )
    assert (pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]) == (60003, 61003, 62003, 63003)


def test_an_amplifiers_own_pixels_are_those_of_the_spliced_ccd_in_the_order_of_its_readout() -> None:
    """As the sections of real headers have it: the image in 1:1024 from the amplifier's side on, then the overscan."""
    whole = focal_plane_pixels(3, FULL_ROWS)
    a, b = (amplifier_pixels(3, amplifier, FULL_ROWS) for amplifier in (0, 1))
    assert a.shape == b.shape == (4644, 1056)
    assert np.array_equal(a[:, :1024], whole[:, 32:1056])
    assert np.array_equal(b[:, 1023::-1], whole[:, 1056:2080])
    assert {*a[1:4612, 1024:].flat} == {906}
    assert {*b[1:4612, 1024:].flat} == {907}


def test_a_rule_may_leave_headers_as_they_are(plane: Path) -> None:
    source = Header.parse(walk(plane)[1].header)
    bare = Strip({"ccd": 0, "amp": 0}, (1, 1056)), Strip({"ccd": 0, "amp": 1}, (1057, 2112))
    found = Header.parse(chopped(plane, ChopRule(2112), *bare)[0, 1].header)
    assert [found.card(name) for name in REMOVED] == [source.card(name) for name in REMOVED]
    assert found.card("GAIN") == source.card("GAIN")
    assert found.cards[0].startswith(b"SIMPLE  = ")
