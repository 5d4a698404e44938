"""FITS headers as their raw cards, and the checksums of the FITS standard.

Headers of archives are full of cards that strict parsers refuse (integers of twenty digits, times without
a leading zero, two EXTNAMEs). Here nothing of a header raises: a value that is no FITS value is its text.
Source of all formats: FITS Standard 4.0, sections 4.1 to 4.4.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

BLOCK = 2880
CARD = 80

MOST_CONTINUED = 1000  # CONTINUE cards of one value; what is longer is cut there

Value = int | float | str | bool | None

_ALL_ONES = 0xFFFFFFFF
_STRING = re.compile(r" *'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[EeDd][+-]?[0-9]+)?")
_VALUELESS = (b"        ", b"COMMENT ", b"HISTORY ", b"CONTINUE", b"END     ")  # whatever stands in columns 9 and 10
_NAMES = struct.Struct("8s2s70x")  # a card's keyword, and where its value indicator is
_PRINTABLE = bytes(range(0x20, 0x7F))


class Header(Mapping[str, Value]):
    """The cards of one header in order, up to but not including END; a mapping from keyword to value.

    A keyword that occurs twice has the value of its first card here; `all` gives every one. A value is made out
    only when it is asked for: of the hundreds of cards of an archive's header a few are read.
    """

    def __init__(self, cards: Iterable[bytes]) -> None:
        """`cards` are 80 bytes each."""
        raw = b"".join(cards)
        self.raw = raw[: len(raw) // CARD * CARD]  # all cards in one piece
        self._first: dict[bytes, int] = {}  # padded keyword: place of its first card
        self._places: dict[bytes, list[int]] = {}  # of those that occur twice, all of them
        self._values: dict[int, Value] = {}  # by place, as far as they were asked for
        self._index()

    @classmethod
    def parse(cls, raw: bytes) -> Header:
        """The header in these bytes; what follows END (or a last piece shorter than a card) is ignored."""
        return cls((raw,))

    def _index(self) -> None:
        first, several = self._first, self._places
        for place, (name, mark) in enumerate(_NAMES.iter_unpack(self.raw)):
            if mark != b"= ":
                if name[:3] == b"END" and self._card(place).rstrip() == b"END":
                    self.raw = self.raw[: place * CARD]
                    break
                if name != b"HIERARCH" or not has_value(self._card(place)):
                    continue
                name = _key(keyword(self._card(place)))
            if first.setdefault(name, place) != place:
                several.setdefault(name, [first[name]]).append(place)
        for name in _VALUELESS:
            first.pop(name, None)
            several.pop(name, None)

    @cached_property
    def cards(self) -> tuple[bytes, ...]:
        """Every card, 80 bytes each."""
        return tuple(self._card(place) for place in range(len(self.raw) // CARD))

    def __getitem__(self, name: str) -> Value:
        return self._value(self._first[_key(name)])

    def get(self, name: str, default: Any = None) -> Any:
        """The value, `default` for a keyword that is not there."""
        place = self._first.get(_key(name))
        return default if place is None else self._value(place)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _key(name) in self._first

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1").rstrip(" ") for name in self._first)

    def __len__(self) -> int:
        return len(self._first)

    def all(self, name: str) -> tuple[Value, ...]:
        """The values of all cards of this keyword, in order; empty when there is none."""
        key = _key(name)
        places = self._places.get(key) or [place for place in (self._first.get(key),) if place is not None]
        return tuple(self._value(place) for place in places)

    @property
    def doubled(self) -> tuple[str, ...]:
        """The keywords that have a value in more than one card."""
        return tuple(name.decode("latin-1").rstrip(" ") for name in self._places)

    @property
    def printable(self) -> bool:
        """Whether all is printable ASCII, which is all that FITS allows in a header (4.0, 3.2)."""
        return not self.raw.translate(None, _PRINTABLE)

    def find(self, pattern: re.Pattern[bytes]) -> Iterator[tuple[str, str]]:
        """The keyword, and the text behind it, of every card in which the pattern is found."""
        last = -1
        for match in pattern.finditer(self.raw):
            place = match.start() // CARD
            if place != last and match.end() <= (place + 1) * CARD:
                last, card = place, self._card(place)
                yield keyword(card), card[8:].decode("latin-1").rstrip(" ")

    def card(self, name: str) -> bytes | None:
        """The raw first card of this keyword."""
        place = self._first.get(_key(name))
        return None if place is None else self._card(place)

    def whole(self, name: str) -> int | None:
        """The value as an integer; None when it is absent or no integer (a logical value is none)."""
        value = self.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def axes(self) -> tuple[int | None, ...]:
        """NAXIS1, NAXIS2, ... as far as NAXIS says; None in place of one that is absent or no integer."""
        return tuple(self.whole(f"NAXIS{axis}") for axis in range(1, min(self.whole("NAXIS") or 0, 999) + 1))

    def _card(self, place: int) -> bytes:
        return self.raw[place * CARD : (place + 1) * CARD]

    def _value(self, place: int) -> Value:
        if place not in self._values:
            self._values[place] = self._made_out(place)
        return self._values[place]

    def _made_out(self, place: int) -> Value:
        value = parse_value(value_text(self._card(place)))
        parts: list[str] = []
        while isinstance(value, str) and value.endswith("&") and len(parts) < MOST_CONTINUED:
            more = _continued(self._card(place + len(parts) + 1))
            if more is None:
                break
            parts.append(value[:-1])
            value = more
        return "".join([*parts, value]) if isinstance(value, str) and parts else value


def _key(name: str) -> bytes:
    """A keyword as the index has it: the bytes of columns 1 to 8, or the words of a HIERARCH card."""
    return name.encode("latin-1", "backslashreplace").ljust(8)


def keyword(card: bytes) -> str:
    """The keyword of a raw card; for HIERARCH cards the words between HIERARCH and '='."""
    text = card.decode("latin-1")
    if text.startswith("HIERARCH ") and "=" in text:
        return " ".join(text[9:].split("=", 1)[0].split())
    return text[:8].rstrip()


def has_value(card: bytes) -> bool:
    """Whether the card has the value indicator ('= ' in columns 9 and 10), or is a HIERARCH card with '='."""
    return card[8:10] == b"= " or (card.startswith(b"HIERARCH ") and b"=" in card)


def value_text(card: bytes) -> str:
    """The value field of a raw card with its comment."""
    text = card.decode("latin-1")
    return text.split("=", 1)[1] if text.startswith("HIERARCH ") else text[10:]


def parse_value(text: str) -> Value:
    """The value at the beginning of a value field; its bare text when it is no FITS value."""
    quoted = _STRING.match(text)
    if quoted:
        return quoted[1].replace("''", "'").rstrip()
    bare = text.split("/", 1)[0].strip()
    if bare in ("T", "F"):
        return bare == "T"
    if _INTEGER.fullmatch(bare):
        return int(bare)
    if _REAL.fullmatch(bare):
        number = float(bare.upper().replace("D", "E"))
        return number if math.isfinite(number) else bare
    return bare or None


def _continued(card: bytes) -> str | None:
    if not card.startswith(b"CONTINUE  "):
        return None
    quoted = _STRING.match(card[10:].decode("latin-1"))
    return quoted[1].replace("''", "'").rstrip() if quoted else None


def without(cards: Iterable[bytes], names: Iterable[str]) -> tuple[bytes, ...]:
    """These cards without those of the given keywords and the CONTINUE cards that belong to them."""
    dropped, kept, skipping = frozenset(names), [], False
    for card in cards:
        name = keyword(card)
        skipping = skipping if name == "CONTINUE" else name in dropped
        if not skipping:
            kept.append(card)
    return tuple(kept)


def header_bytes(cards: Sequence[bytes]) -> bytes:
    """The cards with END, padded with blanks to whole blocks."""
    raw = b"".join(cards) + b"END".ljust(CARD)
    return raw + b" " * (-len(raw) % BLOCK)


def datasum(data: bytes | memoryview, start: int = 0) -> int:
    """The 32-bit ones'-complement sum of big-endian words, added to `start`; a short last word ends in zeros.

    Sums of following pieces add up when all but the last are a multiple of four bytes.
    """
    import numpy as np  # late: most of what reads headers needs no sums, and the import takes a while

    total, words = start, len(data) // 4
    if words:
        total += int(np.frombuffer(data, dtype=">u4", count=words).sum(dtype=np.uint64))
    if len(data) % 4:
        total += int.from_bytes(bytes(data[words * 4 :]).ljust(4, b"\0"), "big")
    return fold(total)


def fold(total: int) -> int:
    """A sum with its carries brought round, as ones'-complement arithmetic does."""
    while total > _ALL_ONES:
        total = (total & _ALL_ONES) + (total >> 32)
    return total


