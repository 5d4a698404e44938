"""Reads lists of datasets by the rules of announceDataset.py (2010), written from its description and not from our
writer: `#` begins a comment anywhere; `>` a directive, of which a unique beginning is enough; else a dataset, whose
words are its type and `id=value`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

DIRECTIVES = ("topic", "pause", "success", "fail", "interval", "iddelim", "eqdelim", "intids", "format")


class Read(NamedTuple):
    """A dataset as it would be announced."""

    type: str
    ids: dict[str, int | str]
    valid: bool = True


@dataclass
class Rules:
    """What the directives said so far."""

    valid: bool = True
    intids: list[str] = field(default_factory=list)
    iddelim: str | None = None
    eqdelim: str = "="
    format: str | None = None


def read(lines: Iterable[str]) -> Iterator[Read]:
    """The datasets of a list. Raises ValueError as announceDataset.py does."""
    rules = Rules()
    for line in lines:
        line = line.strip().split("#")[0]
        if not line.strip():
            continue
        if line.startswith(">"):
            direct(rules, line[1:].strip())
        elif rules.format:
            yield formatted(rules, line.strip())
        else:
            yield plain(rules, line.strip())


def direct(rules: Rules, line: str) -> None:
    word, _, rest = line.partition(" ")
    found = [name for name in DIRECTIVES if name.startswith(word.lower())]
    if len(found) != 1:
        raise ValueError(f"{word} is {'no' if not found else 'more than one'} directive")
    rest = rest.strip()
    said = rest.lower()
    denied = bool(said) and ("false".startswith(said) or said == "0")
    match found[0]:
        case "success":
            rules.valid = not denied
        case "fail":
            rules.valid = denied
        case "intids":
            rules.intids = rest.split()
        case "iddelim":
            rules.iddelim = rest or None
        case "eqdelim":
            rules.eqdelim = rest or "="
        case "format":
            rules.format = rest or None
        case "pause" | "interval":
            float(rest)
        case "topic":
            pass


def plain(rules: Rules, line: str) -> Read:
    words = line.split(rules.iddelim)
    types = [word for word in words if rules.eqdelim not in word]
    if len(types) > 1:
        raise ValueError(f"several types: {types}")
    ids: dict[str, int | str] = {}
    for word in words:
        if rules.eqdelim in word:
            name, _, value = word.partition(rules.eqdelim)
            ids[name] = int(value) if name in rules.intids else value
    return Read(types[0] if types else "unknown", ids, rules.valid)


def formatted(rules: Rules, line: str) -> Read:
    """A line by a template of Python's: %(visit)i is a whole number, %(ccd)s text."""
    assert rules.format is not None
    kinds = dict(re.findall(r"%\((\w+)\)(\w)", rules.format))
    pattern = re.escape(rules.format)
    for name, kind in kinds.items():
        pattern = pattern.replace(re.escape(f"%({name}){kind}"), f"(?P<{name}>{'-?[0-9]+' if kind in 'di' else '.+'})")
    match = re.search(pattern, line)
    if match is None:
        raise ValueError(f"{line} is not {rules.format}")
    ids = {name: int(value) if kinds[name] in "di" else value for name, value in match.groupdict().items()}
    return Read(str(ids.pop("type", "unknown")), ids, rules.valid)
