"""What a file's HDUs say of its soundness: their own sums, and what FITS demands of their order and their ends.

What makes a file unreadable is an error of the walk (`transfers.agent.walk_hdus`); `of_error` has that as a Trouble
too. Here is what a walk that came to its end found: sums that do not agree, and structure that readers may stumble
over. Sources: FITS Standard 4.0, sections 3, 4.4.1 and 4.4.2.7, and appendix J.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from transfers.agent import INTEGER, ONES, STRUCTURE, STRUCTURE_BEGINS, Hdu, add_words_stdlib, end_of, place_of
from transfers.errors import SourceCorrupt, TransferError, shown
from transfers.fits import BLOCK, CARD, Header

_CHECKSUM = re.compile(r"[0-9A-Za-z]{16}")
_CODE = re.compile(r"[a-z0-9-]{1,40}")
_WIDTH = len("NAXIS   ")


class Trouble(NamedTuple):
    """One thing that is wrong with a file: `severity` is "note" (sound all the same), "warn" (readers may stumble,
    nothing is lost) or "fail" (the file is not what was written). `hdu` is the one it is about, 0 the primary."""

    code: str
    severity: str
    text: str
    hdu: int


def troubles(hdus: Sequence[Hdu], path: str = "") -> list[Trouble]:
    """All that is wrong with a file that was walked to its end; sums are judged where they were asked for.

    With its path, a file that is gzip data by another name is told of too.
    """
    found = [*_of_file(hdus), *(_of_name(path) if hdus and hdus[0].packed and path else ())]
    for number, hdu in enumerate(hdus):
        found += [Trouble(code, severity, text, number) for code, severity, text in _of_hdu(number, hdu)]
    return found


def of_error(error: TransferError) -> Trouble | None:
    """What the walk over a file's HDUs stopped at, None for an error of another kind."""
    if not isinstance(error, SourceCorrupt) or error.phase != "headers":
        return None
    code, hdu = error.facts.get("code"), error.facts.get("hdu")
    known = isinstance(code, str) and _CODE.fullmatch(code)
    text = re.sub(r"^HDU [0-9]+: ", "", error.text)
    return Trouble(str(code) if known else "corrupt", "fail", shown(text), hdu if isinstance(hdu, int) else 0)


# ------------------------------------------------------------------------------------------ the file

_Said = tuple[str, str, str]  # code, severity, text


def _of_name(path: str) -> Iterator[Trouble]:
    if not path.lower().endswith(".gz"):
        text = "the file is gzip data, and its name does not end in .gz: readers that go by the name cannot read it"
        yield Trouble("gzip-name", "warn", text, 0)


def _of_file(hdus: Sequence[Hdu]) -> Iterator[Trouble]:
    """Its number of extensions, and its end."""
    if not hdus or hdus[-1].rest is None:
        return
    last = len(hdus) - 1
    stated = _nextend(hdus[0].header)
    # fpack puts a primary image into an extension of its own, and lets NEXTEND be.
    there = last - (last > 0 and place_of(hdus[1].header, b"ZSIMPLE = ") is not None)
    if stated is not None and stated != there:
        yield Trouble("nextend", "warn", f"NEXTEND is {stated}, and the file has {there} extensions", 0)
    yield from (Trouble(code, severity, text, last) for code, severity, text in _end(hdus[last]))


def _nextend(header: bytes) -> int | None:
    at = place_of(header, b"NEXTEND = ")
    match = None if at is None else INTEGER.fullmatch(header[at + 10 : at + CARD])
    return None if match is None else int(match[1])


def _end(hdu: Hdu) -> Iterator[_Said]:
    """Whether the file ends where its last HDU does, in whole blocks of 2880 bytes."""
    padding = -hdu.data_size % BLOCK
    behind = (hdu.rest or 0) - padding
    if behind < 0:
        yield "short-block", "fail", f"the file ends {-behind} bytes before its last block does: it was cut short"
    elif behind % BLOCK:
        yield "trailing-bytes", "fail", f"{behind} bytes follow the last HDU, and they are no whole blocks"
    elif behind:
        yield "trailing-bytes", "warn", f"{behind} bytes follow the last HDU, in whole blocks of {BLOCK}"


# ----------------------------------------------------------------------------------------- one HDU


def _of_hdu(number: int, hdu: Hdu) -> Iterator[_Said]:
    words = [hdu.header[at : at + 8] for at in range(0, end_of(hdu.header), CARD)]
    yield from _order(number, hdu, words)
    behind = hdu.header[(len(words) + 1) * CARD :]
    if behind.strip(b" "):
        yield "after-end", "warn", "cards follow END, where no reader looks for them"
    if hdu.stray:
        yield "padding", "note", "the last block of its data is filled up with other bytes than FITS says"
    yield from _sums(hdu)


