"""A focal plane cut into one file an amplifier: recipes of new header bytes and byte ranges of the source.

Nothing is read or written here. Headers are kept card for card, in raw bytes, but for what the rule says;
pixels are never looked at, so they keep their bits whatever BITPIX, BZERO and BSCALE are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext
from typing import NamedTuple

from transfers.agent import Cut, Hdu, Piece
from transfers.errors import SourceCorrupt
from transfers.fits import BLOCK, CARD, Header, header_bytes, keyword, without

SUMS = ("CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM")

_NUMBER = re.compile(rb" *([^ /]+)")


@dataclass(frozen=True)
class Amplifier:
    """One amplifier's part of every CCD: `columns` are 1-based and inclusive, as in FITS sections.

    `replaced` pairs a keyword with the keyword whose value and comment it takes: ("GAIN", "GAINA").
    `shifts` gives, for each mode of a chop, what is added to CRPIX1 of exposures of the sky.
    """

    amp: int
    name: str
    columns: tuple[int, int]
    replaced: tuple[tuple[str, str], ...] = ()
    shifts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ChopRule:
    """How a camera's focal planes are cut.

    `removed` are the keywords left out, `added` the one that gets the full path of the new file.
    `calibrations` are the values of OBSTYPE whose CRPIX1 stays. `counts` are the numbers of CCDs that make
    a whole focal plane, `calibration_counts` those of calibrations; empty: as many as NEXTEND says.
    `extension_name` is what EXTNAME looks like, its group the number of the CCD; the ids are names in paths.
    """

    amplifiers: tuple[Amplifier, ...]
    removed: tuple[str, ...] = ()
    added: str = "DC3BPATH"
    extension_id: str = "ccd"
    extension_name: str = r"ccd([0-9]{1,4})"
    amp_id: str = "amp"
    calibrations: tuple[str, ...] = ("BIAS", "DARK", "FLAT", "FRINGE")
    counts: tuple[int, ...] = ()
    calibration_counts: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The columns that an extension must have."""
        return max(amplifier.columns[1] for amplifier in self.amplifiers)


class Ccd(NamedTuple):
    """One extension of a focal plane, checked."""

    number: int
    hdu: Hdu
    header: Header


def pieces(
    hdus: Sequence[Hdu],
    rule: ChopRule,
    destination_of: Callable[[Mapping[str, int]], str],
    root_path: str,
    *,
    crpix: str = "exact",
    host: str = "",
    path: str = "",
) -> list[tuple[dict[str, int], str, Piece]]:
    """The recipes of all amplifier files of one focal plane, as (ids, destination, piece): ids ccd and amp.

    `root_path` is the root of the host that the files go to; with the destination it is the path in `added`.
    A focal plane that lacks a CCD, or is not cut as the rule says, raises SourceCorrupt about `host:path`.
    """
    try:
        ccds = _ccds(hdus, rule)
        shifted = _obstype(hdus, ccds) not in rule.calibrations
        made = []
        for ccd in ccds:
            for amplifier in rule.amplifiers:
                ids = {rule.extension_id: ccd.number, rule.amp_id: amplifier.amp}
                destination = destination_of(ids)
                shift = dict(amplifier.shifts)[crpix] if shifted and amplifier.shifts else 0
                full = f"{root_path.rstrip('/')}/{destination}"
                made.append((ids, destination, _piece(ccd, rule, amplifier, shift, full)))
        return made
    except SourceCorrupt as error:
        error.host, error.side, error.path, error.phase = host, "source", path, "chop"
        raise


def _ccds(hdus: Sequence[Hdu], rule: ChopRule) -> list[Ccd]:
    if not hdus:
        raise SourceCorrupt("the file has no HDU")
    primary = Header.parse(hdus[0].header)
    ccds: list[Ccd] = []
    for position, hdu in enumerate(hdus[1:]):
        header = Header.parse(hdu.header)
        number = _number(header, position, rule)
        place = f"extension {position + 1} ({rule.extension_id}{number:02d})"
        _check_image(header, rule, place)
        if ccds:
            _check_alike(header, ccds[0].header, place)
        ccds.append(Ccd(number, hdu, header))
    _check_complete([ccd.number for ccd in ccds], primary, _counts(rule, hdus, ccds), rule.extension_id)
    return ccds


