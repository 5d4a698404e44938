"""A manifest: what should be where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, WithJsonSchema, model_validator

from .camera_problems import id_problems
from .cameras import load
from .errors import CameraError, CameraFileError, ManifestError, Problem, shown
from .layouts import Ids
from .part import Part
from .parts import (
    ANY_VISIT,
    Chop,
    Exclusion,
    Expected,
    Expecting,
    FileList,
    IdTable,
    Kind,
    Location,
    Place,
    Plain,
    RegistryFile,
    Trigger,
    visit_key,
)
from .patterns import Pattern
from .rules import rules
from .wording import nearest

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
    "problems",
]


EXPECT = (
    'a list of visits, or of tables of ids such as {visit = 85770111, filter = "r"}; '
    "or the name of a registry beside the manifest"
)


class Stated(Part):
    """What a manifest says of itself, however its lists are held."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = Field(
        description="a name for the manifest, of letters, digits and ._+- (at most 100)",
        examples=["cfht-d1-chop"],
    )
    kind: Kind = Field(description='"copy", "chop", "archive" or "restore"', examples=["copy"])
    dataset: Annotated[Plain, Field(min_length=1, max_length=200)] = Field(
        description="the name the files go by in status, triggers and restores (at most 200 characters)",
        examples=["CFHTLS D1 raw"],
    )
    lead: Annotated[Plain, Field(max_length=100)] = Field(
        default="", description="the person who answers for the dataset (at most 100 characters)"
    )
    source: Place = Field(
        description="host:path, the path perhaps a pattern; with `files`, where the listed paths start from",
        examples=["lsst10:CFHTDeep/D1/raw/**"],
    )
    destination: Place = Field(
        description="host:path, the folder below which the files shall lie", examples=["lsst:CFHTLS/D1/raw"]
    )
    camera: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] | None = Field(
        default=None, description="the name of a camera", examples=["cfht_megacam", "lsst_imsim"]
    )
    ids: IdTable = Field(default_factory=dict, description='a table of ids, such as field = "D3"')
    trigger: Trigger | None = Field(default=None, description="a table with `queue` and perhaps `per`")
    expect: tuple[Expected, ...] = Field(default=(), description=EXPECT)
    focal_plane: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,40}$")] | None = Field(
        default=None,
        description="the name of another focal plane of the camera than its usual one",
        examples=["spliced40"],
    )
    proof: Literal["reread", "stream"] = Field(
        default="reread", description='"reread" (read back from disk) or "stream" (hashed while written)'
    )
    priority: Annotated[StrictInt, Field(ge=-1000, le=1000)] = Field(
        default=0, description="a whole number from -1000 to 1000; higher goes first"
    )
    replace: StrictBool = Field(
        default=False, description="true or false: whether files that differ at the destination are set aside"
    )
    check: Literal["fits", "headers", "none"] = Field(
        default="fits",
        description='"fits" (FITS files are looked into: structure, headers, checksums), "headers" (no pixel is read '
        'for it) or "none"',
    )
    hold: Literal["note", "warn", "fail", "none"] = Field(
        default="fail", description='the least severity of a finding that holds an item: "note", "warn", "fail", "none"'
    )
    chop: Chop = Field(default_factory=Chop, description="a table with `crpix`")

    @property
    def expects(self) -> bool:
        """Whether it says what should exist."""
        return bool(self.expect)


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


def problems(
    manifest: Manifest, hosts: Mapping[str, str], queues: Collection[str], folders: Sequence[Path] = ()
) -> list[Problem]:
    """What is wrong with a manifest against the configuration; `hosts` gives the kind of each ("store", ...).

    `folders` are where cameras of one's own lie. An empty list means it can be submitted.
    """
    return [
        *_host_problems(manifest, hosts),
        *_queue_problems(manifest, queues),
        *_camera_problems(manifest, folders),
    ]


# Which end of a manifest is a mass store: (source, destination).
STORES = {
    Kind.COPY: (False, False),
    Kind.CHOP: (False, False),
    Kind.ARCHIVE: (False, True),
    Kind.RESTORE: (True, False),
}


def _host_problems(manifest: Manifest, hosts: Mapping[str, str]) -> Iterator[Problem]:
    ends = (("source", manifest.source), ("destination", manifest.destination))
    for (place, location), wanted in zip(ends, STORES[manifest.kind], strict=True):
        kind = hosts.get(location.host)
        if kind is None:
            yield Problem(
                place,
                f'unknown host "{location.host}"{nearest(location.host, hosts)}; hosts in stager.toml: {_names(hosts)}',
            )
        elif (kind == "store") != wanted:
            expected = "a mass store" if wanted else "no mass store"
            yield Problem(
                place,
                f'"{location.host}" is a host of kind "{kind}"; '
                f'the {place} of a manifest of kind "{manifest.kind}" is {expected}: '
                f"{_advice(manifest.kind, hosts, location.host)}",
            )


def _advice(kind: Kind, hosts: Mapping[str, str], host: str) -> str:
    if hosts[host] == "store" and kind is Kind.COPY:
        return 'to bring files to a store write kind = "archive", to bring them back kind = "restore"'
    if hosts[host] == "store" and kind is Kind.CHOP:
        return "restore the focal planes to a host first, or archive what was chopped by a manifest of its own"
    stores = [name for name, its in hosts.items() if its == "store"]
    if hosts[host] == "store":
        return f"name another host, one of {_names(name for name in hosts if name not in stores)}"
    return f'name a store, one of {_names(stores)}, or write kind = "copy"'


def _queue_problems(manifest: Manifest, queues: Collection[str]) -> Iterator[Problem]:
    if manifest.trigger is None or manifest.trigger.queue in queues:
        return
    queue = manifest.trigger.queue
    yield Problem(
        "trigger.queue",
        f'unknown queue "{shown(queue, 40)}"{nearest(queue, queues)}; queues in stager.toml: {_names(queues)}',
    )


def _camera_problems(manifest: Manifest, folders: Sequence[Path]) -> Iterator[Problem]:
    if manifest.camera is None:
        for number, excluded in enumerate(manifest.exclusions):
            if excluded.ids:
                yield Problem(
                    f"accept.except, entry {number + 1}",
                    "excludes by ids, which only a camera knows; give `camera`, or a file name",
                )
        return
    try:
        camera = load(manifest.camera, folders)
    except CameraFileError as error:
        for one in error.problems:
            yield Problem(f"camera, {shown(error.where, 200)}{': ' if one.place else ''}{one.place}", one.text)
        return
    except CameraError as error:
        yield Problem("camera", str(error))
        return
    if manifest.kind is Kind.CHOP and camera.chop_rule is None:
        yield Problem("camera", f"{camera.name} does not say how its files are cut; its file needs a table [chop]")
    yield from id_problems(manifest, camera)


def _names(names: Collection[str] | Iterator[str]) -> str:
    return ", ".join(shown(name, 40) for name in sorted(names)) or "none"
