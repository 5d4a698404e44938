"""What holds between the tables of a camera's file, so that no rule of it fails when it meets a file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping

from .camera_files import CameraFile, HeaderPart, id_rule, own_values
from .dimensions import butler_rule
from .errors import CameraError, Problem, found, shown
from .layouts import IdRule, Layout, Reader, expectation
from .maps import map_rule
from .parts import ID_NAME
from .registry_tables import registry_rule
from .wording import nearest

MOST_FILES = 1_000_000  # of one visit
SET_NAME = re.compile("[A-Za-z0-9_]{1,40}")  # as a manifest's `focal_plane` takes it

Rule = tuple[frozenset[str], Callable[[CameraFile], Iterator[Problem]]]


def rules(document: CameraFile, bad: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """What is wrong between the tables; a rule that needs a table named in `bad` is left out."""
    for needs, rule in RULES:
        if not needs & bad:
            yield from rule(document)


def _id_rule(document: CameraFile) -> Iterator[Problem]:
    for name in document.ids:
        if not ID_NAME.fullmatch(name) or name == "layout":
            yield Problem(
                "ids", f'"{shown(name, 40)}" is no name of an id; expected small letters, such as visit or ccd'
            )


def _raw_layout_rule(document: CameraFile) -> Iterator[Problem]:
    yield from _layout_problem("raw_layout", document.raw_layout, document)


def _layout_problem(place: str, name: str, document: CameraFile) -> Iterator[Problem]:
    if name not in document.layouts:
        known = ", ".join(shown(one, 40) for one in document.layouts) or "none"
        yield Problem(place, f'"{shown(name, 40)}"{nearest(name, document.layouts)}; expected one of {known}')


def _template_rule(document: CameraFile) -> Iterator[Problem]:
    ids = _ids(document)
    templates = {f"layouts.{shown(name, 40)}": part.templates for name, part in document.layouts.items()}
    if document.input:
        templates["input"] = document.input.templates
    for place, texts in templates.items():
        for number, template in enumerate(texts):
            try:
                Reader(template, ids)
            except CameraError as error:
                yield Problem(f"{place}.templates[{number}]", str(error))


def _obstype_rule(document: CameraFile) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name, part in document.layouts.items():
        for word in part.obstypes:
            before = first.setdefault(word.upper(), name)
            if before != name:
                yield Problem(
                    f"layouts.{shown(name, 40)}.obstypes",
                    f"{found(word)} stands for {shown(before, 40)} already; leave it out of one of them",
                )
    if first and document.obstype is None:
        yield Problem("obstype", "missing: layouts have `obstypes`; say in which `keywords` of a header these stand")
    if document.obstype and document.obstype.otherwise is not None:
        yield from _layout_problem("obstype.otherwise", document.obstype.otherwise, document)


def _expected_rule(document: CameraFile) -> Iterator[Problem]:
    yield from _set_problems("expected", document.expected, document)
    layout = document.layouts.get(document.raw_layout)
    in_path = {name for name in document.expected if layout and f"{{{name}" in layout.templates[0]}
    files = math.prod(len(document.expected[name]) for name in in_path)
    if files > MOST_FILES:
        yield Problem("expected", f"a visit would have {files} files; expected at most {MOST_FILES}")


def _focal_plane_rule(document: CameraFile) -> Iterator[Problem]:
    for name, part in document.focal_planes.items():
        place = f"focal_planes.{shown(name, 40)}"
        if not SET_NAME.fullmatch(name):
            yield Problem(place, "is no name of a focal plane; expected letters, digits and _, at most 40")
        if part.layout is not None:
            yield from _layout_problem(f"{place}.layout", part.layout, document)
        yield from _set_problems(place, part.sets, document)


def _set_problems(place: str, sets: Mapping[str, tuple[int | str, ...]], document: CameraFile) -> Iterator[Problem]:
    ids = _ids(document)
    every = "".join(template for part in document.layouts.values() for template in part.templates)
    for name, values in sets.items():
        where = f"{place}.{shown(name, 40)}"
        if name not in ids:
            yield _no_id(where, name, ids)
            continue
        own = [ids[name].own(value) for value in values]
        for value in (value for value, its in zip(values, own, strict=True) if its is None):
            yield Problem(where, f"found {found(value)}; expected {expectation(ids[name])}")
        if len(set(own)) < len(own) and None not in own:
            yield Problem(where, "a value is listed twice; leave one out")
        if f"{{{name}}}" not in every and f"{{{name}:" not in every:
            yield Problem(where, "no path of a layout has this id, so nothing would be expected for it")


def _header_rule(document: CameraFile) -> Iterator[Problem]:
    ids = _ids(document)
    for name, part in document.header.items():
        place = f"header.{shown(name, 40)}"
        if name not in ids:
            yield _no_id(place, name, ids)
        else:
            for text in _header_problems(part, ids[name]):
                yield Problem(place, text)


def _header_problems(part: HeaderPart, rule: IdRule) -> Iterator[str]:
    if not part.keywords and part.filename is None and part.constant is None:
        yield "gives nothing; expected `keywords`, `filename` or `constant`"
    if part.constant is not None and rule.own(part.constant) is None:
        yield f"constant is {found(part.constant)}; expected {expectation(rule)}"
    if part.filename is not None and not re.compile(part.filename).groups:
        yield f"filename {found(part.filename)} has no group; put what is the id into parentheses"
    for case in part.cases:
        try:
            re.compile(case.match).sub(case.gives, "")
        except (re.error, IndexError) as error:
            yield f"{found(case.gives)} cannot be made of {found(case.match)}: {error}"


def _check_rule(document: CameraFile) -> Iterator[Problem]:
    known = (*document.layouts, "input")
    for number, check in enumerate(document.checks):
        for key, text in check.strangers(document.ids, known):
            yield Problem(f"checks[{number}].{key}", text)


def _chop_rule(document: CameraFile) -> Iterator[Problem]:
    if document.chop is None:
        return
    if document.input is None:
        yield Problem("input", "missing: there is a [chop]; say by `templates` how focal planes are named before it")
    layout = document.layouts.get(document.raw_layout)
    several = any(len(readout.amps) > 1 for readout in document.chop.rule().readouts)
    needed = {"extension_id": document.chop.extension_id} | ({"amp_id": document.chop.amp_id} if several else {})
    ids = _ids(document)
    for key, name in needed.items():
        if name not in ids:
            yield _no_id(f"chop.{key}", name, ids)
        elif layout and f"{{{name}" not in layout.templates[0]:
            yield Problem(
                f"chop.{key}",
                f"the first template of {document.raw_layout} lacks {{{name}}}: all pieces would have one path",
            )


def _map_rule(document: CameraFile) -> Iterator[Problem]:
    ids = _ids(document)
    sets = {name: own_values(values, ids[name]) for name, values in document.expected.items() if name in ids}
    try:
        map_rule(document.map, ids, sets)
    except CameraError as error:
        yield Problem("map", str(error))


def _registry_rule(document: CameraFile) -> Iterator[Problem]:
    ids, place = _ids(document), "registry"
    sets = {name: own_values(values, ids[name]) for name, values in document.expected.items() if name in ids}
    layout = document.layouts.get(document.raw_layout)
    try:
        in_path = Layout("raw", layout.templates, ids).id_names if layout else ()
    except CameraError:  # said of the template itself
        return
    try:
        registry = registry_rule(document.registry, in_path, sets, ids) if layout else None
        place = "butler"
        butler_rule(document.butler, "", registry, ids, (sets,))
    except CameraError as error:
        yield Problem(place, str(error))


def _ids(document: CameraFile) -> dict[str, IdRule]:
    return {name: id_rule(part) for name, part in document.ids.items()}


def _no_id(place: str, name: str, ids: Mapping[str, IdRule]) -> Problem:
    return Problem(place, f'the id "{shown(name, 40)}" is not described in [ids]{nearest(name, ids)}')


RULES: tuple[Rule, ...] = (
    (frozenset({"ids"}), _id_rule),
    (frozenset({"raw_layout", "layouts"}), _raw_layout_rule),
    (frozenset({"ids", "layouts", "input"}), _template_rule),
    (frozenset({"layouts", "obstype"}), _obstype_rule),
    (frozenset({"ids", "layouts", "expected", "raw_layout"}), _expected_rule),
    (frozenset({"ids", "layouts", "focal_planes"}), _focal_plane_rule),
    (frozenset({"ids", "header"}), _header_rule),
    (frozenset({"ids", "layouts", "checks"}), _check_rule),
    (frozenset({"ids", "layouts", "input", "chop", "raw_layout"}), _chop_rule),
    (frozenset({"ids", "map", "expected"}), _map_rule),
    (frozenset({"ids", "layouts", "raw_layout", "expected", "registry", "butler"}), _registry_rule),
)
