"""Where a benchmark works, and how much it is asked to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import command


class Unavailable(Exception):
    """Something that a benchmark needs is not here; the sentence says what."""


@dataclass(frozen=True)
class Place:
    """A folder of a benchmark's own. `scale` 1 is the size that the goals are about; `runs` of each way."""

    folder: Path
    runs: int
    scale: float = 1.0

    def sized(self, count: int, least: int = 1) -> int:
        """So many of something at this scale."""
        return max(least, round(count * self.scale))

    def settle(self) -> None:
        """Have the file system write what it still holds of the run before: it would be counted to the next one.

        At sizes that say nothing of speed nobody waits for that.
        """
        if self.scale >= 0.01:
            command(["sync", "-f", self.folder], self.folder)

    def new(self, name: str) -> Path:
        """A folder of that name that is empty, whatever was in it."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def write_config(folder: Path, roots: Mapping[str, Path], database: str = "sqlite:///stager.db") -> Path:
    """A stager.toml with local hosts of these roots, which are made; everything else as Stager has it by default."""
    text = f"[stager]\ndatabase = {json.dumps(database)}\n"
    for name, root in roots.items():
        root.mkdir(parents=True, exist_ok=True)
        text += f'[hosts.{name}]\nkind = "local"\nroot = {json.dumps(str(root))}\n'
    path = folder / "stager.toml"
    path.write_text(text, "utf-8")
    return path


def new_database(config: Path) -> None:
    """Make the configured database, empty: a Stager in use has one, and its making is not what is measured."""
    from stager.config import read_config
    from stager.database import open_database

    open_database(read_config(str(config)).database_url).close()


def manifest_text(name: str, source: str, destination: str, **said: Any) -> str:
    """A manifest, a copy where nothing else is said."""
    values = {"name": name, "kind": "copy", "dataset": name, "source": source, "destination": destination, **said}
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def write_manifest(folder: Path, name: str, source: str, destination: str, **said: Any) -> Path:
    """The same in a file."""
    path = folder / f"{name}.toml"
    path.write_text(manifest_text(name, source, destination, **said), "utf-8")
    return path
