"""One line of a list of what is accepted as missing: ids, a name, or a heading. `failure_lists` has the notations."""

from __future__ import annotations

import re
from typing import NamedTuple

from manifests.errors import PatternError, shown
from manifests.patterns import Pattern, is_wild
from manifests.wording import nearest

MOST_LINE = 20_000  # characters of a line
MOST_REASON = 500  # characters of a reason or heading that are kept

# What the page calls things, and the ids that are meant; the coarsest first.
NAMES = {"visit": "visit", "snap": "snap", "raft": "raft", "sensor": "sensor", "ccd": "ccd", "channel": "channel"}
NAMES |= {"amp": "amp", "amplifier": "amp"}
ALSO = {"filter": "filter", "field": "field"}  # may follow, and begin no line: they are words of prose as well
RANKS = {name: rank for rank, name in enumerate(NAMES.values(), 1)}
PAIRS = frozenset({"raft", "sensor", "channel"})
FORMS = "visit=85770111 raft=4,2, or Visit 85770111 raft 4,2, or one name such as *c05-a?.fits"

TAB = 8
NOTHING = re.compile(r"[\u200b-\u200d\u2060\ufeff\0]")  # characters without width
DASHES = "\u2013\u2014-"
BULLET = (
    "\u2022\u25e6\u25aa\u2023\u2043\u2219\u00b7\u25cb\u25cf\u25a0\u25a1>*+" + DASHES
)  # as browsers and wikis have them
BULLETS = re.compile(rf"(?:(?:[{BULLET}]+|[0-9]{{1,3}}[.)])(?:\s+|$))+")
COMMENT = re.compile(r"(?:^|\s)#")
EQUATION = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(.*)", re.DOTALL)
WORD = "|".join(NAMES)
ID_AT_END = re.compile(rf"\b(?:{WORD})s?$", re.IGNORECASE)
NUMBER_SIGN = re.compile(rf"\b((?:{WORD})s?)\s*(?:[:=#]|no\.)\s*(?=[0-9])", re.IGNORECASE)
BRACKETED = re.compile(r"\(\s*([0-9]\s*,\s*[0-9])\s*\)")  # raft (4,2)
WIDE_PAIR = re.compile(r"(?<![0-9])([0-9])\s*,\s*([0-9])(?![0-9])")
SOME_ID = re.compile(rf"\b((?:{WORD}|{'|'.join(ALSO)})s?)\b", re.IGNORECASE)
ENTRY = re.compile(rf"(?:{WORD})s?\s+\S*[0-9]", re.IGNORECASE)
MENTION = re.compile(r"\b(?:visit|raft|sensor|ccd)s?\s*[:=#]?\s*\(?[0-9]\S*", re.IGNORECASE)
LIKE_ENTRY = re.compile(r"([A-Za-z]+)\s+[0-9][0-9,\s]*")
VALUES_ALONE = re.compile(r"[0-9][0-9,.;]*(?:$|\s+[0-9][0-9,.;]*(?:$|\s))")
NAMED = re.compile(r".+\.[A-Za-z0-9]+$|.*/", re.DOTALL)
FITS_NAME = re.compile(r"(?:^|\s)(?!\$)\S*\.fits\b", re.IGNORECASE)
VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.,-]{0,63}")
JOINED = frozenset({"and", "&", ","})
ENDS = re.compile(rf"[:{DASHES}]+")  # between the ids and a reason


class Said(NamedTuple):
    """What a line says: ids with one or more values, a name, a reason; or nothing but `heading`.

    `alone`: in the notation of one a line, so that no line below is of it.
    """

    ids: dict[str, tuple[str, ...]]
    glob: str | None = None
    reason: str = ""
    heading: str = ""
    alone: bool = False


def indented(line: str) -> tuple[int, str]:
    """The column at which a line begins, and its text without bullets, on single blanks."""
    if len(line) > MOST_LINE:
        raise ValueError(f"longer than {MOST_LINE} characters; write several lines")
    plain = NOTHING.sub("", line).expandtabs(TAB)
    text = plain.lstrip()
    column = len(plain) - len(text)
    bullets = BULLETS.match(text) if text.strip("* ") else None
    return column, " ".join(text[bullets.end() if bullets else 0 :].split())


