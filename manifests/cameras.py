"""What is known of an instrument: where its files lie, which should exist, what headers say, how to chop.

All of it is data: a camera is a TOML file in `cameras/`, or in a folder of one's own.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .camera_files import CameraFile, header_rule, id_rule, span
from .chop_rules import Amp, ChopRule
from .errors import CameraError, found, shown
from .headers import HeaderRule, TimeRule, Times, text_of
from .layouts import IdRule, Ids, Layout
from .wording import nearest, problems_of

__all__ = ["Amp", "Camera", "ChopRule", "HeaderRule", "Ids", "Layout", "TimeRule", "Times", "load", "names"]

OWN = Path(__file__).parent / "cameras"
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Camera:
    """One instrument. Ids are whole numbers or text; a header is a mapping of keywords to parsed values.

    `obstype` is an id too: the name of the layout that a header belongs to ("raw", "bias", ...).
    """

    name: str
    title: str
    ids: Mapping[str, IdRule]
    layouts: Mapping[str, Layout]
    raw_layout: Layout
    input: Layout | None  # focal planes, as they are before a chop
    sets: Mapping[str, tuple[int | str, ...]]  # what a whole visit has of each id, the slowest first
    obstype_keywords: tuple[str, ...]
    header_rules: Mapping[str, HeaderRule]
    time_rule: TimeRule | None
    chop_rule: ChopRule | None

    @cached_property
    def id_names(self) -> tuple[str, ...]:
        """All ids that any of its files has."""
        every = itertools.chain(*(layout.id_names for layout in self.layouts.values()), self.sets)
        return tuple(dict.fromkeys(every))

    def identify(self, path: str) -> tuple[str, Ids] | None:
        """The layout that a path ends as, and its ids; None for a path that is none of this camera's."""
        for name, layout in self.layouts.items():
            if (ids := layout.ids(path)) is not None:
                return name, ids
        return None

    def expected(self, ids: Mapping[str, int | str]) -> Iterator[Ids]:
        """The ids of every file that one visit should have. Ids given narrow it: one raft, one snap.

        Raises CameraError for an id that no whole visit has, such as a raft that the camera lacks.
        """
        for name, values in self.sets.items():
            if name in ids and ids[name] not in values:
                raise CameraError(
                    f"{self.name} has no {name} {shown(str(ids[name]), 40)}; its {name}s: {', '.join(map(str, values))}"
                )
        choices = [(ids[name],) if name in ids else values for name, values in self.sets.items()]
        for chosen in itertools.product(*choices):
            yield {**ids, **dict(zip(self.sets, chosen, strict=True))}

    def header_ids(self, cards: Mapping[str, Any], given: Mapping[str, int | str] | None = None, name: str = "") -> Ids:
        """The ids that a file's header gives, with those of the manifest (`given`) where it gives none.

        `name` is the file's name, for the few ids that it may stand in for. Raises CameraError, one
        sentence, where an id of the layout is to be had from neither, or where header and manifest say
        different things.
        """
        given = given or {}
        layout = self._layout_of(cards)
        ids: Ids = {"obstype": layout.name}
        wrong: list[str] = []
        for id_name in layout.id_names:
            rule = self.header_rules.get(id_name)
            try:
                value = rule.read(cards, given.get(id_name), self.ids[id_name], name) if rule else given.get(id_name)
            except CameraError as error:
                wrong.append(str(error))
                continue
            if value is not None:
                ids[id_name] = value
        if wrong:
            raise CameraError("; ".join(wrong))
        return ids

    def is_science(self, ids: Mapping[str, int | str]) -> bool:
        """Whether a file with these ids is of the sky, and not a calibration."""
        return self.layouts[str(ids.get("obstype", self.raw_layout.name))].science

    def destination(self, ids: Mapping[str, int | str], unknown: str | None = None) -> str:
        """The path below the destination, by the layout of its obstype. CameraError if an id is lacking."""
        name = str(ids.get("obstype", self.raw_layout.name))
        if name not in self.layouts:
            raise CameraError(f'{self.name} has no layout "{shown(name, 40)}"{nearest(name, self.layouts)}')
        return self.layouts[name].path(ids, unknown)

    def times(self, cards: Mapping[str, Any]) -> Times:
        """When and how long was exposed, as the header says, and what is wrong with that. Never raises."""
        return self.time_rule.read(cards) if self.time_rule else Times()

    def pieces(self, cards: Mapping[str, Any], extensions: int | None = None) -> int:
        """How many files a focal plane is chopped into, from NEXTEND of its primary header.

        `extensions` is how many there really are, where that is known. Raises CameraError where they
        differ, or where the count is none of a whole focal plane of its kind.
        """
        if self.chop_rule is None:
            raise CameraError(f"{self.name} does not say how its files are cut; its file needs a table [chop]")
        return self.chop_rule.pieces(cards, extensions, self._layout_of(cards).science)

    def _layout_of(self, cards: Mapping[str, Any]) -> Layout:
        """The layout for the header's word for what the file is."""
        if not self.obstype_keywords:
            return self.raw_layout
        known = ", ".join(word for layout in self.layouts.values() for word in layout.obstypes)
        for keyword in self.obstype_keywords:
            word = text_of(cards.get(keyword))
            if not word:
                continue
            for layout in self.layouts.values():
                if word.upper() in layout.obstypes:
                    return layout
            raise CameraError(
                f"{keyword} is {found(word)}; {self.name} has a place for {known} only: leave the file out"
            )
        raise CameraError(f"the header has no {self.obstype_keywords[0]}; expected one of {known}")


