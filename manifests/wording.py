"""From what pydantic says to what a person needs: place, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .errors import ManifestError, Problem, found, shown


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
    location = details["loc"]
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ManifestError):
        yield from cause.problems
    elif details["type"] == "extra_forbidden":
        yield Problem(place(location), _unknown_key(location, model))
    else:
        yield Problem(place(location), _sentence(details, _field(location, model)))


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


def _unknown_key(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    name = str(location[-1])
    table = _model(location[:-1], model) or model
    keys = [field.alias or key for key, field in table.model_fields.items()]
    if table is not model and name in model.model_fields:
        table_name = place(location[:-1])
        return (
            f"`{name}` stands below [{table_name}] and is taken for a part of it; put it above all [tables]"
        )
    return f"unknown key `{shown(name, 60)}`{nearest(name, keys)}; expected one of {', '.join(keys)}"


def _field(location: tuple[int | str, ...], model: type[BaseModel]) -> FieldInfo | None:
    """The field of the last name in the location: what is said of a list is said of its entries too."""
    last: FieldInfo | None = None
    table: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or table is None:
            continue
        aliases = {field.alias or key: field for key, field in table.model_fields.items()}
        last = aliases.get(part, last)
        table = _model_in(last.annotation) if last is not None and part in aliases else None
    return last


def _model(location: tuple[int | str, ...], model: type[BaseModel]) -> type[BaseModel] | None:
    field = _field(location, model)
    return _model_in(field.annotation) if field else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's annotation holds: itself, in an optional, in a list or as a table's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, list, dict):
        return next((model for one in get_args(annotation) if (model := _model_in(one))), None)
    return None
