"""From TOML to a Manifest: all problems in one error, each with its place."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .errors import ManifestError, PathError, Problem, shown
from .lists.failure_lists import FailureList, read_failure_list
from .lists.registry_files import MOST_BYTES as MOST_REGISTRY_BYTES
from .lists.registry_files import read_registry
from .manifest import Accept, Document, Manifest
from .parts import Exclusion, FileList, RegistryFile, registry_name
from .paths import check_path
from .rules import rules
from .wording import problems_of

__all__ = ["Exclusion", "ManifestError", "Problem", "read_exclusions", "read_manifest", "read_text", "schema"]

MOST_BYTES = 1 << 20  # of a manifest
MOST_LIST_BYTES = 4 << 30  # of a list of files: some 20 million lines
MOST_EXCLUSION_BYTES = 16 << 20

# Good values that stand in for bad ones, so that the rules between the other keys can still be tried.
STAND_INS: dict[str, Any] = {
    "name": "x",
    "kind": "copy",
    "dataset": "x",
    "source": "x:x",
    "destination": "y:y",
}


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest in a file, with the lists beside it. Raises ManifestError with all that is wrong."""
    path = Path(path)
    where = str(path)
    try:
        with _opened(path, MOST_BYTES) as file:
            content = file.read()
    except (OSError, ValueError) as error:
        raise ManifestError((Problem("", _unreadable(error)),), where) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = Problem(f"line {line}", "not UTF-8; save the file with that encoding")
        raise ManifestError((problem,), where) from error
    return read_text(text, where, path.parent)


def read_text(text: str, where: str = "", folder: Path | None = None) -> Manifest:
    """The manifest in a text; `where` names it in errors, `folder` is where its lists lie (or None).

    Raises ManifestError with everything that is wrong.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        sentence = f"larger than {MOST_BYTES} bytes; put long lists into a file and name it in `files`"
        raise ManifestError((Problem("", sentence),), where)
    written = _toml(text, where)
    document, wrong = _document(written)
    files, accept, said = None, tuple[FileList, ...](), FailureList((), ())
    if document.files is not None:
        files = _list(document.files, "files", folder, wrong)
    if document.accept is not None:
        accept, said = _exclusion_lists(document.accept, folder, wrong)
    registry = _registry(written.get("expect"), folder, wrong)
    if wrong:
        raise ManifestError(tuple(wrong), where)
    stated = {name: getattr(document, name) for name in document.model_fields_set - {"files", "accept", "expect"}}
    expect = tuple(entry for entry in document.expect if registry_name(entry) is None)
    try:
        return Manifest(
            **stated,
            files=files,
            accept=accept,
            exclusions=said.exclusions,
            expect=expect,
            registry=registry,
            notes=said.notes,
        )
    except ValidationError as error:
        raise ManifestError(tuple(problems_of(error, Manifest)), where) from error


def read_exclusions(path: str | os.PathLike[str], cap: int = MOST_EXCLUSION_BYTES) -> tuple[Exclusion, ...]:
    """The exclusions in a list, in either of the notations of `failure_lists`.

    Raises ManifestError, for a list over `cap` bytes too.
    """
    try:
        with _opened(Path(path), cap) as file:
            return read_failure_list(file.read(), str(path)).exclusions
    except (OSError, ValueError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError((Problem("", _unreadable(error)),), str(path)) from error


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Document.model_json_schema(by_alias=True),
        "title": "Stager manifest",
        "description": "What should be where.",
    }


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        problem = Problem("", "lists or tables are nested too deeply to be read")
        raise ManifestError((problem,), where) from error
    except ValueError as error:
        if not isinstance(error, tomllib.TOMLDecodeError):
            said = "not TOML: a number has too many digits"
            raise ManifestError((Problem("", said),), where) from error
        said = shown(str(error)).replace("Cannot overwrite a value", "a key is given twice")
        at = re.search(r"^(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)$", said)
        if at is None:
            raise ManifestError((Problem("", f"not TOML: {said}"),), where) from error
        line = f"line {at[2]}, column {at[3]}" if at[2] else "end of the file"
        raise ManifestError((Problem(line, f"not TOML: {at[1]}"),), where) from error


def _document(written: dict[str, Any]) -> tuple[Document, list[Problem]]:
    """The document and all that is wrong with it; stand-ins replace what was bad, so the rest is tried."""
    try:
        document = Document.model_validate(written)
        return document, list(rules(document, document.files is not None))
    except ValidationError as error:
        wrong = problems_of(error, Document)
        bad = frozenset(str(details["loc"][0]) for details in error.errors())
    good = {key: value for key, value in written.items() if key not in bad}
    good.update({key: value for key, value in STAND_INS.items() if key in bad})
    document = Document.model_validate(good)
    return document, wrong + list(rules(document, document.files is not None, bad))


def _list_path(name: str, folder: Path | None) -> Path:
    """Raises PathError for a name that leaves the manifest's folder."""
    if folder is None:
        raise PathError("a list is read from beside its manifest, and this manifest is in no file; save it to one")
    try:
        return Path(os.path.abspath(folder)) / check_path(name)  # noqa: PTH100 - resolve() would follow links
    except PathError as error:
        raise PathError(f"{error} (a list lies beside its manifest, or in a folder there)") from error


