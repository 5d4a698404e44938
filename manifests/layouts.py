"""Where a camera's files lie: templates that go both ways, ids to path and path to ids.

A template is a path with ids in braces:
`{field}/raw/v{visit}-f{filter}/s{snap:02d}/c{ccd:02d}-a{amp}.fits`. `:02d` is a number of at least two
digits with zeros before it; `:pair` is two digits that are an id with a comma, as in ImSim's rafts: R23 is
raft 2,3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .errors import CameraError, found, shown

Ids = dict[str, int | str]
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)(?::(int|0[1-9]d|pair|text))?\}")


@dataclass(frozen=True)
class IdRule:
    """What an id looks like: `kind` is "int", "pair" or "text", `pattern` a regex of its text."""

    kind: str
    pattern: str

    def value(self, text: str) -> int | str:
        if self.kind == "int":
            return int(text)
        return f"{text[0]},{text[1]}" if self.kind == "pair" else text

    def own(self, value: int | str) -> int | str | None:
        """The value as ids have it: "05" is 5, a raft 23 is "2,3"; None for what it cannot be."""
        text = self.text(value, 1)
        return None if text is None else self.value(text)

    def text(self, value: int | str, width: int) -> str | None:
        """The id as a path has it; None for a value that the id cannot have."""
        if self.kind == "int":
            number = _number(value)
            text = "" if number is None else f"{number:0{width}d}"
        elif self.kind == "pair":
            text = str(value).replace(",", "", 1)
        else:
            text = value if isinstance(value, str) else ""
        return text if re.fullmatch(self.pattern, text) else None


def _number(value: int | str) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    return value if value >= 0 else None


@dataclass(frozen=True)
class Layout:
    """One kind of file of a camera. The first template is how paths are written; all are read."""

    name: str
    templates: tuple[str, ...]
    rules: Mapping[str, IdRule]
    obstypes: tuple[str, ...] = ()  # the header's word for what lies here, such as BIAS
    science: bool = False
    _readers: tuple[_Reader, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_readers", tuple(_Reader(one, self.rules) for one in self.templates))

    @cached_property
    def id_names(self) -> tuple[str, ...]:
        """The ids in its paths, in the order they stand there."""
        return tuple(dict.fromkeys(name for name, _ in _placeholders(self.templates[0])))

    def ids(self, path: str) -> Ids | None:
        """The ids of a path that ends as a template says, else None. An id that occurs twice must agree."""
        return next((found for reader in self._readers if (found := reader.read(path)) is not None), None)

    def base(self, path: str) -> str | None:
        """The folder below which the layout begins in a path, '' for none; None where nothing matches."""
        for reader in self._readers:
            if reader.read(path) is not None:
                return "/".join(path.split("/")[: -reader.depth])
        return None

    def path(self, ids: Mapping[str, int | str], unknown: str | None = "*") -> str:
        """The path of a file with these ids; `unknown` stands for an id not given (None: that is an error).

        Raises CameraError for a value that an id cannot have, such as text for a visit or a field with a
        slash.
        """
        return PLACEHOLDER.sub(lambda sign: self._text(sign, ids, unknown), self.templates[0])

    def paths(self, ids: Mapping[str, int | str], unknown: str | None = "*") -> tuple[str, ...]:
        """The path by every template that has one of these ids, the one that is written first."""
        return tuple(
            PLACEHOLDER.sub(lambda sign: self._text(sign, ids, unknown), template)
            for template in self.templates
            if any(name in ids for name, _ in _placeholders(template))
        )

    def _text(self, sign: re.Match[str], ids: Mapping[str, int | str], unknown: str | None) -> str:
        name = sign[1]
        if name not in ids:
            if unknown is None:
                raise CameraError(
                    f"the {self.name} layout needs the id {name}, which neither header nor manifest gives"
                )
            return unknown
        text = self.rules[name].text(ids[name], _width(sign[2]))
        if text is None:
            raise CameraError(f"{name} cannot be {found(ids[name])}; expected {expectation(self.rules[name])}")
        return text


def expectation(rule: IdRule) -> str:
    if rule.kind == "int":
        return "a whole number from 0 up"
    return 'two digits, such as "2,3"' if rule.kind == "pair" else f"text of the form {rule.pattern}"


def _placeholders(template: str) -> Iterator[tuple[str, str]]:
    return ((sign[1], sign[2] or "") for sign in PLACEHOLDER.finditer(template))


def _width(form: str | None) -> int:
    return int(form[1]) if form and form.endswith("d") else 1


class _Reader:
    """One template, compiled to a regular expression over the last names of a path."""

    def __init__(self, template: str, rules: Mapping[str, IdRule]) -> None:
        self.depth = template.count("/") + 1
        self._groups: list[tuple[str, str, IdRule, int]] = []
        pieces, end, seen = [], 0, dict[tuple[str, str], str]()
        for number, sign in enumerate(PLACEHOLDER.finditer(template)):
            name, form = sign[1], sign[2] or ""
            if name not in rules:
                raise CameraError(f"the template {shown(template)} has the id {name}, which [ids] does not describe")
            pieces.append(re.escape(template[end : sign.start()]))
            end = sign.end()
            if (name, form) in seen:
                pieces.append(f"(?P={seen[name, form]})")
                continue
            group = seen[name, form] = f"{name}_{number}"
            pieces.append(f"(?P<{group}>{rules[name].pattern})")
            self._groups.append((group, name, rules[name], _width(sign[2])))
        if "{" in (rest := PLACEHOLDER.sub("", template)) or "}" in rest:
            raise CameraError(
                f"the template {shown(template)} has a brace that is no id; write {{visit}} or {{ccd:02d}}"
            )
        self._regex = re.compile("".join(pieces) + re.escape(template[end:]))

    def read(self, path: str) -> Ids | None:
        tail = path if path.count("/") < self.depth else "/".join(path.rsplit("/", self.depth)[1:])
        match = self._regex.fullmatch(tail)
        if match is None:
            return None
        ids: Ids = {}
        for group, name, rule, width in self._groups:
            text = match[group]
            value = rule.value(text)
            # c005 is not how c05 is written, and an id may not say two things in one path.
            if rule.text(value, width) != text or ids.setdefault(name, value) != value:
                return None
        return ids
