"""What is counted of a mass store: members of bundles, and files on tape as far as the store can prove them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stager.config import StoreHost
from stager.demo import tape
from stager.evicting.reasons import Why
from tests.stager.evicting.places import KB, check_all, content, disks, evict, left, paths, tombstones, why
from tests.stager.site import Site
from tests.tapes import Tapes


def brought(site: Site, *names: str, **said: Any) -> None:
    """Files at b:new, and at the store as an archive says."""
    for name in names:
        site.file(f"a:raw/{name}", content(name))
    site.run("first", trigger=None)
    site.run("second", **({"kind": "archive", "destination": "mss:kept", "trigger": None} | said))
    site.change("UPDATE items SET progressed_at = id")


# --------------------------------------------------------------------------------------------- bundles


def test_members_of_bundles_are_copies_at_the_store(site: Site) -> None:
    brought(site, "1", "2", "3", bundle={"age_s": 0.0})
    (bundle,) = site.path("mss:kept").rglob("*.stager.tar")
    report = evict(site, 2 * KB, least=1)
    assert (paths(report), report.evicted[0].others) == (["new/1", "new/2"], ("mss:kept/1",))
    assert bundle.exists()
    check_all(site)


def test_a_flipped_bit_in_a_bundle_is_found_for_the_member_that_has_it(site: Site) -> None:
    brought(site, "1", "2", "3", bundle={"age_s": 0.0})
    (bundle,) = site.path("mss:kept").rglob("*.stager.tar")
    data = bytearray(bundle.read_bytes())
    data[data.index(content("2")) + 500] ^= 4
    bundle.write_bytes(data)
    report = evict(site, 3 * KB, least=1)
    assert (paths(report), why(report)) == (["new/1", "new/3"], {Why.UNPROVEN: 1})
    assert site.rows("SELECT path FROM copies WHERE trouble = 'corrupt'") == [("kept/2",)]
    assert left(site, "b:new") == ["2"]


def test_a_bundle_on_the_file_system_of_its_members_is_no_other(site: Site) -> None:
    brought(site, "1", bundle={"age_s": 0.0})
    assert why(evict(site, KB, least=1, hosts=disks(site, mss="b"))) == {Why.TOGETHER: 1}


def test_a_bundle_that_is_gone_proves_nothing(site: Site) -> None:
    brought(site, "1", "2", bundle={"age_s": 0.0})
    (bundle,) = site.path("mss:kept").rglob("*.stager.tar")
    bundle.unlink()
    assert why(evict(site, 2 * KB, least=1)) == {Why.UNPROVEN: 2}
    assert (left(site, "b:new"), tombstones(site)) == (["1", "2"], [])


# ------------------------------------------------------------------------------------------------ tape


@pytest.fixture
def tapes() -> Iterator[Tapes]:
    with Tapes() as running:
        yield running


class Library:
    """The site's store with all that it holds, on tape from now on and used by commands."""

    def __init__(self, site: Site, tapes: Tapes, **without: None) -> None:
        self.state = site.folder / "tapes"
        (self.state / "files").mkdir(parents=True)
        site.path("mss:").rename(self.state / "files/UROOT")
        commands = tapes.commands(self.state) | without
        said = {"kind": "store", "driver": "command", "root": "/UROOT", "commands": commands}
        hosts = dict(site.config.hosts) | {"mss": StoreHost.model_validate(said)}
        site.config = site.config.model_copy(update={"hosts": hosts})
        site.hosts.close()
        site.hosts = disks(site)

    def do(self, *words: str) -> None:
        assert tape.main(["--state", str(self.state), *words], io.StringIO(), io.StringIO()) == 0

    def file(self, path: str) -> Path:
        return self.state / "files/UROOT" / path


def test_what_a_tape_store_has_on_disk_is_read_again(sqlite_site: Site, tapes: Tapes) -> None:
    site = sqlite_site
    brought(site, "1", "2")
    library = Library(site, tapes)
    library.file("kept/2").write_bytes(b"x" * KB)
    report = evict(site, 2 * KB, least=1)
    assert (paths(report), why(report)) == (["new/1"], {Why.UNPROVEN: 1})


def test_what_is_on_tape_is_proven_by_the_digest_of_the_store(sqlite_site: Site, tapes: Tapes) -> None:
    site = sqlite_site
    brought(site, "1")
    library = Library(site, tapes)
    library.do("migrate", "/UROOT/kept/1")
    assert paths(evict(site, KB, least=1)) == ["new/1"]
    assert tape.Library(library.state).known("/UROOT/kept/1").state == "migrated"  # and nothing was brought for it


def test_a_bundle_on_tape_is_proven_by_the_digest_of_the_store(sqlite_site: Site, tapes: Tapes) -> None:
    site = sqlite_site
    brought(site, "1", "2", bundle={"age_s": 0.0})
    library = Library(site, tapes)
    (bundle,) = library.file("kept").rglob("*.stager.tar")
    library.do("migrate", f"/{bundle.relative_to(library.state / 'files')}")
    assert paths(evict(site, KB, least=1)) == ["new/1"]
    site.change("UPDATE bundles SET digest = 'sha256:' || substr(digest, 12) || '0000'")
    report = evict(site, KB, least=1)
    assert report.refused[Why.UNPROVEN].examples == ["new/2: mss:kept/2 has another digest at its store"]


def test_what_is_on_tape_counts_for_nothing_where_the_store_has_no_digest(sqlite_site: Site, tapes: Tapes) -> None:
    site = sqlite_site
    brought(site, "1", "2")
    library = Library(site, tapes, digest=None, digested=None, algorithm=None)
    library.do("migrate", "/UROOT/kept/1")
    report = evict(site, 2 * KB, least=1)
    assert paths(report) == ["new/2"]
    assert report.refused[Why.UNPROVEN].examples == [
        "new/1: mss:kept/1 is on tape, and the store has no digest of it to compare: it is not counted"
    ]


def test_what_the_store_has_lost_proves_nothing(sqlite_site: Site, tapes: Tapes) -> None:
    site = sqlite_site
    brought(site, "1")
    library = Library(site, tapes)
    library.do("lose", "/UROOT/kept/1")
    assert why(evict(site, KB, least=1)) == {Why.UNPROVEN: 1}
    assert left(site, "b:new") == ["1"]


def test_a_store_that_is_down_proves_nothing_and_nothing_goes(sqlite_site: Site, tapes: Tapes) -> None:
    site = sqlite_site
    brought(site, "1")
    library = Library(site, tapes)
    library.do("set", "down", "yes")
    assert why(evict(site, KB, least=1)) == {Why.UNPROVEN: 1}
    assert site.value("SELECT count(*) FROM copies WHERE trouble IS NOT NULL") == 0
    library.do("set", "down", "no")
    assert paths(evict(site, KB, least=1)) == ["new/1"]
