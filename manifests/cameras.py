"""What is known of an instrument: where its files lie, which should exist, what headers say, how to chop.

All of it is data: a camera is a TOML file in `cameras/`, or in a folder of one's own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from .camera_files import CameraFile, header_rule, id_rule, own_values
from .camera_reading import read_camera
from .checking.check_rules import CheckRule
from .chops.chop_rules import ChopRule
from .chops.readouts import Amp, Cards
from .dimensions import ButlerRule, butler_rule
from .errors import CameraError, CameraFileError, Problem, found, shown
from .headers import HeaderRule, TimeRule, Times, Values, text_of
from .layouts import Finder, IdRule, Ids, Layout
from .maps import MapRule, map_rule
from .registry_tables import RegistryRule, registry_rule
from .wording import nearest

__all__ = ["Amp", "Camera", "ChopRule", "HeaderRule", "Ids", "Layout", "TimeRule", "Times", "load", "names"]

OWN = Path(__file__).parent / "cameras"
MOST_BYTES = 1 << 20
Sets = Mapping[str, tuple[int | str, ...]]  # the values that a whole visit has of each id, the slowest first


@dataclass(frozen=True)
class FocalPlane:
    """What a whole visit has, where it is other than usual: a mosaic of more CCDs, or files of another layout."""

    sets: Sets
    layout: str


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
    sets: Sets  # what a whole visit has of each id
    obstype_keywords: tuple[str, ...]
    header_rules: Mapping[str, HeaderRule]
    time_rule: TimeRule | None
    chop_rule: ChopRule | None
    focal_planes: Mapping[str, FocalPlane]  # other whole visits, by name
    map_rule: MapRule | None
    otherwise: str | None = None  # the layout of headers with an obstype that no layout has
    checks: tuple[CheckRule, ...] = ()  # what is expected of headers, beside ids and times
    rule_digest: str = ""  # "sha256:hex" of all in its file that decides what is made of a focal plane, and where
    registry_rule: RegistryRule | None = None  # None: its raw files have no visits
    butler_rule: ButlerRule | None = None

    @cached_property
    def id_names(self) -> tuple[str, ...]:
        """All ids that any of its files has."""
        every = itertools.chain(*(layout.id_names for layout in self.layouts.values()), self.sets)
        return tuple(dict.fromkeys(every))

    def identify(self, path: str) -> tuple[str, Ids] | None:
        """The layout that a path ends as, and its ids; None for a path that is none of this camera's."""
        return self._finder.find(path)

    def why_not(self, path: str) -> str | None:
        """Why a path that looks like one of a layout's is none, a sentence for a person; else None.

        Its folders and its name say different things, or an id is not written as it should be. `identify` takes
        it for none of the camera's, so its file would have no ids.
        """
        if self.identify(path) is not None:
            return None
        complaint = self._finder.complaint(path)
        if complaint is None:
            return None
        layout, text = complaint
        return f"{shown(path)} has the form of {self.name}'s {layout} files, but {text}: rename it, or leave it out"

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self.layouts)

    def focal_plane(self, name: str | None = None) -> FocalPlane:
        """The whole visit of that name, the usual one without. Raises CameraError for a name there is not."""
        if name is None:
            return FocalPlane(self.sets, self.raw_layout.name)
        if name not in self.focal_planes:
            known = ", ".join(sorted(self.focal_planes)) or "none"
            raise CameraError(
                f'{self.name} has no focal plane "{shown(name, 40)}"{nearest(name, self.focal_planes)}; '
                f"its focal planes: {known}"
            )
        return self.focal_planes[name]

    def expected_sets(self, focal_plane: str | None = None, layout: str | None = None) -> Sets:
        """What a whole visit has of each id that is in the paths of a layout (the focal plane's own without)."""
        plane = self.focal_plane(focal_plane)
        in_path = self._layout(layout or plane.layout).id_names
        return {name: values for name, values in plane.sets.items() if name in in_path}

    def expected(
        self, ids: Mapping[str, int | str], focal_plane: str | None = None, layout: str | None = None
    ) -> Iterator[Ids]:
        """The ids of every file that one visit should have. Ids given narrow it: one raft, one snap.

        `focal_plane` is the name of another whole visit than the usual one, `layout` of another kind of file than
        it has. Raises CameraError for a name there is not, and for an id that no whole visit has, such as a raft
        that the camera lacks.
        """
        sets = self.expected_sets(focal_plane, layout)
        for name, values in sets.items():
            if name in ids and ids[name] not in values:
                of = f" in the focal plane {focal_plane}" if focal_plane else ""
                raise CameraError(
                    f"{self.name} has no {name} {shown(str(ids[name]), 40)}{of}; "
                    f"its {name}s: {', '.join(map(str, values))}"
                )
        choices = [(ids[name],) if name in ids else values for name, values in sets.items()]
        for chosen in itertools.product(*choices):
            yield {**ids, **dict(zip(sets, chosen, strict=True))}

    def whole(self, layout: str, focal_plane: str | None = None) -> int:
        """How many files of a layout a whole visit has: 6048 raw ones of ImSim, 378 images of its sensors.

        Without a focal plane it is that of the layout, where one names it, else the usual one.
        """
        if focal_plane is None:
            own = (name for name, plane in self.focal_planes.items() if plane.layout == layout)
            focal_plane = None if layout == self.raw_layout.name else next(own, None)
        return math.prod(map(len, self.expected_sets(focal_plane, layout).values()))

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
        return self._layout(str(ids.get("obstype", self.raw_layout.name))).path(ids, unknown)

    def _layout(self, name: str) -> Layout:
        if name not in self.layouts:
            raise CameraError(f'{self.name} has no layout "{shown(name, 40)}"{nearest(name, self.layouts)}')
        return self.layouts[name]

    def times(self, cards: Values) -> Times:
        """When and how long was exposed, as the header says, and what is wrong with that. Never raises."""
        return self.time_rule.read(cards) if self.time_rule else Times()

    def pieces(self, primary: Cards, first: Cards, ids: Mapping[str, int | str], extensions: int | None = None) -> int:
        """How many files a focal plane is chopped into, by its first two headers and its ids.

        `extensions` is how many there are, where the primary header does not say. Raises CameraError where that
        is none of a whole focal plane of its readout and kind.
        """
        if self.chop_rule is None:
            raise CameraError(f"{self.name} does not say how its files are cut; its file needs a table [chop]")
        return self.chop_rule.pieces(primary, first, self.is_science(ids), extensions)

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
            if self.otherwise is not None:
                return self.layouts[self.otherwise]
            raise CameraError(
                f"{keyword} is {found(word)}; {self.name} has a place for {known} only: leave the file out"
            )
        if self.otherwise is not None:
            return self.layouts[self.otherwise]
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
    where = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CameraFileError((Problem("", f"{error.strerror}; the file must be readable"),), where) from error
    if len(content) > MOST_BYTES:
        raise CameraFileError((Problem("", f"larger than {MOST_BYTES} bytes, which no camera is"),), where)
    return _parsed(name, where, content)


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
        return _camera(name, read_camera(content, where))
    except CameraFileError:
        raise
    except CameraError as error:
        raise CameraFileError((Problem("", str(error)),), where) from error