def said(text: str) -> Said | None:
    """What a line's text says; None for nothing, or a comment alone.

    Raises ValueError for a line that should be an entry and cannot be read.
    """
    text, reason = _commented(text)
    if not text:
        return None
    entry = _alone(text, reason) or _outlined(text, reason)
    if entry is not None:
        return entry
    head, colon, tail = text.partition(": ")
    if colon and not MENTION.search(head) and (entry := _outlined(tail, reason)) is not None:
        return entry._replace(reason=cut(joined(head, entry.reason)))  # PSF failure: visit 85770111 raft 4,2
    check_prose(text)
    heading = cut(joined(text.strip(" :"), reason))
    return Said({}, heading=heading) if heading else None


def _commented(text: str) -> tuple[str, str]:
    """The text before a comment, and the comment; the sign in "visit #5" begins none."""
    for sign in COMMENT.finditer(text):
        before, after = text[: sign.start()], text[sign.end() :]
        if not (after[:1].isdigit() and ID_AT_END.search(before[-12:])):
            return before.strip(), after.strip()
    return text, ""


def _with_aside(text: str, reason: str) -> tuple[str, str]:
    """The text before a remark in brackets at its end, and that remark before the reason."""
    plain = text.rstrip(" .,;:")
    begins = text.find(" (")
    if begins < 0 or not plain.endswith(")") or _parted(plain[begins:]):
        return text, reason
    return text[:begins], joined(plain[begins + 2 : -1].strip(), reason)


def _parted(text: str) -> bool:
    """Whether there is something between brackets that are not within others: "(bad), sensor 0,2 (bad)"."""
    depth = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if depth <= 0 and char not in ") .,;:":
            return True
    return False


def _alone(text: str, reason: str) -> Said | None:
    """A line of ids with equals signs and perhaps a name, or of a name alone; None where it is neither. A word that
    could be of prose is a name where a reason stands after it."""
    named = bool(reason) and is_word(text)
    text, reason = _with_aside(text, reason)
    words = text.split()
    equations = [found for word in words if (found := EQUATION.fullmatch(word))]
    globs = [word for word in words if not EQUATION.fullmatch(word)]
    if not equations and not (len(globs) == 1 and (named or _is_name(text))):
        return None
    ids: dict[str, tuple[str, ...]] = {}
    for equation in equations:
        name, value = equation[1].lower(), equation[2]
        if not value:
            raise ValueError(f'"{shown(equation[0], 60)}" gives no value; write it as visit=85770111')
        if name in ids:
            raise ValueError(f"{name} is given twice; write a line for each")
        ids[name] = (value,)
    if len(globs) > 1:
        raise ValueError(f'found "{shown(text, 80)}"; expected ids such as {FORMS}, and then # and the reason')
    return Said(ids, named_by(globs[0]) if globs else None, cut(reason), alone=True)


def named_by(text: str) -> str:
    """The name or glob, looked at; raises ValueError."""
    if not text.strip("*/"):
        raise ValueError(f'"{shown(text, 20)}" alone would leave out every file; write ids, or a name')
    try:
        Pattern(text)
    except PatternError as error:
        raise ValueError(str(error)) from error
    return text


def is_word(text: str) -> bool:
    """Whether a text could be the name of a file as well as a heading."""
    return bool(text) and " " not in text and not text.endswith(":") and not VALUES_ALONE.match(text)


def _is_name(word: str) -> bool:
    """Whether a word looks like a file's name or a glob; one of a shell's variables is prose."""
    return not word.startswith("$") and (is_wild(word) or NAMED.match(word) is not None)