def _order(number: int, hdu: Hdu, words: Sequence[bytes]) -> Iterator[_Said]:
    """The cards that readers need first: there, once, and in the order of FITS 4.0, 4.4.1."""
    if number == 0 and hdu.header[10:CARD].split(b"/")[0].strip() == b"F":
        yield "simple-false", "warn", "SIMPLE = F: the file says itself that it is not as FITS demands"
    at = place_of(hdu.header, b"NAXIS   = ")
    match = None if at is None else INTEGER.fullmatch(hdu.header[at + 10 : at + CARD])
    axes = int(match[1]) if match else 0
    lengths = [b"NAXIS%d" % (axis + 1) for axis in range(axes)]
    counts = [b"PCOUNT", b"GCOUNT"] if number else []
    expected = [b"XTENSION" if number else b"SIMPLE", b"BITPIX", b"NAXIS", *lengths, *counts]
    right = [word == name.ljust(_WIDTH) for word, name in zip_longest(words[: len(expected)], expected, fillvalue=b"")]
    if not all(right[:3]):
        first = ", ".join(name.decode("ascii") for name in expected[:3])
        yield "card-order", "fail", f"its first cards are not {first}, in this order: readers do not take it for FITS"
    elif not all(right):
        text = "NAXISn, PCOUNT and GCOUNT" if number else "NAXISn"
        yield "card-order", "warn", f"{text} do not follow NAXIS, all of them and in this order"
    structure = Counter(word.rstrip() for word in words if word[:5] in STRUCTURE_BEGINS)
    twice = sorted(name.decode("ascii") for name, count in structure.items() if count > 1 and STRUCTURE.fullmatch(name))
    if twice:
        yield "structure-twice", "warn", f"{', '.join(twice[:5])} stands there more than once, with one value"


# ------------------------------------------------------------------------------------------- sums


def _sums(hdu: Hdu) -> Iterator[_Said]:
    """The HDU held against its DATASUM and CHECKSUM. Those of a compressed image are of the compressed HDU; the
    image's own, ZDATASUM and ZHECKSUM, are of what it was. An empty value says that there is none."""
    if hdu.datasum is None:
        return
    header = Header.parse(hdu.header)
    datasum, checksum = (_stated(header, name) for name in ("DATASUM", "CHECKSUM"))
    for name in ("DATASUM", "CHECKSUM"):
        if len(set(header.all(name))) > 1:
            text = f"{name} stands there with different values; the first is held against the HDU"
            yield f"{name.lower()}-malformed", "warn", text
    right = None
    if datasum is not None:
        right = _is_sum(datasum, hdu.datasum)
        if right is None:
            yield "datasum-malformed", "warn", f"DATASUM is no sum, so it proves nothing: {shown(datasum[:70])!r}"
        elif not right:
            yield "datasum", "fail", "its data do not have the sum that DATASUM says: they were changed or damaged"
    if checksum is not None and (hdu.datasum + add_words_stdlib(hdu.header)) % ONES:
        yield _wrong_checksum(checksum, right)
    if (datasum is None) != (checksum is None):
        name, other = ("DATASUM", "CHECKSUM") if datasum is None else ("CHECKSUM", "DATASUM")
        yield f"{name.lower()}-missing", "note", f"it has {other} and no {name}"


def _stated(header: Header, name: str) -> str | None:
    """What a card says, as text; None where it is absent or empty."""
    value = header.get(name)
    return None if value is None else str(value).strip() or None


def _is_sum(stated: str, found: int) -> bool | None:
    """Whether a DATASUM is the one found; None where it is no unsigned number of 32 bits. The two zeros of
    ones'-complement numbers are equal."""
    if not (stated.isascii() and stated.isdigit() and len(stated) <= 20 and int(stated) <= ONES):
        return None
    return int(stated) % ONES == found % ONES


def _wrong_checksum(stated: str, data_right: bool | None) -> _Said:
    """An HDU that does not add up to the zero that a CHECKSUM makes of it."""
    if not _CHECKSUM.fullmatch(stated):
        text = f"CHECKSUM is not 16 letters and digits, so it proves nothing: {shown(stated[:70])!r}"
        return "checksum-malformed", "warn", text
    if data_right:
        text = "its header is not the one that CHECKSUM was made of; its data have the sum that DATASUM says"
    else:
        text = "it does not have the sum that CHECKSUM says: it was changed or damaged"
    return "checksum", "fail", text