def encode_checksum(total: int) -> str:
    """The 16 characters of CHECKSUM for an HDU whose sum, with '0' sixteen times in their place, is `total`.

    FITS Standard 4.0, appendix J: each byte of the complement is cut in four characters from '0' on,
    moved in pairs away from punctuation, and the whole turned by one place.
    """
    complement = (_ALL_ONES - total).to_bytes(4, "big")
    text = bytearray(16)
    for place, byte in enumerate(complement):
        quarters = [byte // 4 + ord("0")] * 4
        quarters[0] += byte % 4
        for first in (0, 2):
            while any(_is_punctuation(code) for code in quarters[first : first + 2]):
                quarters[first] += 1
                quarters[first + 1] -= 1
        for turn, code in enumerate(quarters):
            text[4 * turn + place] = code
    return (text[-1:] + text[:-1]).decode("ascii")


def _is_punctuation(code: int) -> bool:
    return ord(":") <= code <= ord("@") or ord("[") <= code <= ord("`")


class Sums(NamedTuple):
    """What an HDU's own checksums say: True for right, False for wrong, None where it has none."""

    datasum: bool | None
    checksum: bool | None


def verify(header: bytes, data: Iterable[bytes]) -> Sums:
    """Hold an HDU (its raw header blocks, its padded data in pieces) against its DATASUM and CHECKSUM.

    Pieces must be multiples of four bytes long, but for the last.
    """
    cards, total = Header.parse(header), 0
    for piece in data:
        total = datasum(piece, total)
    stated = str(cards["DATASUM"]).strip() if "DATASUM" in cards else None
    whole = datasum(header, total) if "CHECKSUM" in cards else None
    return Sums(
        None if stated is None else stated.isdigit() and int(stated) % _ALL_ONES == total % _ALL_ONES,
        None if whole is None else whole % _ALL_ONES == 0,
    )
