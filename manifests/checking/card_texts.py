"""What archives and accidents put into cards: characters that FITS does not allow, markup, huge numbers, doubles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from manifests.errors import found, shown
from manifests.findings import Finding, Severity

from .looks import Cards, File

CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
MARKUP = re.compile(rb"<[A-Za-z/!?][^<>]{0,70}>")
DIGITS = re.compile(rb"= {1,2}[+-]?[0-9]{19}")  # of a number of 19 digits or more, however it is justified
BOUND = 1 << 63

MOST_NAMED = 4  # keywords that a sentence lists


def card_texts(file: File) -> Iterator[Finding]:
    """Findings of what is in cards whatever they mean, all but one of them of sound files."""
    ours: frozenset[str] | None = None
    for hdu, header in enumerate(file.headers):
        yield from _texts(header, hdu)
        yield from _huge(header, hdu)
        if header.doubled:
            ours = ours or _keywords(file)
            yield from _doubles(header, hdu, ours.intersection(header.doubled))


def _texts(header: Cards, hdu: int) -> Iterator[Finding]:
    if not header.printable:
        for pattern, code, severity, what in (
            (CONTROL, "text-control", Severity.WARN, "control characters"),
            (BEYOND_ASCII, "text-not-ascii", Severity.NOTE, "bytes beyond ASCII"),
        ):
            if cards := _named(header.find(pattern)):
                text = f"{_list(cards)}; expected printable ASCII, which is all that FITS allows"
                yield Finding(code, severity, f"there are {what} in {text}", (hdu,))
    if cards := _named(header.find(MARKUP)):
        text = f"there is what looks like markup in {_list(cards)}; expected plain text: it is shown as it is"
        yield Finding("text-markup", Severity.NOTE, text, (hdu,))


def _named(cards: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The first card's text for each keyword, escaped."""
    first: dict[str, str] = {}
    for keyword, text in cards:
        first.setdefault(keyword, text)
    return first


def _list(cards: dict[str, str]) -> str:
    """`OBJECT ("ab\\x1b[2J"), OBSERVER and 2 more`: keywords, the first with what stands there."""
    keyword, text = next(iter(cards.items()))
    names = [f'{_escaped(keyword)} ("{_escaped(_value(text))}")', *map(_escaped, list(cards)[1:MOST_NAMED])]
    more = f" and {len(cards) - MOST_NAMED} more" if len(cards) > MOST_NAMED else ""
    return ", ".join(names) + more


def _value(text: str) -> str:
    """What stands behind a keyword without the value indicator and quotes, where it has them."""
    text = text.removeprefix("= ").strip()
    quoted = re.match(r"'((?:[^']|'')*)'", text)
    return quoted[1].rstrip() if quoted else text


def _escaped(text: str) -> str:
    """In ASCII, and without anything that a terminal obeys."""
    return shown(text.encode("ascii", "backslashreplace").decode("ascii"), 80)


def _huge(header: Cards, hdu: int) -> Iterator[Finding]:
    """Whole numbers that no integer of 64 bits holds. CFHT's queue numbers have 20 digits."""
    values = {}
    for keyword, _ in header.find(DIGITS):
        value = header.get(keyword)
        if isinstance(value, int) and not -BOUND <= value < BOUND:
            values[keyword] = value
    if values:
        text = f"{', '.join(map(_escaped, list(values)[:MOST_NAMED]))} {'hold' if len(values) > 1 else 'holds'}"
        text += f" a whole number beyond 64 bits; expected at most {BOUND - 1}: it is kept digit by digit"
        yield Finding("integer-huge", Severity.NOTE, text, (hdu,))


def _doubles(header: Cards, hdu: int, keywords: frozenset[str]) -> Iterator[Finding]:
    """Cards of one keyword, of those that its camera reads; EXTNAME is for `extension_checks`."""
    for keyword in sorted(keywords):
        values = list(dict.fromkeys(found(value) for value in header.all(keyword)))
        if len(values) == 1:
            text = f"{keyword} stands {len(header.all(keyword))} times, each time as {values[0]}; expected it once"
            yield Finding("card-twice", Severity.NOTE, text, (hdu,))
        else:
            text = f"{keyword} is {' and '.join(values[:MOST_NAMED])} in one header; expected one value: "
            yield Finding("card-ambiguous", Severity.WARN, text + "the first is taken", (hdu,))


def _keywords(file: File) -> frozenset[str]:
    """The keywords whose values the camera makes something of."""
    camera = file.camera
    every = {keyword for rule in camera.header_rules.values() for keyword in rule.keywords}
    every |= {keyword for rule in camera.checks for keyword in rule.keywords}
    if camera.time_rule:
        every |= {camera.time_rule.mjd, camera.time_rule.exptime, *camera.time_rule.same}
    return frozenset({*every, *camera.obstype_keywords} - {"EXTNAME"})
