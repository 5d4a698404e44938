"""Headers as raw cards, and sums, held against astropy and against what archives really write."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given
from hypothesis import strategies as st

from transfers import fits


def card(text: str) -> bytes:
    return text.encode("latin-1").ljust(80)


def header(*texts: str) -> fits.Header:
    return fits.Header.parse(fits.header_bytes([card(text) for text in texts]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("QID     = 55100500000000020236", 55100500000000020236),
        ("OBSID   =              1257365 / odometer", 1257365),
        ("INHERIT =                    F / no", False),
        ("SIMPLE  =                    T", True),
        ("CD2_2   =           -5.194E-05 / scale", -5.194e-05),
        ("EXPTIME =                  15. / seconds", 15.0),
        ("BIG     =            1.25D+003", 1250.0),
        ("UTC-OBS = '4:37:54.31'         / no leading zero", "4:37:54.31"),
        ("OBSERVER= 'O''Neill / sons  '  / who", "O'Neill / sons"),
        ("OBSTYPE = 'FLAT              ' /         / type", "FLAT"),
        ("EMPTY   = ''", ""),
        ("NOTHING =                      / no value", None),
        ("MJD-OBS =                  NaN / not a number", "NaN"),
        ("HUGE    =               1E9999 / no float", "1E9999"),
        ("OPEN    = 'never closed", "'never closed"),
        ("COMPLEX = (1.0, 2.0)", "(1.0, 2.0)"),
    ],
)
def test_a_value_is_read_as_the_standard_says_or_is_its_text(text: str, value: fits.Value) -> None:
    name = text[:8].strip()
    found = header(text)[name]
    assert found == value
    assert type(found) is type(value)


def test_a_string_goes_on_over_continue_cards() -> None:
    cards = astropy_fits.Card("DC3BPATH", "/usr/data/" + "morning/" * 30 + "c00-a0.fits")
    raw = str(cards).encode("ascii")
    split = [raw[start : start + 80] for start in range(0, len(raw), 80)]
    assert len(split) > 3
    assert fits.Header(split)["DC3BPATH"] == "/usr/data/" + "morning/" * 30 + "c00-a0.fits"
    assert fits.without([card("A       = 1"), *split, card("B       = 2")], ["DC3BPATH"]) == (
        card("A       = 1"),
        card("B       = 2"),
    )


def test_both_extname_cards_are_found() -> None:
    both = header("EXTNAME = 'COMPRESSED_IMAGE'", "EXTNAME = 'ccd00   '", "EXTVER  = 0")
    assert both["EXTNAME"] == "COMPRESSED_IMAGE"
    assert both.all("EXTNAME") == ("COMPRESSED_IMAGE", "ccd00")
    assert both.all("NONE") == ()


def test_comment_cards_have_no_value() -> None:
    found = header("COMMENT = 'looks like a value'", "HISTORY = 1", "        = 2", "HIERARCH ESO DET X = 3 / deep")
    assert dict(found) == {"ESO DET X": 3}


def cards_of_archives() -> st.SearchStrategy[bytes]:
    """Cards with keywords that occur again, with and without a value, and of HIERARCH."""
    names = st.sampled_from(
        ["A", "B", "", "COMMENT", "HISTORY", "CONTINUE", "END", "ENDING", "LONGNAME", "lower", "HIERARCH"]
    )
    marks = st.sampled_from(["= ", "=1", "  ", " =", "ESO X = ", "A= "])
    return st.builds(lambda name, mark, value: card(f"{name:<8}{mark}{value}")[:80], names, marks, st.integers(0, 99))


@given(st.lists(cards_of_archives(), max_size=40))
def test_the_index_is_what_a_walk_over_the_cards_finds(cards: list[bytes]) -> None:
    ended = next((place for place, one in enumerate(cards) if one.rstrip() == b"END"), len(cards))
    valued: dict[str, list[fits.Value]] = {}
    for one in cards[:ended]:
        name = fits.keyword(one)
        if fits.has_value(one) and name not in ("", "COMMENT", "HISTORY", "CONTINUE", "END"):
            valued.setdefault(name, []).append(fits.parse_value(fits.value_text(one)))
    found = fits.Header.parse(b"".join(cards) + b"short")
    assert found.cards == tuple(cards[:ended])
    assert list(found) == list(valued)
    assert {name: list(found.all(name)) for name in found} == valued
    assert dict(found) == {name: values[0] for name, values in valued.items()}
    assert set(found.doubled) == {name for name, values in valued.items() if len(values) > 1}


def test_a_keyword_that_is_not_there_has_no_value() -> None:
    found = header("A       = 1")
    assert found.get("B") is None
    assert found.get("B", 5) == 5
    assert "B" not in found
    assert "\N{SNOWMAN}" not in found
    assert 5 not in found
    with pytest.raises(KeyError):
        found["B"]
    assert found.card("B") is None
    assert found.card("A") == card("A       = 1")


def test_cards_are_found_by_their_bytes_and_each_once() -> None:
    found = header("A       = '<b>'", "COMMENT <i> and <u>", "B       = 'none<'", "i>      = 1")
    assert list(found.find(re.compile(rb"<[a-z]>"))) == [("A", "= '<b>'"), ("COMMENT", "<i> and <u>")]
    split = fits.Header([card("A       = '").ljust(80)[:79] + b"<", card("b>      = 1")])
    assert list(split.find(re.compile(rb"<[a-z]>"))) == []


@pytest.mark.parametrize(
    ("text", "printable"), [("plain ~", True), ("tab\t", False), ("h\xe9", False), ("\x7f", False), ("\0", False)]
)
def test_only_printable_ascii_is_printable(text: str, printable: bool) -> None:
    assert header(f"A       = '{text}'").printable is printable


@given(st.binary(max_size=800))
def test_no_bytes_make_a_header_raise(raw: bytes) -> None:
    found = fits.Header.parse(raw)
    assert all(len(one) == 80 for one in found.cards)
    for name in found:
        found.all(name)
    found.axes()


@given(st.binary(max_size=400).filter(any), st.integers(0, 100))
def test_sums_of_pieces_add_up(data: bytes, cut: int) -> None:
    first, second = data[: cut * 4], data[cut * 4 :]
    assert fits.datasum(second, fits.datasum(first)) == fits.datasum(data)
    assert fits.datasum(data) % 0xFFFFFFFF == int.from_bytes(data + b"\0" * (-len(data) % 4), "big") % 0xFFFFFFFF


@given(st.binary(min_size=160, max_size=160))
def test_an_encoded_checksum_brings_the_sum_to_all_ones(other: bytes) -> None:
    zeros = other + card("CHECKSUM= '0000000000000000'") + other
    encoded = fits.encode_checksum(fits.datasum(zeros))
    assert encoded.isalnum()
    assert len(encoded) == 16
    assert fits.datasum(zeros.replace(b"0" * 16, encoded.encode("ascii"))) % 0xFFFFFFFF == 0


def test_sums_are_verified_and_damage_is_seen() -> None:
    image = astropy_fits.PrimaryHDU(np.arange(5000, dtype=">i2").reshape(50, 100))
    file = io.BytesIO()
    image.writeto(file, checksum=True)
    raw = file.getvalue()
    assert fits.verify(raw[:2880], [raw[2880:]]) == (True, True)
    assert fits.verify(raw[:2880], [raw[2880:5760], raw[5760:]]) == (True, True)
    damaged = bytearray(raw)
    damaged[4000] ^= 1
    assert fits.verify(raw[:2880], [bytes(damaged[2880:])]) == (False, False)
    damaged = bytearray(raw)
    damaged[700] ^= 1
    assert fits.verify(bytes(damaged[:2880]), [raw[2880:]]) == (True, False)
    assert fits.verify(fits.header_bytes([card("A       = 1")]), []) == (None, None)


@pytest.mark.parametrize(
    ("name", "good"),
    [("astropy_checksum.fits", True), ("nomtam_checksum.fits", True), ("astropy_test0.fits", None)],
)
def test_real_files_are_judged_as_other_tools_judge_them(shared: Path, name: str, good: bool | None) -> None:
    raw = (shared / "data" / "integrity" / name).read_bytes()
    with astropy_fits.open(io.BytesIO(raw)) as hdus:
        for hdu in hdus:
            place = hdu.fileinfo()
            end = place["datLoc"] + place["datSpan"]
            sums = fits.verify(raw[place["hdrLoc"] : place["datLoc"]], [raw[place["datLoc"] : end]])
            assert set(sums) <= {good, None} | ({None} if good is None else set())