def _list(name: str, place: str, folder: Path | None, wrong: list[Problem]) -> FileList | None:
    try:
        path = _list_path(name, folder)
        with _opened(path, MOST_LIST_BYTES) as file:
            return FileList(path=str(path), sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except (OSError, ValueError) as error:
        wrong.append(Problem(place, f'"{shown(name, 80)}": {_unreadable(error)}'))
        return None


def _exclusion_lists(
    accept: Accept, folder: Path | None, wrong: list[Problem]
) -> tuple[tuple[FileList, ...], FailureList]:
    """The lists, each read once, so that digest and exclusions are of the same content."""
    lists: list[FileList] = []
    exclusions: list[Exclusion] = []
    notes: list[str] = []
    for name in accept.except_:
        try:
            path = _list_path(name, folder)
            with _opened(path, MOST_EXCLUSION_BYTES) as file:
                content = file.read()
            read = read_failure_list(content, name)
            exclusions += read.exclusions
            notes += read.notes
            lists.append(FileList(path=str(path), sha256=hashlib.sha256(content).hexdigest()))
        except ManifestError as error:
            wrong += [Problem(f"accept.except, {shown(name, 80)} {one.place}", one.text) for one in error.problems]
        except (OSError, ValueError) as error:
            wrong.append(Problem("accept.except", f'"{shown(name, 80)}": {_unreadable(error)}'))
    return tuple(lists), FailureList(tuple(exclusions), tuple(notes))


def _registry(expect: object, folder: Path | None, wrong: list[Problem]) -> RegistryFile | None:
    """The registry that `expect` names, as it is written: also where another of its entries is bad."""
    entries = expect if isinstance(expect, list) else [expect]
    named = [(number, name) for number, entry in enumerate(entries) if (name := registry_name(entry)) is not None]
    for number, name in named[1:]:
        wrong.append(Problem(f"expect[{number}]", f'"{shown(name, 80)}" is a second registry; one is read'))
    for number, name in named[:1]:
        place = f"expect[{number}]" if isinstance(expect, list) else "expect"
        try:
            path = _list_path(name, folder)
            with _opened(path, MOST_REGISTRY_BYTES) as file:
                return read_registry(path, file)
        except ManifestError as error:
            at = f"{place}, {shown(name, 80)}"
            wrong += [Problem(f"{at}: {one.place}" if one.place else at, one.text) for one in error.problems]
        except (OSError, ValueError) as error:
            number_meant = "; a visit is written without quotes" if name.isdecimal() else ""
            wrong.append(Problem(place, f'"{shown(name, 80)}": {_unreadable(error)}{number_meant}'))
    return None


def _opened(path: Path, most: int) -> io.BufferedReader:
    """A plain file of at most so many bytes; a pipe or device would keep the daemon waiting for ever."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = io.open(number, "rb")  # noqa: SIM115, UP020 - handed on to a `with`; the number is opened already
    facts = os.fstat(number)
    problem = None
    if not stat.S_ISREG(facts.st_mode):
        problem = "not a plain file"
    elif facts.st_size > most:
        problem = f"{facts.st_size} bytes, more than the {most} allowed"
    if problem:
        file.close()
        raise PathError(problem)
    return file


def _unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return shown(str(error))
