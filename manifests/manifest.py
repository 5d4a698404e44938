"""A manifest: what should be where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from .errors import ManifestError
from .layouts import Ids
from .part import Part
from .parts import (
    ANY_VISIT,
    Chop,
    Exclusion,
    Expecting,
    FileList,
    Kind,
    Location,
    RegistryFile,
    Trigger,
    visit_key,
)
from .patterns import Pattern
from .rules import rules
from .stated import EXPECT, Stated

__all__ = [
    "Accept",
    "Chop",
    "Document",
    "Exclusion",
    "FileList",
    "Ids",
    "Kind",
    "Location",
    "Manifest",
    "Stated",
    "Trigger",
]


def _one_as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


WITH_ONE = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})


WITH_A_REGISTRY = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string"},
            {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"type": "integer", "minimum": 0},
                        {"type": "object", "minProperties": 1},
                        {"type": "string"},
                    ]
                },
            },
        ]
    }
)


class Accept(Part):
    """What is accepted as missing: lists of ids or names with reasons, each a file beside the manifest."""

    except_: Annotated[tuple[str, ...], BeforeValidator(_one_as_list), WITH_ONE] = Field(
        alias="except",
        description='the name of a list beside the manifest, such as "bad-ccds.txt", or several',
    )


class Document(Stated):
    """A manifest as it is written; its lists are still names of files beside it."""

    files: str | None = Field(
        default=None,
        description="the name of a list beside the manifest (sha256sum or md5sum format, or paths)",
    )
    accept: Accept | None = Field(default=None, description="a table with `except`")
    expect: Annotated[tuple[Expecting, ...], BeforeValidator(_one_as_list), WITH_A_REGISTRY] = Field(
        default=(), description=EXPECT
    )


class Manifest(Stated):
    """What should be where. Checked: every rule that needs no hosts holds; `problems` checks the others.

    `files` and `accept` are the lists as they were when the manifest was read, `exclusions` what `accept`
    said, `registry` the one that `expect` named. `notes` is what reading them found worth saying: it is no
    part of the document.
    """

    files: FileList | None = None
    accept: tuple[FileList, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    registry: RegistryFile | None = None
    notes: tuple[str, ...] = Field(default=(), exclude=True)

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        if broken := tuple(rules(self, listed=self.files is not None)):
            raise ManifestError(broken, self.name)
        return self

    @property
    def pattern(self) -> Pattern:
        """Which files of the source are meant; with `files` the list says, and this has nothing to say."""
        return Pattern(self.source.path)

    @property
    def expects(self) -> bool:
        return bool(self.expect) or self.registry is not None

    @property
    def visits(self) -> frozenset[str]:
        """The visits that are expected, as text."""
        listed = self.registry.ids["visit"] if self.registry else ()
        return frozenset(map(str, (*listed, *(ids["visit"] for ids in self.expect if "visit" in ids))))

    def exclusion(self, path: str, ids: Mapping[str, int | str]) -> Exclusion | None:
        """The first exclusion that names the file, None where it is waited for. One that names the visit goes
        before those that do not."""
        if not self.exclusions:
            return None
        by_visit = self._by_visit
        of_visit = by_visit.get(visit_key(ids["visit"]), ()) if "visit" in ids else ()
        return next((one for one in (*of_visit, *by_visit[ANY_VISIT]) if one.excludes(path, ids)), None)

    @cached_property
    def _by_visit(self) -> dict[str, list[Exclusion]]:
        """Exclusions by the visit that they name, so that long lists cost little; those that name none apart."""
        found: dict[str, list[Exclusion]] = {ANY_VISIT: []}
        for one in self.exclusions:
            found.setdefault(visit_key(one.ids["visit"]) if "visit" in one.ids else ANY_VISIT, []).append(one)
        return found

    def canonical(self) -> str:
        """The whole document, defaults included, as JSON with sorted keys. `from_canonical` reads it back."""
        return _json(self.model_dump(mode="json"))

    @classmethod
    def from_canonical(cls, text: str) -> Self:
        """Raises pydantic's ValidationError for text that `canonical` did not write."""
        return cls.model_validate_json(text)

    def digest(self) -> str:
        """Of what the document says, as "sha256:<hex>": the same wherever the manifest and its lists lie."""
        said = self.model_dump(mode="json")
        said["files"] = self.files and self.files.sha256
        said["accept"] = [one.sha256 for one in self.accept]
        said["registry"] = self.registry and self.registry.sha256
        return "sha256:" + hashlib.sha256(_json(said).encode("ascii")).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