def _obstype(hdus: Sequence[Hdu], ccds: Sequence[Ccd]) -> str:
    """What was exposed: OBSTYPE of the first extension, or of the primary header where that has none."""
    for header in [*(ccd.header for ccd in ccds[:1]), Header.parse(hdus[0].header)]:
        if "OBSTYPE" in header:
            return str(header["OBSTYPE"]).strip().upper()
    return ""


def _counts(rule: ChopRule, hdus: Sequence[Hdu], ccds: Sequence[Ccd]) -> tuple[int, ...]:
    return rule.calibration_counts if _obstype(hdus, ccds) in rule.calibrations else rule.counts


def _number(header: Header, position: int, rule: ChopRule) -> int:
    """The CCD of an extension: of EXTNAME (any of its cards), else of EXTVER, else its position."""
    named = {
        int(name[1])
        for value in header.all("EXTNAME")
        if (name := re.fullmatch(rule.extension_name, str(value).strip(), re.I))
    }
    versions = {value for value in header.all("EXTVER") if isinstance(value, int)}
    stated = named | versions
    if len(stated) > 1:
        found = " and ".join(
            f"{name} {', '.join(repr(value) for value in header.all(name))}" for name in ("EXTNAME", "EXTVER")
        )
        raise SourceCorrupt(f"extension {position + 1} is of two CCDs at once: {found} disagree")
    number = stated.pop() if stated else position
    last = max((*rule.counts, *rule.calibration_counts), default=10_000) - 1
    if not 0 <= number <= last:
        raise SourceCorrupt(f"extension {position + 1} says that it is CCD {number}; there are 0 to {last}")
    return number


def _check_image(header: Header, rule: ChopRule, place: str) -> None:
    """An extension must be a two-dimensional image of the rule's width without parameters or groups."""
    kind = header.get("XTENSION")
    if kind != "IMAGE":
        hint = ": tile-compressed, it must be unpacked first" if header.get("ZIMAGE") is True else ""
        raise SourceCorrupt(f"{place} has XTENSION {kind!r} where an IMAGE was expected{hint}")
    axes = header.axes()
    if len(axes) != 2 or axes[0] is None or axes[1] is None or axes[1] < 1:
        raise SourceCorrupt(f"{place} has axes {axes} where two were expected")
    if axes[0] != rule.width:
        raise SourceCorrupt(f"{place} has NAXIS1 {axes[0]} where {rule.width} columns were expected")
    if header.whole("BITPIX") not in (8, 16, 32, 64, -32, -64):
        raise SourceCorrupt(f"{place} has BITPIX {header.get('BITPIX')!r}, which is none of the standard's")
    if header.get("PCOUNT", 0) != 0 or header.get("GCOUNT", 1) != 1:
        raise SourceCorrupt(f"{place} has PCOUNT {header.get('PCOUNT')!r} and GCOUNT {header.get('GCOUNT')!r}")


def _check_alike(header: Header, first: Header, place: str) -> None:
    for name in ("BITPIX", "NAXIS2"):
        if header.get(name) != first.get(name):
            raise SourceCorrupt(f"{place} has {name} {header.get(name)} where the first has {first.get(name)}")


def _check_complete(numbers: list[int], primary: Header, counts: tuple[int, ...], name: str) -> None:
    """No CCD twice, as many as NEXTEND says, and a whole set: NEXTEND itself may agree with a lack."""
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise SourceCorrupt(f"{_list(twice, name)} is there more than once")
    stated, found = primary.whole("NEXTEND"), len(numbers)
    whole = min((count for count in counts if count >= found), default=max(counts, default=found))
    lacking = _lacking(numbers, max(whole, stated or 0))
    lack = f": {_list(lacking, name)} missing" if lacking else ""
    if "NEXTEND" in primary and stated != found:
        raise SourceCorrupt(f"NEXTEND says {primary['NEXTEND']!r} extensions, the file has {found}{lack}")
    if counts and found not in counts:
        sizes = " or ".join(str(count) for count in counts)
        raise SourceCorrupt(f"the file has {found} CCDs where a whole focal plane has {sizes}{lack}")
    if not numbers:
        raise SourceCorrupt("the file has no extensions")
    if lacking:
        raise SourceCorrupt(f"the file has {found} CCDs, but {_list(lacking, name)} missing among them")


def _lacking(numbers: list[int], whole: int) -> list[int]:
    """What is missing of a set of `whole` CCDs, which may begin at a multiple of its size (half a mosaic)."""
    begin = min(numbers, default=0) // whole * whole if whole else 0
    return sorted(set(range(begin, begin + whole)) - set(numbers))


