"""A source that Stager itself proved once must still hold what was proven: rot is not handed on as proven."""

from __future__ import annotations

import os

from tests.stager.site import Site


def rot(site: Site, place: str) -> None:
    """Change one byte; size and time stay as they were."""
    path = site.path(place)
    info = path.stat()
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def archived(site: Site) -> None:
    site.files("a:raw/good.dat", "a:raw/bad.dat")
    site.run("in", kind="archive", source="a:raw", destination="mss:raw", trigger=None)


def test_rot_in_the_store_is_not_restored(site: Site) -> None:
    archived(site)
    rot(site, "mss:raw/bad.dat")
    site.run("out", kind="restore", source="mss:raw", destination="b:raw", trigger=None)
    assert site.states("out") == {"raw/good.dat": "done", "raw/bad.dat": "held"}
    assert not site.path("b:raw/bad.dat").exists()
    assert "source corrupt" in site.value("SELECT reason FROM items WHERE state = 'held'")


def test_an_archived_file_that_was_rewritten_is_not_restored(sqlite_site: Site) -> None:
    archived(sqlite_site)
    sqlite_site.file("mss:raw/bad.dat", "another file")
    sqlite_site.run("out", kind="restore", source="mss:raw", destination="b:raw", trigger=None)
    assert sqlite_site.states("out")["raw/bad.dat"] == "held"


def test_rot_in_a_copy_is_not_copied_on(sqlite_site: Site) -> None:
    sqlite_site.files("a:raw/good.dat", "a:raw/bad.dat")
    sqlite_site.run("first", source="a:raw", destination="b:raw", trigger=None)
    rot(sqlite_site, "b:raw/bad.dat")
    sqlite_site.run("second", source="b:raw", destination="c:raw", trigger=None)
    assert sqlite_site.states("second") == {"raw/good.dat": "done", "raw/bad.dat": "held"}


def test_a_copy_that_was_rewritten_on_purpose_is_copied_as_it_is(sqlite_site: Site) -> None:
    sqlite_site.file("a:raw/x.dat", "first")
    sqlite_site.run("first", source="a:raw", destination="b:raw", trigger=None)
    sqlite_site.file("b:raw/x.dat", "second, longer")
    sqlite_site.run("second", source="b:raw", destination="c:raw", trigger=None)
    assert sqlite_site.states("second") == {"raw/x.dat": "done"}
    assert sqlite_site.path("c:raw/x.dat").read_text() == "second, longer"
