"""Sums and structure of HDUs: what is right, wrong, malformed or missing, beside what astropy and fitsverify say."""

from __future__ import annotations

import gzip
import os
import random
import re
import struct
import subprocess
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tests.transfers import crafted
from tests.transfers.crafted import extension, integer, padded, primary, sound
from transfers.agent import Agent, Hdu, Limits, encoded_checksum, summed_header
from transfers.errors import HostDown, SourceCorrupt, from_fault
from transfers.hosts import Fault
from transfers.integrity import Trouble, of_error, troubles

SUMS = Limits(sums=True)


def walked(path: Path, limits: Limits = SUMS) -> tuple[Hdu, ...]:
    (found,) = Agent(str(path.parent)).headers([path.name], limits)
    assert not isinstance(found, Fault), found
    return found


def troubles_of(path: Path, data: bytes | None = None) -> list[Trouble]:
    if data is not None:
        path.write_bytes(data)
    return troubles(walked(path), path.name)


def said(found: Iterable[Trouble]) -> list[tuple[str, str, int]]:
    return [(one.code, one.severity, one.hdu) for one in found]


def summed(*cards: str, bitpix: object = 8, axes: tuple[object, ...] = (), data: bytes = b"") -> bytes:
    """A primary HDU with the sums that it should have, in the cards given for them."""
    from transfers.fits import datasum

    header = primary(*cards, bitpix=bitpix, axes=axes)
    return summed_header(header, datasum(padded(data))) + padded(data)


CARDS = ("DATASUM = '0       '           / of the data", "CHECKSUM= '" + "0" * 16 + "'   / of the HDU")


def test_right_sums_are_no_trouble(tmp_path: Path) -> None:
    assert troubles_of(tmp_path / "a.fits", summed(*CARDS)) == []
    assert troubles_of(tmp_path / "b.fits", summed(*CARDS, axes=(5000,), data=os.urandom(5000))) == []
    assert troubles_of(tmp_path / "c.fits", summed(*CARDS) + extension() * 3) == []


def test_changed_data_are_two_failures_and_a_changed_header_is_one(tmp_path: Path) -> None:
    data = bytearray(summed(*CARDS, axes=(5000,), data=os.urandom(5000)))
    data[4000] ^= 1
    assert said(troubles_of(tmp_path / "a.fits", bytes(data))) == [("datasum", "fail", 0), ("checksum", "fail", 0)]
    data[4000] ^= 1
    edited = bytes(data).replace(b"of the data", b"of our data")
    (found,) = troubles_of(tmp_path / "b.fits", edited)
    assert (found.code, found.severity) == ("checksum", "fail")
    assert "its data have the sum that DATASUM says" in found.text


def test_swapped_bytes_are_seen_and_every_hdu_is_looked_at(tmp_path: Path) -> None:
    made = fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(np.arange(2000, dtype=np.int16)) for _ in range(3))])
    made.writeto(tmp_path / "a.fits", checksum=True)
    hdus = walked(tmp_path / "a.fits")
    data = bytearray((tmp_path / "a.fits").read_bytes())
    for hdu in (hdus[1], hdus[3]):
        at = hdu.data_offset + 300
        data[at : at + 2] = data[at + 1], data[at]
    found = troubles_of(tmp_path / "a.fits", bytes(data))
    assert said(found) == [
        ("datasum", "fail", 1),
        ("checksum", "fail", 1),
        ("datasum", "fail", 3),
        ("checksum", "fail", 3),
    ]
    assert found[0].text == found[2].text  # so that they are told as one


PIXELS = bytes(range(256)) * 10
SUM = sum(struct.unpack(">640I", PIXELS)) % 0xFFFFFFFF
MISSING, MALFORMED = [("datasum-missing", "note", 0)], [("datasum-malformed", "warn", 0)]
DATASUMS = {
    "text": (f"DATASUM = '{SUM}'", []),
    "integer": (f"DATASUM = {SUM:>20}", []),
    "blanks": (f"DATASUM = ' {SUM}  '", []),
    "leading zeros": (f"DATASUM = '0000{SUM}'", []),
    "empty": ("DATASUM = ''", MISSING),
    "nothing": ("DATASUM =", MISSING),
    "another": (f"DATASUM = '{SUM + 1}'", [("datasum", "fail", 0)]),
    "too large": (f"DATASUM = '{SUM + 0xFFFFFFFF}'", MALFORMED),
    "negative": ("DATASUM = '-1'", MALFORMED),
    "real": (f"DATASUM = {SUM}.0", MALFORMED),
    "true": ("DATASUM = T", MALFORMED),
    "digits of elsewhere": ("DATASUM = '\xb2\xb3'", MALFORMED),
    "a great many": (f"DATASUM = '{'9' * 60}'", MALFORMED),
    "markup": ("DATASUM = '<b>\x1b[31m'", MALFORMED),
    "two that differ": (f"DATASUM = '{SUM}'".ljust(80) + "DATASUM = '7'".ljust(80), MALFORMED),
}


