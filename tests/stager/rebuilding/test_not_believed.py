"""What cannot be believed is named, gets nowhere, and holds up no other; two files of one path are told."""

from __future__ import annotations

import io
import shutil
import tarfile

import pytest

from stager.rebuilding.rebuild import Rebuild
from tests.stager.rebuilding.packed import (
    break_last_member,
    bundle,
    copies,
    flip,
    forget,
    index_of,
    known_bundle,
    logical,
    run,
    store_of,
    whats,
)
from tests.stager.site import Site
from transfers.errors import HostDown, TransferError


def test_a_bundle_of_which_nothing_can_be_believed_is_named_and_not_added(site: Site) -> None:
    bad = bundle(site, "visit=1", "raw/a", "raw/b")
    good = bundle(site, "visit=2", "raw/c")
    index_of(bad).unlink()
    break_last_member(bad)
    told = run(site)
    assert sorted(whats(told)) == ["added", "trouble"]
    (trouble,) = [one for one in told if one.what == "trouble"]
    assert trouble.path.endswith(bad.name)
    assert "there is no index beside it" in trouble.text
    assert logical(site) == ["raw/c"]
    assert not index_of(bad).exists()
    assert index_of(good).exists()


@pytest.mark.parametrize("known", [False, True])
def test_a_bundle_that_was_cut_off_is_named(site: Site, known: bool) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    if known:
        run(site)
    with open(file, "rb+") as opened:
        opened.truncate(file.stat().st_size - 5000)
    told = run(site)
    assert whats(told) == ["trouble"]
    assert "bytes" in told[0].text
    assert len(copies(site)) == (2 if known else 0)
    if known:
        assert "had" in str(site.value("SELECT trouble FROM bundles"))


@pytest.mark.parametrize("known", [False, True])
def test_a_member_with_a_flipped_bit_is_found_by_a_deep_pass(site: Site, known: bool) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    if known:
        run(site)
    flip(file, 520)
    assert "trouble" not in whats(run(site))
    if not known:
        forget(site)
    told = run(site, deep=True)
    assert whats(told) == (["trouble"] if known else ["trouble", "added"])
    assert "raw/a does not have the digest" in told[0].text
    proofs = {path: row[-1] for path, row in copies(site).items()}
    assert proofs == {"raw/b": "reread"} | ({"raw/a": "index"} if known else {})  # one bad member keeps no other away


def test_a_rotten_member_is_served_from_the_bundle_that_has_it_sound(site: Site) -> None:
    rotten = bundle(site, "visit=1", "raw/a", "raw/b")
    sound = bundle(site, "visit=2", "raw/a")
    flip(rotten, 520)
    run(site, deep=True)
    assert {path: row[0].rpartition("/")[2] for path, row in copies(site).items()} == {
        "raw/a": sound.name,
        "raw/b": rotten.name,
    }


def test_no_index_is_made_of_a_bundle_with_a_rotten_member_whose_digest_nobody_knows(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    index_of(file).unlink()
    flip(file, 520)
    assert whats(run(site, deep=True)) == ["trouble", "added"]
    assert not index_of(file).exists()
    assert list(copies(site)) == ["raw/b"]


def test_a_bundle_whose_headers_are_others_than_its_indexes_say_is_not_added(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    flip(file, 1)
    told = run(site)
    assert whats(told) == ["trouble"]
    assert copies(site) == {}


def test_hostile_tars_under_a_bundles_name_do_not_get_in(site: Site) -> None:
    good = bundle(site, "visit=2", "raw/c")
    folder = good.parent
    for number, name in enumerate(("../../climbs", "/etc/passwd", "raw/c")):
        with tarfile.open(folder / f"bad{number}.{number:012x}.stager.tar", "w") as tar:
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"root"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(link)
    (folder / "bad9.000000000009.stager.tar").write_bytes(b"")
    told = run(site, deep=True)
    assert sorted(whats(told)) == ["added", "trouble", "trouble", "trouble", "trouble"]
    assert list(copies(site)) == ["raw/c"]


def test_a_bundle_that_was_renamed_is_told_its_name(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a")
    index_of(file).rename(index_of(file).with_name("visit=1.0123456789ab.stager.tar.index"))
    file.rename(file.with_name("visit=1.0123456789ab.stager.tar"))
    told = run(site)
    assert whats(told) == ["trouble"]
    assert "give it that name again" in told[0].text
    assert file.name in told[0].text


def test_a_bundle_that_is_gone_is_told_and_stays_known(site: Site) -> None:
    file = known_bundle(site)
    file.unlink()
    told = run(site)
    assert [(one.what, one.text) for one in told] == [("trouble", "it is not there, and was proven there")]
    assert len(copies(site)) == 2
    assert site.value("SELECT trouble FROM bundles") == "it is not there, and was proven there"


def test_an_index_without_its_bundle_is_told(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a")
    file.unlink()
    told = run(site)
    assert [(one.what, one.path.endswith(".index")) for one in told] == [("trouble", True)]


def test_a_store_that_is_down_is_no_empty_store(site: Site) -> None:
    known_bundle(site)
    store = store_of(site)
    shutil.rmtree(site.path("mss:"))
    site.path("mss:").mkdir()  # the folder beneath a mount
    with pytest.raises(HostDown):
        store_of(site)
    with pytest.raises(TransferError):
        list(Rebuild(site.database, store).run())
    assert site.value("SELECT count(*) FROM bundles WHERE trouble IS NOT NULL") == 0
