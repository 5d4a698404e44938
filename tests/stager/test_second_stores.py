"""A second store gets the same files; two copies that are lost together are not two."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from manifests.errors import ManifestError
from manifests.manifest import Manifest
from stager import breakers, items, second_stores
from stager.config import parse_config
from stager.daemon import Daemon
from stager.database import open_database
from stager.opening import Hosts
from stager.working import claim
from tests.stager.site import Site, configuration
from transfers.errors import Refused

ELSEWHERE = Path("/dev/shm")  # noqa: S108  another file system than that of temporary files, on any Linux


def with_vault(folder: Path, url: str, vault: Path) -> Site:
    config = configuration(folder, url)
    said: dict[str, Any] = config.model_dump(exclude={"path"}, exclude_unset=True)
    said["hosts"]["vault"] = {"kind": "store", "driver": "directory", "root": str(vault)}
    return Site(folder, open_database(url), parse_config(said, config.path))


@pytest.fixture
def vault(tmp_path: Path, require: Callable[[str], NoReturn]) -> Iterator[Path]:
    """A folder on another file system."""
    if not ELSEWHERE.is_dir() or ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        require("there is no second file system")
    folder = ELSEWHERE / f"stager-test-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.fixture
def two_stores(tmp_path: Path, url: str, vault: Path) -> Iterator[Site]:
    site = with_vault(tmp_path, url, vault)
    yield site
    site.hosts.close()
    site.database.close()


def archive(site: Site, **said: Any) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.file("a:raw/large", os.urandom(5000))
    site.run(**{"kind": "archive", "destination": "mss:kept", "second": "vault"} | said)


def inside(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file() and ".stager" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("bundle", [None, {"below": 5000}], ids=["as they are", "bundled"])
def test_both_stores_have_the_same_bytes(two_stores: Site, vault: Path, bundle: dict[str, int] | None) -> None:
    site = two_stores
    archive(site, bundle=bundle)
    assert set(site.states().values()) == {"done"}
    assert inside(vault) == inside(site.path("mss:"))
    assert len(inside(vault)) == 3
    copies = site.rows("SELECT host, path, size, digest FROM copies WHERE host IN ('mss', 'vault') ORDER BY host, path")
    assert [row[1:] for row in copies if row[0] == "mss"] == [row[1:] for row in copies if row[0] == "vault"]
    assert len(copies) == 6


def test_what_was_archived_is_restored_from_the_second_store(two_stores: Site) -> None:
    site = two_stores
    archive(site, bundle={})
    site.run("back", kind="restore", source="vault:kept/**", destination="b:again")
    assert site.path("b:again/1").read_bytes() == site.path("a:raw/1").read_bytes()


def test_item_is_not_done_before_it_is_proven_at_both(two_stores: Site, vault: Path) -> None:
    site = two_stores
    (vault / "kept").mkdir()
    (vault / "kept" / "1").write_text("another file")
    archive(site)
    assert site.states() == {"raw/1": "held", "raw/2": "done", "raw/large": "done"}


@pytest.mark.parametrize("there", [("1",), ("1", "2")], ids=["some", "all"])
def test_what_the_first_store_has_already_is_bundled_onto_the_second(
    two_stores: Site, vault: Path, there: tuple[str, ...]
) -> None:
    site = two_stores
    for name in there:
        site.files(f"a:raw/{name}")
        site.file(f"mss:kept/{name}", site.path(f"a:raw/{name}").read_bytes())
    archive(site, bundle={"below": 5000})
    assert set(site.states().values()) == {"done"}
    copies = site.rows("SELECT path, bundle_id IS NOT NULL FROM copies WHERE host = 'vault' ORDER BY path")
    assert [tuple(row) for row in copies] == [("kept/1", True), ("kept/2", True), ("kept/large", False)]
    site.run("back", kind="restore", source="vault:kept/**", destination="b:again")
    assert site.path("b:again/1").read_bytes() == site.path("a:raw/1").read_bytes()
    assert site.value("SELECT count(*) FROM bundles WHERE state <> 'stored'") == 0


def test_bundle_that_the_second_store_could_not_take_is_brought_there_later(two_stores: Site, vault: Path) -> None:
    site = two_stores
    (vault / "kept").write_text("where the folder should be")
    archive(site, bundle={"below": 10_000})
    assert "done" not in site.states().values()
    assert site.value("SELECT count(*) FROM copies WHERE host = 'mss'") == 3
    (vault / "kept").unlink()
    site.change("UPDATE items SET state = 'waiting', not_before = 0")
    site.work()
    assert set(site.states().values()) == {"done"}
    assert len(inside(vault)) == 2
    assert inside(vault) == inside(site.path("mss:"))
    assert site.value("SELECT count(*) FROM copies WHERE host = 'vault' AND bundle_id IS NOT NULL") == 3


@pytest.mark.parametrize("bundle", [None, {}], ids=["as they are", "bundled"])
def test_second_store_that_was_down_is_looked_at_again_and_goes_on(
    two_stores: Site, vault: Path, bundle: dict[str, int] | None
) -> None:
    site = two_stores
    archive(site, bundle=bundle)
    site.files("a:raw/3")
    away = vault.rename(vault.with_name(f"{vault.name}.away"))
    site.submit(kind="archive", destination="mss:kept", second="vault", bundle=bundle)
    Daemon(site.database, site.config, spool=False).run(once=True)
    assert site.states()["raw/3"] == "waiting"
    assert breakers.known(site.database)["vault"].breaker.kind == "host down"
    away.rename(vault)
    Daemon(site.database, site.config, spool=False).run(once=True)
    assert set(site.states().values()) == {"done"}
    assert inside(vault) == inside(site.path("mss:"))
    assert breakers.known(site.database)["vault"].breaker.looks == 0


def test_second_store_that_goes_down_on_the_way_uses_up_no_try(two_stores: Site, vault: Path) -> None:
    site = two_stores
    archive(site, bundle={})
    site.files("a:raw/3", "a:raw/4")
    said = {"kind": "archive", "destination": "mss:kept", "second": "vault", "bundle": {}}
    site.submit(**said)
    manifest = site.manifest(**said)
    number = site.value("SELECT max(id) FROM manifests")
    claimed, chosen = claim(site.database, number, manifest, "worker", most=9, most_bytes=1 << 30, lease_s=60.0)
    away = vault.with_name(f"{vault.name}.away")
    batch = site.carry_out(manifest, claimed, lambda: vault.rename(away), chosen)
    away.rename(vault)
    assert batch.troubles.keys() == {"vault"}
    waiting = site.rows(f"SELECT tries, not_before <= {site.database.now} FROM items WHERE state = 'waiting'")
    assert [tuple(row) for row in waiting] == [(0, True), (0, True)]
    site.work()
    assert set(site.states().values()) == {"done"}
    assert inside(vault) == inside(site.path("mss:"))


def test_file_of_the_second_store_is_in_the_way_of_a_bundles_member(two_stores: Site, vault: Path) -> None:
    site = two_stores
    (vault / "kept").mkdir()
    (vault / "kept" / "1").write_text("another file")
    archive(site, bundle={"below": 10_000})
    assert site.states() == {"raw/1": "held", "raw/2": "done", "raw/large": "done"}
    assert site.rows("SELECT 1 FROM copies WHERE host = 'vault' AND path = 'kept/1'") == []


def test_a_second_store_that_is_read_only_is_in_trouble_and_no_item_pays(
    two_stores: Site, vault: Path, require: Callable[[str], NoReturn]
) -> None:
    site = two_stores
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "stager-test", str(vault)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        require("no file system can be mounted here")
    try:
        site.files("a:raw/1", "a:raw/2")
        site.submit(kind="archive", destination="mss:kept", second="vault")
        (work,) = items.claimable(site.database)
        assert site.hosts["vault"].root
        subprocess.run(["mount", "-o", "remount,ro", str(vault)], check=True)
        manifest = Manifest.from_canonical(items.document(site.database, work.manifest_id))
        batch = site.carry_out(manifest, site.claim())
    finally:
        subprocess.run(["umount", str(vault)], check=True)
    assert {name: trouble.kind for name, trouble in batch.troubles.items()} == {"vault": "read-only"}
    assert site.rows("SELECT DISTINCT state, tries FROM items") == [("waiting", 0)]


def test_second_store_on_the_same_file_system_is_refused(tmp_path: Path, made_sqlite: str) -> None:
    (tmp_path / "beside").mkdir()
    site = with_vault(tmp_path, made_sqlite, tmp_path / "beside")
    with pytest.raises(ManifestError, match="one file system"):
        archive(site)
    with pytest.raises(Refused, match="lost together"):
        second_stores.check_apart(site.hosts["mss"], site.hosts["vault"])
    site.hosts.close()
    site.database.close()


def test_one_folder_under_two_names_is_no_second_store(tmp_path: Path, made_sqlite: str) -> None:
    site = with_vault(tmp_path, made_sqlite, tmp_path / "hosts" / "mss")
    with pytest.raises(ManifestError, match="one folder"):
        archive(site)
    site.hosts.close()
    site.database.close()


def test_dry_run_sees_one_folder_under_two_names_and_marks_it_not(tmp_path: Path, made_sqlite: str) -> None:
    site = with_vault(tmp_path, made_sqlite, tmp_path / "hosts" / "mss")
    site.files("a:raw/1")
    site.hosts = Hosts(site.database, site.config, marks=False)
    with pytest.raises(ManifestError, match="one folder"):
        site.submit(kind="archive", destination="mss:kept", second="vault", dry_run=True)
    assert not list(tmp_path.rglob(".stager"))
    site.hosts.close()
    site.database.close()


def test_store_that_cannot_be_opened_refuses_nothing_at_submission(two_stores: Site, vault: Path) -> None:
    site = two_stores
    vault.rmdir()
    site.files("a:raw/1")
    assert site.submit(kind="archive", destination="mss:kept", second="vault").changed
    vault.mkdir()