@pytest.mark.parametrize("form", DATASUMS)
def test_datasum_in_all_its_forms(tmp_path: Path, form: str) -> None:
    """The card is written as it is; CHECKSUM is right for each."""
    card, expected = DATASUMS[form]
    found = troubles_of(tmp_path / "a.fits", with_checksum(card, padded(PIXELS)))
    assert said(found) == expected
    assert all("\x1b" not in one.text for one in found)


def with_checksum(card: str, data: bytes) -> bytes:
    """An HDU with this card and a CHECKSUM that is right."""
    from transfers.fits import datasum

    header = primary(card, "CHECKSUM= '" + "0" * 16 + "'", axes=(2560,))
    value = encoded_checksum(datasum(header + data))
    return header.replace(b"0" * 16, value) + data


CHECKSUMS = {
    "wrong": ("CHECKSUM= 'AbCdEfGhIjKlMnOp'", [("checksum", "fail", 0)]),
    "never filled in": ("CHECKSUM= '0000000000000000'", [("checksum", "fail", 0)]),
    "short": ("CHECKSUM= 'AbCd'", [("checksum-malformed", "warn", 0)]),
    "punctuation": ("CHECKSUM= 'AbCdEfGhIjKlMnO!'", [("checksum-malformed", "warn", 0)]),
    "number": ("CHECKSUM=                 1234", [("checksum-malformed", "warn", 0)]),
    "empty": ("CHECKSUM= ''", [("checksum-missing", "note", 0)]),
    "control": ("CHECKSUM= '\x1b[31m'", [("checksum-malformed", "warn", 0)]),
}


@pytest.mark.parametrize("form", CHECKSUMS)
def test_checksum_in_all_its_forms(tmp_path: Path, form: str) -> None:
    card, expected = CHECKSUMS[form]
    found = troubles_of(tmp_path / "a.fits", primary("DATASUM = '0'", card))
    assert said(found) == expected
    assert all("\x1b" not in one.text for one in found)


def test_one_sum_of_two_is_noted_and_judged_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    assert said(troubles_of(path, primary("DATASUM = '0'"))) == [("checksum-missing", "note", 0)]
    assert said(troubles_of(path, primary("DATASUM = '1'"))) == [
        ("datasum", "fail", 0),
        ("checksum-missing", "note", 0),
    ]
    lone = summed(CARDS[1])
    assert said(troubles_of(path, lone)) == [("datasum-missing", "note", 0)]
    assert said(troubles_of(path, lone.replace(b"of the HDU", b"of our HDU"))) == [
        ("checksum", "fail", 0),
        ("datasum-missing", "note", 0),
    ]


