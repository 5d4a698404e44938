"""FITS headers as their raw cards, and the checksums of the FITS standard.

Headers of archives are full of cards that strict parsers refuse (integers of twenty digits, times without
a leading zero, two EXTNAMEs). Here nothing of a header raises: a value that is no FITS value is its text.
Source of all formats: FITS Standard 4.0, sections 4.1 to 4.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

BLOCK = 2880
CARD = 80

Value = int | float | str | bool | None

_ALL_ONES = 0xFFFFFFFF
_STRING = re.compile(r" *'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[EeDd][+-]?[0-9]+)?")
_VALUELESS = frozenset(("", "COMMENT", "HISTORY", "CONTINUE", "END"))


class Header(Mapping[str, Value]):
    """The cards of one header in order, up to but not including END; a mapping from keyword to value.

    A keyword that occurs twice has the value of its first card here; `all` gives every one.
    """

    def __init__(self, cards: Iterable[bytes]) -> None:
        self.cards: tuple[bytes, ...] = tuple(cards)
        self._places: dict[str, list[int]] = {}
        for place, card in enumerate(self.cards):
            name = keyword(card)
            if name not in _VALUELESS and has_value(card):
                self._places.setdefault(name, []).append(place)

    @classmethod
    def parse(cls, raw: bytes) -> Header:
        """The header in these bytes; what follows END (or a last piece shorter than a card) is ignored."""
        return cls(_until_end(raw))

    def __getitem__(self, name: str) -> Value:
        return self._value(self._places[name][0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def all(self, name: str) -> tuple[Value, ...]:
        """The values of all cards of this keyword, in order; empty when there is none."""
        return tuple(self._value(place) for place in self._places.get(name, ()))

    def card(self, name: str) -> bytes | None:
        """The raw first card of this keyword."""
        return self.cards[self._places[name][0]] if name in self._places else None

    def whole(self, name: str) -> int | None:
        """The value as an integer; None when it is absent or no integer (a logical value is none)."""
        value = self.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def axes(self) -> tuple[int | None, ...]:
        """NAXIS1, NAXIS2, ... as far as NAXIS says; None in place of one that is absent or no integer."""
        return tuple(self.whole(f"NAXIS{axis}") for axis in range(1, min(self.whole("NAXIS") or 0, 999) + 1))

    def _value(self, place: int) -> Value:
        value = parse_value(value_text(self.cards[place]))
        while isinstance(value, str) and value.endswith("&"):
            place += 1
            more = _continued(self.cards[place]) if place < len(self.cards) else None
            if more is None:
                break
            value = value[:-1] + more
        return value


def _until_end(raw: bytes) -> Iterator[bytes]:
    for start in range(0, len(raw) - CARD + 1, CARD):
        card = raw[start : start + CARD]
        if card.rstrip() == b"END":
            return
        yield card


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