def _list(numbers: Iterable[int], name: str) -> str:
    shown = [f"{name}{number:02d}" for number in numbers]
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more


def _piece(ccd: Ccd, rule: ChopRule, amplifier: Amplifier, shift: int, full: str) -> Piece:
    first, last = amplifier.columns
    pixel = abs(ccd.header.whole("BITPIX") or 0) // 8
    rows = ccd.header.whole("NAXIS2") or 0
    row = (last - first + 1) * pixel
    offset = ccd.hdu.data_offset + (first - 1) * pixel
    cards = _cards(ccd, rule, amplifier, shift, full)
    cut = Cut(offset, row, rule.width * pixel, rows)
    return Piece(header_bytes(cards), (cut,), -row * rows % BLOCK)


def _cards(ccd: Ccd, rule: ChopRule, amplifier: Amplifier, shift: int, full: str) -> list[bytes]:
    """The source's cards, changed as the rule says and no further."""
    taken = {name: ccd.header.card(source) for name, source in amplifier.replaced}
    columns = amplifier.columns[1] - amplifier.columns[0] + 1
    kept = []
    for card in without(ccd.header.cards, (*rule.removed, rule.added, *SUMS, "PCOUNT", "GCOUNT")):
        name = keyword(card)
        source = taken.get(name)
        if name == "XTENSION":
            card = _new("SIMPLE", True, "conforms to FITS standard")
        elif name == "NAXIS1":
            card = with_number(card, str(columns))
        elif name == "CRPIX1" and shift:
            card = with_number(card, _shifted(card, shift, f"{rule.extension_id}{ccd.number:02d}"))
        elif source is not None:
            card = card[:8] + source[8:]
        kept.append(card)
    return [
        *kept,
        *string_cards(rule.added, printable(full)),
        _new("DATASUM", "0000000000", "data unit checksum"),
        _new("CHECKSUM", "0" * 16, "HDU checksum"),
    ]


def _new(name: str, value: str | bool, comment: str | None = None) -> bytes:
    from astropy.io.fits import Card  # imported late: it takes a second, which a daemon that only copies need not wait

    return str(Card(name, value, comment)).encode("ascii")


def string_cards(name: str, text: str) -> list[bytes]:
    """The cards of a string, with CONTINUE where it is long (FITS 4.0, 4.2.1.2).

    The long ones are cut here because astropy cuts between the two quotes that stand for one.
    """
    escaped = [char * 2 if char == "'" else char for char in text]
    if sum(map(len, escaped)) <= CARD - 12:
        return [_new(name, text)]
    parts = [""]
    for char in escaped:
        if len(parts[-1] + char) > CARD - 13:
            parts.append("")
        parts[-1] += char
    starts = [f"{name:<8}= ", *["CONTINUE  "] * (len(parts) - 1)]
    ends = [*["&'"] * (len(parts) - 1), "'"]
    cards = zip(starts, parts, ends, strict=True)
    return [f"{start}'{part}{end}".encode("ascii").ljust(CARD) for start, part, end in cards]


def printable(path: str) -> str:
    r"""A path as a FITS string can hold it: bytes beyond printable ASCII as \xNN."""
    shown = os.fsencode(path).decode("ascii", "backslashreplace")
    return "".join(char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in shown)


def _shifted(card: bytes, shift: int, place: str) -> str:
    """The card's number plus `shift` by decimal arithmetic: -7300.4 less 1056 is -8356.4 and no other."""
    match = _NUMBER.match(card, 10)
    text = match[1].decode("latin-1") if match else ""
    try:
        with localcontext(prec=CARD * 2):
            total = Decimal(text.upper().replace("D", "E")) + shift
            shown = f"{total:f}" if abs(total.adjusted()) < 40 else str(total)
    except InvalidOperation:
        raise SourceCorrupt(f"CRPIX1 of {place} is {text!r}, which is no number to shift") from None
    if not total.is_finite():
        raise SourceCorrupt(f"CRPIX1 of {place} is {text!r}, which is no number to shift")
    return shown if text.lstrip("+-").isdigit() or "." in shown or "E" in shown else f"{shown}."


def with_number(card: bytes, text: str) -> bytes:
    """The card with another number, ending in the column where the old one ended (30 in fixed format)."""
    match = _NUMBER.match(card, 10)
    end = match.end() if match else 30
    return (card[:10] + text.encode("ascii").rjust(end - 10) + card[end:])[:CARD]