def test_sums_are_not_judged_where_they_were_not_made(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(primary("DATASUM = '1'"))
    assert troubles(walked(tmp_path / "a.fits", Limits())) == []


def test_compressed_images_are_judged_by_their_own_sums(tmp_path: Path) -> None:
    """astropy's ZDATASUM is of the image, and says nothing of the HDU."""
    pixels = np.random.default_rng(1).integers(0, 999, (300, 200), np.int16)
    image = fits.CompImageHDU(pixels, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "first.fits")
    with fits.open(tmp_path / "first.fits", disable_image_compression=True) as hdus:
        hdus[1].header["ZDATASUM"], hdus[1].header["ZHECKSUM"] = "1", "AbCdEfGhIjKlMnOp"
        hdus.writeto(tmp_path / "a.fits.fz", checksum=True)
    assert troubles_of(tmp_path / "a.fits.fz") == []
    data = bytearray((tmp_path / "a.fits.fz").read_bytes())
    data[-4000] ^= 8
    found = troubles_of(tmp_path / "a.fits.fz", bytes(data))
    assert said(found) == [("datasum", "fail", 1), ("checksum", "fail", 1)]


# Independent judges.


def damaged_files(folder: Path, count: int) -> list[Path]:
    """Files of three HDUs with sums, in most of which one byte was changed, of the header's text or of the data."""
    chance = random.Random(4)
    pixels = np.random.default_rng(2).integers(0, 60000, (40, 30), np.uint16)
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.arange(100))])
    made = fits.HDUList([fits.PrimaryHDU(pixels), fits.ImageHDU(pixels, name="sci"), table])
    for hdu in made:
        hdu.header["OBJECT"] = ("D3", "of some length, to be changed")
    made.writeto(folder / "good.fits", checksum=True)
    good = (folder / "good.fits").read_bytes()
    hdus = walked(folder / "good.fits")
    paths = [folder / "good.fits"]
    for number in range(count):
        data, hdu = bytearray(good), chance.choice(hdus)
        if chance.random() < 0.5:
            at = hdu.offset + hdu.header.index(b"length") + chance.randrange(6)
            data[at] = ord("x")
        else:
            data[hdu.data_offset + chance.randrange(hdu.data_size)] ^= 1 << chance.randrange(8)
        paths.append(folder / f"bad{number}.fits")
        paths[-1].write_bytes(data)
    return paths


def test_verdicts_are_those_of_astropy(tmp_path: Path) -> None:
    bad = 0
    for path in damaged_files(tmp_path, 40):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, checksum=True) as hdus:
                theirs = {("datasum", n) for n, hdu in enumerate(hdus) if hdu.verify_datasum() == 0}
                theirs |= {("checksum", n) for n, hdu in enumerate(hdus) if hdu.verify_checksum() == 0}
        assert {(one.code, one.hdu) for one in troubles_of(path)} == theirs, path
        bad += bool(theirs)
    assert bad == 40


FITSVERIFY = ("with  the DATASUM keyword", "agreement with CHECKSUM|Invalid CHECKSUM means")


def test_verdicts_are_those_of_fitsverify(tmp_path: Path, program: Callable[[str], str]) -> None:
    fitsverify = program("fitsverify")
    for path in damaged_files(tmp_path, 40):
        run = subprocess.run([fitsverify, path], capture_output=True, text=True, check=False)
        theirs = [len(re.findall(words, run.stdout)) for words in FITSVERIFY]
        ours = [one.code for one in troubles_of(path)]
        assert [ours.count("datasum"), ours.count("checksum")] == theirs, run.stdout
        assert (sum(theirs) > 0) == (path.name != "good.fits")


# Structure.


def structure(path: Path, data: bytes) -> list[tuple[str, str, int]]:
    return said(troubles_of(path, data))


@pytest.mark.parametrize("packed", [False, True])
def test_how_a_file_ends_is_told(tmp_path: Path, packed: bool) -> None:
    name, pack = ("a.fits.gz", gzip.compress) if packed else ("a.fits", bytes)
    path = tmp_path / name
    two = sound() + extension(axes=(5,)) + padded(b"abcde")
    assert structure(path, pack(two)) == []
    assert structure(path, pack(two[:-1])) == [("short-block", "fail", 1)]
    assert structure(path, pack(two[: -2880 + 5])) == [("short-block", "fail", 1)]
    assert structure(path, pack(two + b"\n")) == [("trailing-bytes", "fail", 1)]
    assert structure(path, pack(two + bytes(2881))) == [("trailing-bytes", "fail", 1)]
    assert structure(path, pack(two + b"x" * 5760)) == [("trailing-bytes", "warn", 1)]
    assert structure(path, pack(primary() + b"x" * 2880)) == [("trailing-bytes", "warn", 0)]


def test_padding_of_other_bytes_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    assert structure(path, primary(axes=(5,)) + b"abcde".ljust(2880)) == [("padding", "note", 0)]
    assert structure(path, primary(axes=(5,)) + b"abcde" + bytes(2874) + b"x") == [("padding", "note", 0)]
    table = extension(axes=(5,)).replace(b"'IMAGE   '", b"'TABLE   '")
    assert structure(path, primary() + table + b"abcde".ljust(2880)) == []
    assert structure(path, primary() + table + padded(b"abcde")) == [("padding", "note", 1)]


