"""A focal plane cut into one file an amplifier: recipes of new header bytes and byte ranges of the source.

Nothing is read or written here. Headers are kept card for card, in raw bytes, but for what the rule says;
pixels are never looked at, so they keep their bits whatever BITPIX, BZERO and BSCALE are.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation, localcontext
from typing import NamedTuple

from transfers.agent import Cut, Hdu, Piece
from transfers.errors import SourceCorrupt
from transfers.fits import BLOCK, CARD, Header, header_bytes, keyword

SUMS = ("CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM")
MOST_NAMED = 4  # extensions that an error speaks of

_NUMBER = re.compile(rb" *([^ /]+)")


@dataclass(frozen=True)
class Strip:
    """One amplifier's part of an extension: `columns` are 1-based and inclusive, as in FITS sections.

    `replaced` pairs a keyword with the keyword whose value and comment it takes: ("GAIN", "GAINA"). `shift` is
    what is added to CRPIX1, where there is one.
    """

    ids: Mapping[str, int]
    columns: tuple[int, int]
    replaced: tuple[tuple[str, str], ...] = ()
    shift: int = 0


class Extension(NamedTuple):
    """An extension of a focal plane, and what it is cut into; `name` is what people call it, such as ccd17."""

    name: str
    hdu: Hdu
    header: Header
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class ChopRule:
    """What holds for all extensions: their width, the keywords left out, the one that takes the new file's path."""

    columns: int
    removed: tuple[str, ...] = ()
    added: str = "DC3BPATH"
    dropped: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        every = frozenset((*self.removed, self.added, *SUMS, "PCOUNT", "GCOUNT"))
        object.__setattr__(self, "dropped", every)


class Made(NamedTuple):
    """The recipe of one file; `shift` is what was really added to its CRPIX1."""

    ids: Mapping[str, int]
    destination: str
    piece: Piece
    shift: int


def pieces(
    extensions: Sequence[Extension],
    rule: ChopRule,
    destination_of: Callable[[Mapping[str, int]], str],
    root_path: str,
) -> list[Made]:
    """The recipes of all amplifier files of one focal plane, in the order of its extensions.

    `root_path` is the root of the host that the files go to; with the destination it is the path in `added`.
    Raises SourceCorrupt, with the names of the extensions, where one is no image of the rule's width, or unlike
    the others.
    """
    check_images(extensions, rule.columns)
    made = []
    for extension in extensions:
        for strip in extension.strips:
            destination = destination_of(strip.ids)
            full = f"{root_path.rstrip('/')}/{destination}"
            shift = strip.shift if "CRPIX1" in extension.header else 0
            made.append(Made(strip.ids, destination, _piece(extension, rule, strip, full), shift))
    return made


def check_images(extensions: Sequence[Extension], columns: int) -> None:
    """Every extension must be an image of so many columns, with the rows and BITPIX that most of them have."""
    alike = {
        name: Counter(extension.header.whole(name) for extension in extensions).most_common(1)[0][0]
        for name in ("BITPIX", "NAXIS2")
        if extensions
    }
    wrong = [
        f"extension {position + 1} ({extension.name}) {problem}"
        for position, extension in enumerate(extensions)
        if (problem := next(_problems(extension.header, columns, alike), None))
    ]
    if wrong:
        more = f"; and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise SourceCorrupt("; ".join(wrong[:MOST_NAMED]) + more)


def _problems(header: Header, columns: int, alike: Mapping[str, int | None]) -> Iterator[str]:
    """What keeps an extension from being cut: it must be a plain image of two axes, as the others are."""
    kind = header.get("XTENSION")
    if kind != "IMAGE":
        hint = ": tile-compressed, it must be unpacked first" if header.get("ZIMAGE") is True else ""
        yield f"has XTENSION {kind!r} where an IMAGE was expected{hint}"
    axes = header.axes()
    if len(axes) != 2 or axes[0] is None or axes[1] is None or axes[1] < 1:
        yield f"has axes {axes} where two were expected"
    elif axes[0] != columns:
        yield f"has NAXIS1 {axes[0]} where {columns} columns were expected"
    if header.whole("BITPIX") not in (8, 16, 32, 64, -32, -64):
        yield f"has BITPIX {header.get('BITPIX')!r}, which is none of the standard's"
    if header.get("PCOUNT", 0) != 0 or header.get("GCOUNT", 1) != 1:
        yield f"has PCOUNT {header.get('PCOUNT')!r} and GCOUNT {header.get('GCOUNT')!r}"
    for name, value in alike.items():
        if header.whole(name) != value:
            yield f"has {name} {header.get(name)!r} where most have {value}"


def _piece(extension: Extension, rule: ChopRule, strip: Strip, full: str) -> Piece:
    first, last = strip.columns
    pixel = abs(extension.header.whole("BITPIX") or 0) // 8
    rows = extension.header.whole("NAXIS2") or 0
    row = (last - first + 1) * pixel
    offset = extension.hdu.data_offset + (first - 1) * pixel
    cards = _cards(extension, rule, strip, full)
    cut = Cut(offset, row, rule.columns * pixel, rows)
    return Piece(header_bytes(cards), (cut,), -row * rows % BLOCK)


def _cards(extension: Extension, rule: ChopRule, strip: Strip, full: str) -> list[bytes]:
    """The source's cards, changed as the rule says and no further."""
    taken = {name: extension.header.card(source) for name, source in strip.replaced}
    columns = strip.columns[1] - strip.columns[0] + 1
    kept = []
    for name, card in _kept(extension.header.cards, rule.dropped):
        source = taken.get(name)
        if name == "XTENSION":
            card = _new("SIMPLE", True, "conforms to FITS standard")
        elif name == "NAXIS1":
            card = with_number(card, str(columns))
        elif name == "CRPIX1" and strip.shift:
            card = with_number(card, _shifted(card, strip.shift, extension.name))
        elif source is not None:
            card = card[:8] + source[8:]
        kept.append(card)
    return [
        *kept,
        *string_cards(rule.added, printable(full)),
        _new("DATASUM", "0000000000", "data unit checksum"),
        _new("CHECKSUM", "0" * 16, "HDU checksum"),
    ]


def _kept(cards: Sequence[bytes], dropped: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """The cards without the dropped keywords and the CONTINUE cards that are theirs, each with its keyword.

    A HIERARCH card has none here: its words are not the standard keyword of the same letters.
    """
    skipping = False
    for card in cards:
        name = "" if card.startswith(b"HIERARCH ") else keyword(card)
        skipping = skipping if name == "CONTINUE" else name in dropped
        if not skipping:
            yield name, card


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
