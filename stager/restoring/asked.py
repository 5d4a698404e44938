"""What a restore is asked for: manifests, each whole or narrowed to some of its files."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import ManifestError, Problem, shown
from manifests.manifest import Exclusion, Kind, Manifest
from manifests.parts import Location
from manifests.reading import read_manifest
from stager.config import Config
from stager.database import Database
from stager.models import ItemState
from stager.opening import Hosts
from stager.planning import Planned, plan_files
from stager.restoring.vanished import AT_ONCE, Vanished
from stager.submitting import checked, survey
from transfers.hosts import FileInfo, Host

NAME_KEPT = 80  # characters of a manifest's name in that of one that is narrowed: a name has 100 at the most


class NothingChosen(ManifestError):
    """A choice, or a part of it, chooses no file."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A restore manifest, and the file that it was read from."""

    manifest: Manifest
    where: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Some files of a manifest: those that one of the `globs` names (as in an accept list: a file's name, or with "/"
    the end of its path), of one of the `visits`. Where none is given, any is meant."""

    globs: tuple[str, ...] = ()
    visits: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.globs or self.visits)

    def words(self) -> list[str]:
        """What was chosen by, as it is said on the command line."""
        return [
            *(f"--only {shown(glob, 80)}" for glob in self.globs),
            *(f"--visit {shown(v, 40)}" for v in self.visits),
        ]

    def parts(self) -> list[Exclusion]:
        """One for each pair of a glob and a visit; raises PatternError for a glob that cannot be read."""
        pairs = itertools.product(self.globs or (None,), self.visits or (None,))
        parts = [Exclusion(glob=glob, ids={} if visit is None else {"visit": visit}) for glob, visit in pairs]
        for part in parts:
            part.excludes("a", {})
        return parts


def read(files: Sequence[Path]) -> list[Asked]:
    """The restore manifests in these files; raises ManifestError for one that cannot be read, is of another kind, or
    has the name of another."""
    asked: list[Asked] = []
    for path in files:
        manifest = read_manifest(path)
        if manifest.kind is not Kind.RESTORE:
            text = f'found "{manifest.kind}"; `stager restore` takes manifests of kind "restore", `stager run` any'
            raise ManifestError((Problem("kind", text),), str(path))
        if other := next((one for one in asked if one.manifest.name == manifest.name), None):
            text = f'"{manifest.name}" is the name of {shown(other.where)} too; give each manifest its own'
            raise ManifestError((Problem("name", text),), str(path))
        asked.append(Asked(manifest, str(path)))
    return asked


def _words(part: Exclusion) -> list[str]:
    """What a part was chosen by."""
    return Choice((part.glob,) if part.glob else (), tuple(part.ids.values())).words()


def cannot_choose(manifest: Manifest, choice: Choice) -> str | None:
    """Why these files cannot be chosen of a manifest, None where they can."""
    if choice.visits and manifest.camera is None:
        return "only a camera knows the visits of files; give `camera` in the manifest, or choose with --only"
    return None


def narrow(
    database: Database, config: Config, hosts: Hosts, whole: Sequence[Asked], choice: Choice, folder: Path
) -> list[Asked]:
    """The manifests for the chosen files alone, without those of which none is chosen: each under a name of its own,
    without a trigger, each file at the place that it has by the whole manifest. Their lists are written into `folder`,
    which must last until they are submitted.

    What a whole manifest expects, or what its source once had, and is not there, is missing here too. Raises
    NothingChosen where one of the globs or visits chooses no file of any of them, TransferError where a source cannot
    be listed.
    """
    narrowed: list[Asked] = []
    chose: set[str] = set()
    for one in whole:
        listing = _List(one.manifest, choice)
        listing.fill(_meant(database, config, one, hosts[one.manifest.source.host]))
        chose |= listing.chose
        if listing.lines:
            narrowed.append(_narrowed(one, choice, listing, folder))
    if idle := [words for words in choice.words() if words not in chose]:
        sources = ", ".join(f"{shown(str(one.manifest.source))} has for {one.manifest.name}" for one in whole)
        problem = Problem("source", f"{' '.join(idle)} chooses none of the files that {sources}")
        raise NothingChosen((problem,), ", ".join(one.where for one in whole))
    return narrowed


def _narrowed(asked: Asked, choice: Choice, listing: _List, folder: Path) -> Asked:
    manifest = asked.manifest
    path = folder / f"{_name(manifest.name, choice)}.txt"
    path.write_bytes(b"".join(os.fsencode(line) for line in sorted(listing.lines)))
    said = manifest.model_dump(mode="json") | {"trigger": None, "expect": [], "registry": None}
    said |= {"name": _name(manifest.name, choice), "source": str(Location(manifest.source.host, listing.folder))}
    with path.open("rb") as file:
        said["files"] = {"path": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return Asked(Manifest.from_canonical(json.dumps(said)), asked.where)


def _meant(database: Database, config: Config, asked: Asked, source: Host) -> Iterator[Planned]:
    """Every file that a manifest means; last and as missing those that were proven at the source and are not there."""
    manifest = asked.manifest
    vanished = Vanished(database, source, manifest)
    planned = survey(config, manifest, source, asked.where)
    while lot := list(itertools.islice(planned, AT_ONCE)):
        vanished.see([one.source for one in lot if not one.missing or one.is_lost])
        yield from lot
    gone = (FileInfo(path, 0, 0) for path, _ in vanished.paths())
    for one in plan_files(manifest, gone, checked(config, manifest, asked.where)):
        yield one._replace(missing=True)


def _name(name: str, choice: Choice) -> str:
    """The same for the same choice, so that it goes on where it stopped."""
    said = json.dumps([name, sorted(choice.globs), sorted(choice.visits)])
    return f"{name[:NAME_KEPT]}+only-{hashlib.sha256(said.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


class _List:
    """The chosen files of a manifest, as `lines` of a list: each by its path below one `folder` of the source. `chose`
    are the words of the choice that chose any.

    Every line begins with "./", so that none is taken for a digest or a comment.
    """

    def __init__(self, manifest: Manifest, choice: Choice) -> None:
        self.folder = manifest.source.path if manifest.files else manifest.pattern.fixed  # if nothing of it is there
        self.lines: set[str] = set()
        self.chose: set[str] = set()
        self._manifest = manifest
        self._parts = choice.parts()

    def fill(self, meant: Iterable[Planned]) -> None:
        prefix = f"{self._manifest.destination.path}/" if self._manifest.destination.path else ""
        found = False
        for one in meant:
            assert one.destination is not None  # only a focal plane that is chopped has none
            entry = one.destination.removeprefix(prefix)
            if not found and not one.missing:
                found, self.folder = True, one.source.removesuffix(entry).rstrip("/")
            if one.state != ItemState.EXCLUDED:
                self._add(one, entry)

    def _add(self, one: Planned, entry: str) -> None:
        parts = [part for part in self._parts if part.excludes(one.source, one.ids or {})]
        if not parts:
            return
        if "\n" in entry or "\r" in entry:
            text = f'"{shown(entry)}" has a line break in its name, and cannot be chosen; restore the whole manifest'
            raise ManifestError((Problem("source", text),), self._manifest.name)
        self.lines.add(f"./{entry}\n")
        self.chose.update(*map(_words, parts))
