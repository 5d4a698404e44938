"""Where a camera's files lie: templates that go both ways, ids to path and path to ids.

A template is a path with ids in braces:
`{field}/raw/v{visit}-f{filter}/s{snap:02d}/c{ccd:02d}-a{amp}.fits`. `:02d` is a number of at least two
digits with zeros before it; `:pair` is two digits that are an id with a comma, as in ImSim's rafts: R23 is
raft 2,3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from .errors import CameraError, found, shown
from .paths import path_problem

Ids = dict[str, int | str]
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)(?::(int|0[1-9]d|pair|text))?\}")
KINDS = {"int": "int", "pair": "pair", "text": "text"}  # the form that a placeholder may have, and the kind it is of
DEFAULT_PATTERNS = {"int": "[0-9]{1,18}", "pair": "[0-9]{2}", "text": "[A-Za-z0-9][A-Za-z0-9_+-]*"}


@dataclass(frozen=True)
class IdRule:
    """What an id looks like: `kind` is "int", "pair" or "text", `pattern` a regex of its text.

    A number's text is without leading zeros here; a template has as many as it says.
    """

    kind: str
    pattern: str

    def value(self, text: str) -> int | str:
        """The id that a text of the pattern is."""
        if self.kind == "int":
            return int(text)
        return f"{text[0]},{text[1]}" if self.kind == "pair" else text

    def own(self, value: int | str) -> int | str | None:
        """The value as ids have it: "05" is 5, a raft 23 is "2,3"; None for what it cannot be."""
        text = self.text(value, 1)
        return None if text is None else self.value(text)

    def text(self, value: int | str, width: int) -> str | None:
        """The id as a path has it; None for a value that the id cannot have, or that is no name in a path."""
        if self.kind == "int":
            number = _number(value)
            text = "" if number is None else str(number)
            return text.zfill(width) if re.fullmatch(self.pattern, text) and text.isascii() else None
        if self.kind == "pair":
            text = str(value).replace(",", "", 1)
            text = text if len(text) == 2 else ""
        else:
            text = value if isinstance(value, str) else ""
        return text if re.fullmatch(self.pattern, text) and _is_name(text) else None

    def read(self, text: str, width: int) -> int | str | None:
        """The id that a text of the pattern is, which a template has with so many digits at least.

        None where the text is another than `text` would write: c005 is not how c05 is written.
        """
        if self.kind == "int":
            if len(text) != width and (len(text) < width or text[0] == "0"):
                return None
            # A pattern of one's own may let more through than these.
            return int(text) if text.isascii() and text.isdigit() else None
        if self.kind == "pair":
            return f"{text[0]},{text[1]}" if len(text) == 2 and "," not in text else None
        return text if _is_name(text) else None


def _number(value: int | str) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    return value if value >= 0 else None


def _is_name(text: str) -> bool:
    """Whether the text may stand in a path, whatever its pattern says: no slash, nothing that climbs."""
    return text.isprintable() and "/" not in text and text not in ("", ".", "..")


@dataclass(frozen=True)
class Layout:
    """One kind of file of a camera. The first template is how paths are written; all are read.

    Raises CameraError for a template that cannot be used.
    """

    name: str
    templates: tuple[str, ...]
    rules: Mapping[str, IdRule]
    obstypes: tuple[str, ...] = ()  # the header's word for what lies here, such as BIAS
    science: bool = False
    readers: tuple[Reader, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "readers", tuple(Reader(one, self.rules) for one in self.templates))

    @cached_property
    def id_names(self) -> tuple[str, ...]:
        """The ids in its paths, in the order they stand there."""
        return tuple(dict.fromkeys(name for name, _ in _placeholders(self.templates[0])))

    def ids(self, path: str) -> Ids | None:
        """The ids of a path that ends as a template says, else None. An id that occurs twice must agree."""
        return next((ids for reader in self.readers if (ids := reader.read(path)) is not None), None)

    def base(self, path: str) -> str | None:
        """The folder below which the layout begins in a path, '' for none; None where nothing matches."""
        for reader in self.readers:
            if reader.read(path) is not None:
                return "/".join(path.split("/")[: -reader.depth])
        return None

    def like(self, path: str) -> Layout:
        """The same layout, but that paths are written in the form of this one, such as .fits and not .fits.gz."""
        for number, reader in enumerate(self.readers):
            if reader.read(path) is not None:
                templates = (self.templates[number], *self.templates[:number], *self.templates[number + 1 :])
                return self if number == 0 else replace(self, templates=templates)
        return self

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
    """What a value of the id should be, in words."""
    if rule.kind == "int":
        of_form = "" if rule.pattern == DEFAULT_PATTERNS["int"] else f" of the form {rule.pattern}"
        return f"a whole number from 0 up{of_form}"
    return 'two digits, such as "2,3"' if rule.kind == "pair" else f"text of the form {rule.pattern}"


def _placeholders(template: str) -> Iterator[tuple[str, str]]:
    return ((sign[1], sign[2] or "") for sign in PLACEHOLDER.finditer(template))


def _width(form: str | None) -> int:
    return int(form[1]) if form and form.endswith("d") else 1


def template_problem(template: str, rules: Mapping[str, IdRule]) -> str | None:
    """Why a template cannot be used, a sentence; None for a good one."""
    if problem := path_problem(template):
        return f"the template {shown(template)}: {problem}"
    if "{" in (rest := PLACEHOLDER.sub("", template)) or "}" in rest:
        return f"the template {shown(template)} has a brace that is no id; write {{visit}} or {{ccd:02d}}"
    if not PLACEHOLDER.search(template):
        return f"the template {shown(template)} has no id in braces, such as {{visit}}"
    for name, form in _placeholders(template):
        if name not in rules:
            return f"the template {shown(template)} has the id {name}, which [ids] does not describe"
        if form and (kind := KINDS.get(form, "int")) != rules[name].kind:
            return (
                f'the template {shown(template)} has {{{name}:{form}}}, which is for an id of kind "{kind}"; '
                f'{name} is of kind "{rules[name].kind}": write {{{name}}}'
            )
    return None


class Reader:
    """One template, compiled to a regular expression over the last names of a path.

    `folder` is a name in the template that is the same in every path, and its place from the path's end (1 is
    the file's own name): paths without it need not be tried. None where ids stand in every name.
    """

    def __init__(self, template: str, rules: Mapping[str, IdRule]) -> None:
        if problem := template_problem(template, rules):
            raise CameraError(problem)
        self.template = template
        self._rules = rules
        names = template.split("/")
        self.depth = len(names)
        fixed = [place for place in range(2, self.depth + 1) if not PLACEHOLDER.search(names[-place])]
        self.folder = (fixed[0], names[-fixed[0]]) if fixed else None
        self._end = PLACEHOLDER.split(names[-1])[-1]
        self._signs = list(PLACEHOLDER.finditer(template))
        self._regex = _compiled(template, self._signs, rules)
        groups = [(sign, f"i{number}") for number, sign in enumerate(self._signs)]
        groups = [(sign, group) for sign, group in groups if group in self._regex.groupindex]
        self._numbers = [self._regex.groupindex[group] for _, group in groups]
        self._readings = [(sign[1], rules[sign[1]].read, _width(sign[2])) for sign, _ in groups]

    def read(self, path: str) -> Ids | None:
        """The ids of a path that ends as the template says, else None."""
        start = 0
        if path.count("/") >= self.depth:
            start = len(path.rsplit("/", self.depth)[0]) + 1
        return self.read_from(path, start)

    def read_from(self, path: str, start: int) -> Ids | None:
        """The same where it is known already where the path's last names, as many as the template's, begin."""
        if not path.endswith(self._end):
            return None
        match = self._regex.fullmatch(path, start)
        if match is None:
            return None
        ids: Ids = {}
        for number, (name, read, width) in zip(self._numbers, self._readings, strict=True):
            value = read(match[number], width)
            # An id may not say two things in one path.
            if value is None or ids.setdefault(name, value) != value:
                return None
        return ids

    def complaint(self, path: str) -> str | None:
        """Why a path that has the template's form is none of its paths all the same, a sentence; else None."""
        names = path.split("/")[-self.depth :]
        match = self._loose.fullmatch("/".join(names))
        if match is None or self.read(path) is not None:
            return None
        said: dict[str, tuple[int | str, str]] = {}
        for number, sign in enumerate(self._signs):
            name, text = sign[1], match[f"i{number}"]
            element = names[self.template.count("/", 0, sign.start())]
            width = _width(sign[2])
            value = self._rules[name].read(text, width)
            if value is None:
                written = self._rules[name].text(text, width)
                return written and f'"{shown(element)}" has {found(text)} for {name}; expected "{written}"'
            before, where = said.setdefault(name, (value, element))
            if before != value:
                return f'"{shown(where)}" says {name} {before}, "{shown(element)}" says {name} {value}'
        return None

    @cached_property
    def _loose(self) -> re.Pattern[str]:
        """The template with every id on its own: what stands twice may differ."""
        return _compiled(self.template, self._signs, self._rules, loose=True)


