"""The spool folder: a manifest is read when it is whole, once, and again when it or the world changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stager import watching
from tests.stager.site import Site
from tests.waiting import LATE_S, until


@pytest.fixture
def spool(site: Site) -> Path:
    folder = site.folder / "incoming"
    folder.mkdir()
    return folder


def put(path: Path, text: str = "name = 'x'\n") -> Path:
    """A file that nobody has touched for a while."""
    path.write_text(text)
    os.utime(path, (time.time() - 60, time.time() - 60))
    return path


def ready(site: Site, spool: Path, *, refused_too: bool = False) -> tuple[list[str], bool]:
    found, unfinished = watching.unread(site.database, spool, refused_too=refused_too)
    return [path.name for path in found], unfinished


def test_manifests_are_found_by_their_names(site: Site, spool: Path) -> None:
    for name in ("b.toml", "a.toml", ".hidden.toml", "notes.txt", "a.toml~"):
        put(spool / name)
    (spool / "dangling.toml").symlink_to("nowhere")
    assert ready(site, spool) == (["a.toml", "b.toml"], False)


def test_a_manifest_that_another_process_is_writing_is_left_alone(site: Site, spool: Path) -> None:
    path = put(spool / "m.toml", "")
    program = "import sys; f = open(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    assert ready(site, spool) == ([], True)
    writer.communicate()
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert ready(site, spool) == (["m.toml"], False)


def test_a_manifest_is_left_alone_until_it_has_been_quiet(
    site: Site, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool / "m.toml")
    os.utime(spool / "m.toml")
    with monkeypatch.context() as patient:
        patient.setattr(watching, "QUIET_S", 1000.0)
        assert ready(site, spool) == ([], True)
    until(lambda: ready(site, spool) == (["m.toml"], False))
    future = time.time() + 3600
    os.utime(spool / "m.toml", (future, future))  # a clock that was wrong must not hold it up for an hour
    assert ready(site, spool) == (["m.toml"], False)


def test_what_was_read_is_read_again_only_when_it_changes(site: Site, spool: Path) -> None:
    path = put(spool / "m.toml")
    watching.remember(site.database, path, path.stat(), None)
    assert ready(site, spool, refused_too=True) == ([], False)
    put(path, "name = 'y'\n# changed\n")
    assert ready(site, spool)[0] == ["m.toml"]


def test_what_was_refused_is_tried_again_at_every_walk_but_not_at_every_hint(site: Site, spool: Path) -> None:
    path = put(spool / "m.toml")
    watching.remember(site.database, path, path.stat(), "unknown host")
    assert ready(site, spool)[0] == []
    assert ready(site, spool, refused_too=True)[0] == ["m.toml"]


def test_a_file_that_is_gone_is_forgotten(site: Site, spool: Path) -> None:
    path = put(spool / os.fsdecode(b"latin-\xe9.toml"))
    watching.remember(site.database, path, path.stat(), "no")
    path.unlink()
    watching.forget_gone(site.database, spool)
    assert site.value("SELECT count(*) FROM spooled") == 0


def is_quiet(hinted: threading.Event) -> bool:
    hinted.clear()
    return not hinted.wait(0.3)


def test_an_event_is_a_hint_and_reading_is_none(tmp_path: Path) -> None:
    hinted = threading.Event()
    spool = watching.Spool(tmp_path / "incoming", hinted.set)
    spool.start()
    try:
        put(tmp_path / "incoming" / "m.toml")
        assert hinted.wait(LATE_S)
        until(lambda: is_quiet(hinted))  # all that putting it there makes has been told
        (tmp_path / "incoming" / "m.toml").read_text()
        assert is_quiet(hinted)
    finally:
        spool.stop()