def _camera(name: str, document: CameraFile) -> Camera:
    ids = {one: id_rule(part) for one, part in document.ids.items()}
    layouts = {
        one: Layout(one, part.templates, ids, tuple(word.upper() for word in part.obstypes), part.science)
        for one, part in document.layouts.items()
    }
    sets = {one: own_values(values, ids[one]) for one, values in document.expected.items()}
    focal_planes = {
        one: FocalPlane(
            sets | {name: own_values(values, ids[name]) for name, values in part.sets.items()},
            part.layout or document.raw_layout,
        )
        for one, part in document.focal_planes.items()
    }
    registry = registry_rule(document.registry, layouts[document.raw_layout].id_names, sets, ids)
    every = (sets, *(plane.sets for plane in focal_planes.values()))
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
        focal_planes=focal_planes,
        map_rule=map_rule(document.map, ids, sets),
        otherwise=document.obstype.otherwise if document.obstype else None,
        checks=tuple(check.rule(document.unknown) for check in document.checks),
        rule_digest=_rule_digest(document),
        registry_rule=registry,
        butler_rule=butler_rule(document.butler, name, registry, ids, every),
    )


def _rule_digest(document: CameraFile) -> str:
    """The digest does not change with comments, checks, or what else is written beside the rules."""
    said = document.model_dump(
        mode="json", include={"ids", "layouts", "obstype", "header", "chop"}, exclude_defaults=True
    )
    return "sha256:" + hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
