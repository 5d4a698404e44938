"""From TOML to a CameraFile: all problems in one error, each with its place."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from .camera_files import CameraFile
from .camera_rules import rules
from .errors import CameraFileError, Problem, shown
from .layouts import DEFAULT_PATTERNS
from .wording import problems_of

# Stand in for what a camera must have and is bad, so that the rules between the other tables can still be tried.
STAND_INS: dict[str, Any] = {"title": "x", "raw_layout": "x", "ids": {}, "layouts": {}}
MOST_SAID = 1000  # characters of one problem
NEEDED = ("ids", "layouts")  # tables that others name the entries of


def _id(part: Any) -> dict[str, Any] | None:
    """An id's kind is all that other tables need to know of it."""
    kind = part.get("kind") if isinstance(part, dict) else None
    return {"kind": kind} if isinstance(kind, str) and kind in DEFAULT_PATTERNS else None


def _layout(part: Any) -> dict[str, Any] | None:
    templates = part.get("templates") if isinstance(part, dict) else None
    good = isinstance(templates, list) and templates and all(isinstance(one, str) for one in templates)
    return {"templates": templates} if good else None


def _nothing(part: Any) -> None:
    return None


# Tables of which one bad entry does not spoil the others, and what of it can still be used.
ENTRIES: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    "ids": _id,
    "layouts": _layout,
    "expected": _nothing,
    "focal_planes": _nothing,
    "header": _nothing,
}


def read_camera(content: bytes, where: str) -> CameraFile:
    """The tables of a camera's file. Raises CameraFileError with everything that is wrong."""
    try:
        written = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise CameraFileError((Problem("", f"not TOML: {shown(str(error))}"),), where) from error
    document, wrong = _document(written)
    if wrong:
        said = (Problem(one.place, shown(one.text, MOST_SAID)) for one in wrong)
        raise CameraFileError(tuple(dict.fromkeys(said)), where)
    return document


def _document(written: dict[str, Any]) -> tuple[CameraFile, list[Problem]]:
    """The document and all that is wrong with it; tables that are bad are left out, so that the rest is tried."""
    try:
        document = CameraFile.model_validate(written)
        return document, list(rules(document))
    except ValidationError as error:
        wrong = problems_of(error, CameraFile)
        places = [details["loc"] for details in error.errors()]
    good, bad = _good(written, places)
    document = CameraFile.model_validate(good)
    return document, wrong + list(rules(document, bad))


def _good(written: dict[str, Any], places: list[tuple[int | str, ...]]) -> tuple[dict[str, Any], frozenset[str]]:
    """What is good of a document that has problems at these places, and the tables that had to be left out."""
    good = dict(written)
    bad = set()
    for place in places:
        key, name = str(place[0]), place[1] if len(place) > 1 else None
        if key in ENTRIES and isinstance(good.get(key), dict) and name in good[key]:
            entries = {one: entry for one, entry in good[key].items() if one != name}
            mended = ENTRIES[key](written[key][name])
            good[key] = entries if mended is None else entries | {name: mended}
            if mended is None and key in NEEDED:
                bad.add(key)
        else:
            good.pop(key, None)
            bad.add(key)
    return good | {key: STAND_INS[key] for key in STAND_INS if key in bad}, frozenset(bad)