def load(name: str, folders: Sequence[Path] = ()) -> Camera:
    """The camera of that name, from the first of the folders that has `<name>.toml`, else of Stager's own.

    Raises CameraError where there is none, or where its file cannot be used: all its problems in one
    sentence.
    """
    known = names(folders)
    if name not in known:
        raise CameraError(
            f'unknown camera "{shown(name, 40)}"{nearest(name, known)}; cameras: {", ".join(sorted(known))}'
        )
    path = known[name]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CameraError(f"{shown(str(path))}: {error.strerror}; the file must be readable") from error
    if len(content) > MOST_BYTES:
        raise CameraError(f"{shown(str(path))}: larger than {MOST_BYTES} bytes, which no camera is")
    return _parsed(name, str(path), content)


def names(folders: Sequence[Path] = ()) -> dict[str, Path]:
    """The cameras there are, and each one's file."""
    known: dict[str, Path] = {}
    for folder in (*folders, OWN):
        for path in sorted(folder.glob("*.toml")):
            known.setdefault(path.stem, path)
    return known


@lru_cache(maxsize=32)
def _parsed(name: str, where: str, content: bytes) -> Camera:
    """One parse for each content, so that a file that was changed is read anew."""
    try:
        document = CameraFile.model_validate(tomllib.loads(content.decode("utf-8")))
        return _camera(name, document)
    except ValidationError as error:
        text = "; ".join(str(problem) for problem in problems_of(error, CameraFile))
        raise CameraError(f"{shown(where)}: {text}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # UnicodeDecodeError, TOMLDecodeError and CameraError are ValueErrors
        raise CameraError(f"{shown(where)}: {shown(str(error))}") from error


def _camera(name: str, document: CameraFile) -> Camera:
    ids = {one: id_rule(part) for one, part in document.ids.items()}
    layouts = {
        one: Layout(one, part.templates, ids, tuple(word.upper() for word in part.obstypes), part.science)
        for one, part in document.layouts.items()
    }
    if document.raw_layout not in layouts:
        raise CameraError(f'raw_layout is "{document.raw_layout}"; expected one of {", ".join(layouts)}')
    sets = {one: span(values) for one, values in document.expected.items()}
    for one in (*sets, *document.header):
        if one not in ids:
            raise CameraError(f'the id "{shown(one, 40)}" is not described in [ids]{nearest(one, ids)}')
    return Camera(
        name=name,
        title=document.title,
        ids=ids,
        layouts=layouts,
        raw_layout=layouts[document.raw_layout],
        input=Layout("input", document.input.templates, ids) if document.input else None,
        sets=sets,
        obstype_keywords=document.obstype.keywords if document.obstype else (),
        header_rules={one: header_rule(one, part) for one, part in document.header.items()},
        time_rule=document.times.rule() if document.times else None,
        chop_rule=document.chop.rule() if document.chop else None,
    )