def _compiled(
    template: str, signs: list[re.Match[str]], rules: Mapping[str, IdRule], *, loose: bool = False
) -> re.Pattern[str]:
    """The regular expression of a template's paths; the group of its n-th id is `i<n>`."""
    pieces, end, seen = [], 0, dict[tuple[str, str | None], str]()
    for number, sign in enumerate(signs):
        pieces.append(re.escape(template[end : sign.start()]))
        end = sign.end()
        group = seen.setdefault((sign[1], sign[2]), f"i{number}")
        zeros = f"0{{0,{_width(sign[2]) - 1}}}" if _width(sign[2]) > 1 else ""
        if group != f"i{number}" and not loose:
            pieces.append(f"(?P={group})")
        else:
            pieces.append(f"(?P<i{number}>{zeros}(?:{rules[sign[1]].pattern}))")
    try:
        return re.compile("".join(pieces) + re.escape(template[end:]))
    except (re.error, RecursionError) as error:
        raise CameraError(
            f"the template {shown(template)} cannot be read with the patterns of its ids: {shown(str(error))}; "
            "a pattern has no named groups and no references to groups"
        ) from error


class Finder:
    """All templates of a camera, so that a path is tried with the few that it can be of.

    A template is looked up by the folder that is in all its paths, so many layouts cost no more than a few.
    """

    def __init__(self, layouts: Mapping[str, Layout]) -> None:
        self._by_folder: dict[int, dict[str, list[_Entry]]] = {}
        self._others: list[_Entry] = []
        readers = [(layout.name, reader) for layout in layouts.values() for reader in layout.readers]
        for order, (name, reader) in enumerate(readers):
            entry = (order, name, reader)
            if reader.folder is None:
                self._others.append(entry)
            else:
                place, folder = reader.folder
                self._by_folder.setdefault(place, {}).setdefault(folder, []).append(entry)
        self._depth = max((reader.depth for _, reader in readers), default=1)

    def find(self, path: str) -> tuple[str, Ids] | None:
        """The layout that a path ends as and its ids, by the first template in the camera's file; else None."""
        names = path.rsplit("/", self._depth)
        best: tuple[int, str, Ids] | None = None
        for order, name, reader in self._candidates(names):
            if best is not None and best[0] < order:
                continue
            depth = reader.depth
            if depth > len(names):
                continue
            start = len(path) - sum(map(len, names[-depth:])) - depth + 1
            if (ids := reader.read_from(path, start)) is not None:
                best = (order, name, ids)
        return None if best is None else best[1:]

    def complaint(self, path: str) -> tuple[str, str] | None:
        """The layout whose form a path has, and why it is no path of it all the same; None where there is none."""
        for _, name, reader in sorted(self._candidates(path.rsplit("/", self._depth)), key=lambda entry: entry[0]):
            if (text := reader.complaint(path)) is not None:
                return name, text
        return None

    def _candidates(self, names: list[str]) -> list[_Entry]:
        count = len(names)
        candidates = self._others
        for place, folders in self._by_folder.items():
            if place <= count and (entries := folders.get(names[-place])):
                candidates = candidates + entries
        return candidates


_Entry = tuple[int, str, Reader]  # the template's number, its layout's name, its reader
