"""A site whose queues are folders, and what a pipeline finds in them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from stager.config import parse_config
from stager.opening import Hosts
from stager.queues import paf
from tests.stager.queues.announcements import Read, read
from tests.stager.site import Site, document

PER_VISIT = {"queue": "isr", "per": ["visit"]}


def add_queue(site: Site, name: str, **said: Any) -> Path:
    """Give the site a queue that is a folder of that name; a job office where nothing else is said."""
    file = site.folder / "stager.toml"
    folder = site.folder / "work" / name
    folder.parent.mkdir(exist_ok=True)
    whole = tomllib.loads(file.read_text())
    whole["queues"][name] = {"kind": "joboffice", "folder": str(folder)} | said
    file.write_text(document(whole))
    site.config = parse_config(whole, file)
    site.hosts.close()
    site.hosts = Hosts(site.database, site.config)
    return folder


def items(folder: Path) -> list[dict[str, Any]]:
    """The items of a job office's dataAvailable, in their order; their names must be those of its files."""
    place = folder / "dataAvailable"
    order = (place / "_order.list").read_text().splitlines()
    assert sorted(order) == sorted(path.name for path in place.iterdir() if path.name[0] not in "._")
    return [paf.read((place / name).read_text()) for name in order]


def lists(folder: Path) -> dict[str, list[Read]]:
    """The lists in a folder, by name."""
    return {path.name: list(read(path.read_text().splitlines())) for path in sorted(folder.glob("*.txt"))}


def raws(visits: int, ccds: int = 2) -> list[str]:
    return [f"D1/raw/v{v}-fr/s00/c{c:02d}-a{a}.fits" for v in range(1, visits + 1) for c in range(ccds) for a in (0, 1)]


def copy(site: Site, trigger: dict[str, Any] = PER_VISIT, name: str = "m", **said: Any) -> None:
    """Copy what is at a:D1/raw, and publish what became whole."""
    said = {"source": "a:D1/raw/**", "destination": "b:D1/raw", "camera": "cfht_megacam", "check": "none"} | said
    site.run(name, trigger=trigger, **said)