def _outlined(text: str, reason: str) -> Said | None:
    """An entry of an outline: it begins with an id and its value. None for other lines."""
    text = BRACKETED.sub(r"\1", NUMBER_SIGN.sub(r"\1 ", text))
    if not ENTRY.match(text):
        return None
    text, reason = _with_aside(text, reason)
    words = _words(text)
    ids: dict[str, list[str]] = {}
    name = ""
    for number, word in enumerate(words):
        plain = word.rstrip(".,;:") or word
        if (meant := _id_named(plain)) is not None:
            if meant in ids:
                raise ValueError(f"{meant} is given twice; write a line for each")
            name, ids[meant] = meant, []
        elif (values := _values(name, plain)) is not None:
            ids[name] += values
        elif plain.lower() not in JOINED:
            reason = joined(_reason_after(words, number), reason)
            break
    if empty := [name for name, values in ids.items() if not values]:
        raise ValueError(f'"{empty[0]}" gives no value; write it as {FORMS}')
    return Said({name: tuple(dict.fromkeys(values)) for name, values in ids.items()}, None, cut(reason))


def _words(text: str) -> list[str]:
    """The words of an entry; "0, 1" is one word after an id that is a pair."""
    pieces = SOME_ID.split(text)
    for number in range(2, len(pieces), 2):
        if _id_named(pieces[number - 1]) in PAIRS:
            pieces[number] = WIDE_PAIR.sub(r"\1,\2", pieces[number])
    return "".join(pieces).split()


def _id_named(word: str) -> str | None:
    known = NAMES | ALSO
    return known.get(word.lower()) or known.get(word.lower().removesuffix("s"))


def _values(name: str, word: str) -> list[str] | None:
    """The values in a word after an id; None where it is no value. 0,0,1,0 are two pairs, 5,7 two CCDs."""
    if not VALUE.fullmatch(word) or (name not in ALSO and not re.search("[0-9]", word)):
        return None
    if name in ALSO:
        return [word]
    if name not in PAIRS:
        return word.split(",") if re.fullmatch("[0-9]{1,18}(,[0-9]{1,18})*", word) else None
    if re.fullmatch("[0-9],[0-9](,[0-9],[0-9])+", word):
        return [word[at : at + 3] for at in range(0, len(word), 4)]
    return [word]


def _reason_after(words: list[str], number: int) -> str:
    """The words from there on as a reason, which a colon or dash must part from the ids."""
    before, rest = " ".join(words[:number]), " ".join(words[number:])
    text = rest.lstrip(f": {DASHES}")
    if not text or MENTION.search(text) or not (ENDS.fullmatch(words[number]) or before.endswith(":")):
        raise ValueError(
            f'after "{shown(before, 60)}" found "{shown(rest, 60)}"; write a reason in brackets or after a #, '
            "an id with its value, or # before a line that is no entry"
        )
    return text


def check_prose(text: str) -> None:
    """Raises ValueError for a line that names files or CCDs, or has but numbers, and is no entry."""
    words = text.split()
    if len(words) > 1 and all(map(_is_name, words)):
        raise ValueError(f'found "{shown(text, 80)}"; expected ids such as {FORMS}, a line for each')
    if (mention := MENTION.search(text) or FITS_NAME.search(text)) is not None:
        raise ValueError(
            f'"{shown(text, 80)}" speaks of {shown(mention[0].strip(), 40)} and cannot be read; '
            f"write it as {FORMS}, or put # before a line that is no entry"
        )
    if VALUES_ALONE.match(text):
        raise ValueError(f'"{shown(text, 80)}" gives values, and does not say of which ids; write it as {FORMS}')
    like = LIKE_ENTRY.fullmatch(text.rstrip(" :"))
    if like is not None and (near := nearest(like[1].lower().removesuffix("s"), NAMES)):
        raise ValueError(_unknown(text, like[1], near))


def check_remark(text: str) -> None:
    """Raises ValueError for a line below an entry that has an id's form, with a word for it that is not known."""
    if (like := LIKE_ENTRY.fullmatch(text.rstrip(" :"))) is not None:
        raise ValueError(_unknown(text, like[1]))


def _unknown(text: str, word: str, near: str = "") -> str:
    return (
        f'"{shown(text, 80)}" reads like an entry, but "{shown(word, 40)}" is none of its ids '
        f"({', '.join(NAMES)}){near}; put # before a line that is no entry"
    )


def joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def cut(text: str) -> str:
    return text if len(text) <= MOST_REASON else text[: MOST_REASON - 3] + "..."