def test_number_of_extensions_is_held_against_nextend(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    for stated, expected in ((2, []), (3, [("nextend", "warn", 0)]), (0, [("nextend", "warn", 0)]), ("'two'", [])):
        assert structure(path, primary(integer("NEXTEND", stated)) + extension() * 2) == expected
    # A primary image that fpack put into an extension of its own is none.
    assert structure(path, primary(integer("NEXTEND", 1)) + extension(integer("ZSIMPLE", "T")) + extension()) == []


def test_a_file_that_was_not_walked_to_its_end_is_told_nothing_of_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(primary(integer("NEXTEND", 9)) + extension() + b"junk")
    assert troubles(walked(tmp_path / "a.fits", Limits(first=2))) == []


def test_order_of_the_first_cards(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    swapped = crafted.block(integer("SIMPLE", "T"), integer("NAXIS", 0), integer("BITPIX", 8), "END")
    assert structure(path, swapped) == [("card-order", "fail", 0)]
    late = crafted.block(
        integer("SIMPLE", "T"), integer("BITPIX", 8), integer("NAXIS", 1), "COMMENT", integer("NAXIS1", 0), "END"
    )
    assert structure(path, late) == [("card-order", "warn", 0)]
    without = extension().replace(b"GCOUNT", b"GKOUNT")
    assert structure(path, primary() + without) == [("card-order", "warn", 1)]
    assert structure(path, primary(integer("BITPIX", 8))) == [("structure-twice", "warn", 0)]


def test_cards_behind_end_and_a_file_that_says_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    hidden = primary()[:400] + b"OBJECT  = 'hidden'".ljust(2480)
    assert structure(path, hidden) == [("after-end", "warn", 0)]
    assert structure(path, primary().replace(b"T", b"F", 1)) == [("simple-false", "warn", 0)]


def test_gzip_data_by_another_name_is_told_where_the_name_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(gzip.compress(sound()))
    hdus = walked(tmp_path / "a.fits", Limits(by_content=True))
    assert said(troubles(hdus, "a.fits")) == [("gzip-name", "warn", 0)]
    assert troubles(hdus) == []
    assert troubles(hdus, "a.fits.GZ") == []


@pytest.mark.parametrize("name", crafted.ODD)
def test_odd_files_have_a_trouble(tmp_path: Path, name: str) -> None:
    crafted.ODD[name](tmp_path / name)
    found = troubles_of(tmp_path / name)
    assert found
    assert all(one.text.isprintable() for one in found)


# What the walk stopped at.


def test_an_error_of_the_walk_is_a_trouble(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(sound() + extension(axes=(10**6,)) + bytes(2880))
    (fault,) = Agent(str(tmp_path)).headers(["a.fits"])
    assert isinstance(fault, Fault)
    trouble = of_error(from_fault(fault, "here"))
    assert trouble == ("cut-short", "fail", "its header declares 1000000 bytes of data, the file has 2880", 1)


def test_errors_that_are_not_of_the_walk_are_none() -> None:
    assert of_error(HostDown("gone")) is None
    assert of_error(SourceCorrupt("another digest", phase="read")) is None


def test_words_of_a_far_side_are_shown() -> None:
    facts = {"code": "<b>\x1b", "hdu": "1"}
    assert of_error(SourceCorrupt("a\x1b[31m", phase="headers", facts=facts)) == ("corrupt", "fail", "a\\x1b[31m", 0)


# Real ones (field-facts.md, 7.2: what fitsverify, astropy and an own sum say).

GOOD = ("nomtam_checksum", "nomtam_m13_gzip", "nomtam_m13_rice", "astropy_checksum", "afw_multi", "imsim_8", "phosim")
BLANKED = ("lsstcam_3019", "oods_3019")


def test_real_samples_have_the_verdicts_they_should(shared: Path) -> None:
    root = shared / "data"
    paths = [path for path in sorted(root.rglob("*.fits*")) if path.name.endswith((".fits", ".fz", ".gz"))]
    paths = [path for path in paths if "header" not in path.name]
    assert len(paths) > 20
    limits = Limits(sums=True, by_content=True)
    for path in paths:
        found = troubles(walked(path, limits))
        if path.name.startswith(BLANKED):
            expected = [(code, "fail", hdu) for hdu in range(1, 17) for code in ("datasum", "checksum")]
            assert said(found) == expected, path
        else:
            assert found == [], path
    assert {good for good in GOOD for path in paths if path.name.startswith(good)} == set(GOOD)
