"""Bundles on the store of a site, and what looks at them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stager.models import decode_path
from stager.rebuilding.rebuild import Rebuild
from stager.rebuilding.telling import Told
from tests.stager.site import Site
from transfers.bundles import name_of
from transfers.bundles.packing import pack
from transfers.bundles.store import BundledStore
from transfers.hosts import FileInfo, Want


def store_of(site: Site, name: str = "mss") -> BundledStore:
    store = site.hosts[name]
    assert isinstance(store, BundledStore)
    return store


def bundle(site: Site, label: str, *places: str, folder: str = "bundles", mtime: int = 1_270_000_000) -> Path:
    """A bundle of these files of host a on the store, its index beside it; known to nobody. A place is given as
    "raw/x", or "raw/x=bytes"."""
    wants = []
    for number, place in enumerate(places):
        path, _, data = place.partition("=")
        file = site.file(f"a:{path}", data or None)
        os.utime(file, ns=(mtime * 10**9, mtime * 10**9 + number))
        state = file.stat()
        wants.append(Want(number + 1, 1, path, path, state.st_size, state.st_mtime_ns))
    store = store_of(site).physical
    members = [(want.destination, want.size or 0, want.mtime_ns or 0) for want in wants]
    path = f"{folder}/{name_of(label, members)}"
    packed = pack(site.hosts["a"], store, wants, path, label)
    beside = site.path(f"mss:{packed.index_path}")
    beside.write_bytes(packed.index_bytes)
    return site.path(f"mss:{path}")


def index_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.index")


def run(site: Site, **options: Any) -> list[Told]:
    return list(Rebuild(site.database, store_of(site), **options).run())


def whats(told: Iterable[Told]) -> list[str]:
    return [one.what for one in told]


def logical(site: Site) -> list[str]:
    """The files of the store, by their own paths, as a restore would see them."""
    return [one.path for one in store_of(site).scan("") if isinstance(one, FileInfo)]


def copies(site: Site) -> dict[str, tuple[Any, ...]]:
    rows = site.rows("""SELECT c.path, b.path, c.data_offset, c.size, c.digest, c.mtime_ns, c.proof
                        FROM copies c LEFT JOIN bundles b ON b.id = c.bundle_id WHERE c.host = 'mss' ORDER BY c.path""")
    return {decode_path(row[0]): tuple(row[1:]) for row in rows}


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


def break_last_member(file: Path) -> None:
    flip(file, file.read_bytes().rindex(b'{"end":') - 20)


def forget(site: Site) -> None:
    """Lose the database."""
    for table in ("copies", "bundles"):
        site.change(f"DELETE FROM {table}")


def known_bundle(site: Site, *places: str) -> Path:
    file = bundle(site, "visit=1", *(places or ("raw/a", "raw/b")))
    run(site)
    return file
