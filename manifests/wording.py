"""From what pydantic says to what a person needs: place, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .errors import ManifestError, Problem, found, shown

_TAG = "kind"  # the key that tells which kind of table it is, where there are several


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every problem that pydantic found, in the order of the document, each said once."""
    said: dict[Problem, None] = {}
    for details in error.errors(include_url=False):
        for problem in _problems(details, model):
            said[problem] = None
    return list(said)


def nearest(name: str, names: Iterable[str]) -> str:
    """`, did you mean "x"?` where one of the names is near, else nothing."""
    close = difflib.get_close_matches(name[:80], list(names), 1, 0.6)
    return f', did you mean "{close[0]}"?' if close else ""


def _problems(details: ErrorDetails, model: type[BaseModel]) -> Iterator[Problem]:
    seen = _walk(details["loc"], model)
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ManifestError):
        yield from cause.problems
    elif details["type"] == "extra_forbidden":
        yield Problem(place(seen.names), _unknown_key(details["loc"], model))
    elif details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        yield Problem(f"{place(seen.names)}.{_TAG}", _tag(details, seen))
    else:
        yield Problem(place(seen.names), _sentence(details, seen.field))


def place(location: tuple[int | str, ...]) -> str:
    """`expect[3].visit` from ("expect", 3, "visit")."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{shown(part, 60)}" if text else shown(part, 60)
    return text


def _sentence(details: ErrorDetails, field: FieldInfo | None) -> str:
    expected = field.description if field and field.description else None
    if details["type"] == "missing":
        example = f", such as {found(field.examples[0])}" if field and field.examples else ""
        return f"missing; expected {expected or 'a value'}{example}"
    if details["type"] == "value_error":
        return str(details.get("ctx", {}).get("error", details["msg"]))
    return f"found {found(details['input'])}; expected {expected or details['msg']}"


def _tag(details: ErrorDetails, seen: _Seen) -> str:
    """What is said of the key that tells which kind of table it is."""
    field = seen.models[0].model_fields[_TAG] if seen.models else None
    given = details.get("ctx", {}).get("tag")
    expected = field.description if field and field.description else details["msg"]
    return f"{'missing' if given is None else f'found {found(given)}'}; expected {expected}"


def _unknown_key(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    name = str(location[-1])
    above = _walk(location[:-1], model)
    table = above.models[0] if above.models else model
    keys = [field.alias or key for key, field in table.model_fields.items()]
    if table is not model and name in model.model_fields:
        return f"`{name}` stands below [{place(above.names)}] and is taken for a part of it; put it above all [tables]"
    return f"unknown key `{shown(name, 60)}`{nearest(name, keys)}; expected one of {', '.join(keys)}"


class _Seen(NamedTuple):
    """What a location leads to: its names as a person wrote them, the last field, the models it may hold."""

    names: tuple[int | str, ...]
    field: FieldInfo | None
    models: list[type[BaseModel]]


def _walk(location: tuple[int | str, ...], model: type[BaseModel]) -> _Seen:
    """Follow a location: what is said of a list or of a table of tables is said of its entries too."""
    names: list[int | str] = []
    last: FieldInfo | None = None
    every = models = [model]
    named = False  # whether the name of a table, or the number of an entry, was passed since the last field
    for part in location:
        fields = {field.alias or key: field for one in models[::-1] for key, field in one.model_fields.items()}
        if part in fields:
            last = fields[str(part)]
            every = models = _models_in(last.annotation)
            named = False
        elif named and (tagged := [one for one in every if len(every) > 1 and part in _tags(one)]):
            models = tagged  # the kind that pydantic chose stands in its location, and in nobody's document
            continue
        else:
            named = True
        names.append(part)
    return _Seen(tuple(names), last, models)


def _tags(model: type[BaseModel]) -> tuple[object, ...]:
    field = model.model_fields.get(_TAG)
    return get_args(field.annotation) if field else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's annotation holds: itself, in an optional, in a list or as a table's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, list, dict):
        return [model for one in get_args(annotation) for model in _models_in(one)]
    return []
