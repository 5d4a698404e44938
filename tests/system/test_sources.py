"""Sources that change, hide or are somewhere else: nothing wrong is proven, and nothing is concluded from nothing."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from stager.samples import Exposure, Visit, write_focal_plane, write_visit
from tests.system.checker import check, connection
from tests.system.sites import Site
from tests.system.tracing import traced


def test_a_file_that_changes_while_it_is_copied_is_copied_as_it_ends(site: Site) -> None:
    file = site.write("lsst10", "raw/log.dat", os.urandom(1 << 20) * 20)
    site.write("lsst10", "raw/calm.dat", b"calm" * 100)
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    site.more = '[routes."lsst10 > abe"]\nbytes_per_s = 10_000_000\n'  # so that it grows while it is copied
    site.configure()
    assert site.run("submit", "job.toml").code == 0
    stop = threading.Event()

    def grow() -> None:
        with file.open("ab") as growing:
            while not stop.wait(0.01):
                growing.write(os.urandom(10))
                growing.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        daemon = site.start("daemon")
        site.until(lambda: sum(one["kind"] == "source changed" for one in site.show("job")["attempts"]) >= 2)
        assert not (site.root("abe") / "new/log.dat").exists()
    finally:
        stop.set()
        writer.join()
    site.remember(file)
    site.until(lambda: site.status("job")["state"] == "complete")
    daemon.kill(signal.SIGTERM)
    assert daemon.end().code == 0
    check(site)
    kinds = {one["kind"] for one in site.show("job")["attempts"] if one["outcome"] == "failed"}
    assert kinds == {"source changed"}


def test_a_root_that_is_not_mounted_is_down_and_not_empty(site: Site) -> None:
    for number in range(5):
        site.write("lsst10", f"raw/f{number}.dat", b"x" * (1000 + number))
    for name, source, to in (("first", "lsst10:raw/f0.dat", "abe:first"), ("job", "lsst10:raw/**", "abe:new")):
        site.manifest(name, source=source, destination=to, trigger={"queue": "pipeline"})
    site.manifest("store", kind="archive", source="lsst10:raw/**", destination="mss:new")
    assert site.run("run", "first.toml").code == 0
    assert site.run("submit", "job.toml", "store.toml").code == 0
    away = site.root("abe").rename(site.root("abe").with_name("abe-away"))
    site.root("abe").mkdir()
    ended = site.run("daemon", "--once")
    assert ended.code == 1
    assert site.status("store")["state"] == "complete", "another route was held up"
    row = site.status("job")
    assert (row["state"], row["percent"]) == ("waiting", 0.0)
    assert "host down" in row["last_error"]
    assert site.status("first")["percent"] == 100.0, "what is proven is not forgotten with a mount"
    assert not list(site.root("abe").iterdir()), "something was written where nothing is mounted"
    assert site.run("verify", "first").code == 1
    assert site.run("hosts", "--check").code == 1
    with connection(site) as reading:
        assert reading("SELECT count(*) FROM items WHERE tries > 0 OR state = 'held'") == [(0,)]
        assert reading("SELECT count(*) FROM copies WHERE trouble IS NOT NULL") == [(0,)]
    site.root("abe").rmdir()
    away.rename(site.root("abe"))
    assert site.run("retry", "job").code == 0
    check(site)


def test_a_source_that_is_not_mounted_has_not_lost_its_files(site: Site) -> None:
    for number in range(5):
        site.write("lsst10", f"raw/f{number}.dat", b"x" * (1000 + number))
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    assert site.run("submit", "job.toml").code == 0
    away = site.root("lsst10").rename(site.root("lsst10").with_name("lsst10-away"))
    site.root("lsst10").mkdir()
    assert site.run("daemon", "--once").code == 1
    row = site.status("job")
    assert (row["files"]["waiting"], row["files"]["missing"], row["files"]["held"]) == (5, 0, 0)
    again = site.run("submit", "job.toml")
    assert again.code in (1, 2)
    assert "host down" in again.err
    assert not list(site.root("lsst10").iterdir())
    site.root("lsst10").rmdir()
    away.rename(site.root("lsst10"))
    assert site.run("retry", "job").code == 0
    check(site)


def test_a_file_that_is_gone_is_counted_as_missing_until_it_is_back(site: Site) -> None:
    for number in range(3):
        site.write("lsst10", f"raw/f{number}.dat", b"x" * (1000 + number))
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    assert site.run("submit", "job.toml").code == 0
    file = site.root("lsst10") / "raw/f1.dat"
    away = file.rename(site.folder.with_name("away.dat"))
    assert site.run("daemon", "--once").code == 3
    assert site.status("job")["files"]["missing"] == 1
    assert site.run("queue", "claim", "pipeline").code == 3
    away.rename(file)
    check(site)


@pytest.mark.usefixtures("strace")
def test_one_hung_route_does_not_hold_up_another(site: Site, tmp_path: Path) -> None:
    hung = site.write("lsst10", "slow/hangs.dat", b"h" * 5000)
    for number in range(20):
        site.write("lsst10", f"raw/f{number}.dat", b"x" * (1000 + number))
    site.manifest("hung", source="lsst10:slow/**", destination="abe:slow", trigger={"queue": "pipeline"})
    site.manifest("job", "incoming", kind="archive", source="lsst10:raw/**", destination="mss:new")
    assert site.run("submit", "hung.toml").code == 0
    late = (site.folder / "incoming/job.toml").rename(site.folder / "late.toml")
    daemon = site.start("daemon", waits=True)
    calls = "read,preadv,pread64"
    options = [f"-einject={call}:delay_enter=600000000" for call in calls.split(",")]
    log = tmp_path / "log"
    with traced(daemon.pid, log, f"-etrace={calls}", "-P", str(hung), *options):
        daemon.kill(signal.SIGUSR1)
        site.until(lambda: site.status("hung")["state"] == "running")
        late.rename(site.folder / "incoming/job.toml")
        site.until(lambda: (row := site.status("job")) and row["state"] == "complete")
        assert site.status("hung")["state"] == "running"
        daemon.kill(signal.SIGKILL)
    daemon.end()
    check(site)


@pytest.mark.slow
def test_the_whole_chain_from_chop_to_restore(site: Site) -> None:
    """chop -> copy -> archive -> lost at abe -> restore -> claim, for focal planes and a visit of ImSim."""
    for obsid in (1038843, 1038844):
        site.root("lsst10").joinpath("D3").mkdir(exist_ok=True)
        site.remember(write_focal_plane(site.root("lsst10") / f"D3/{obsid}o.fits", Exposure(obsid=obsid), rows=33))
    written = write_visit(site.root("lsst10") / "imsim", Visit(sensors=("00", "01")))
    site.remember(*(site.root("lsst10") / "imsim" / path for path in written))
    per_visit = {"queue": "pipeline", "per": ["visit"]}
    chop = {"kind": "chop", "camera": "cfht_megacam", "source": "lsst10:D3/*o.fits", "destination": "lsst10:chopped"}
    site.manifest("chop", **chop, trigger=per_visit)
    site.manifest("imsim", camera="lsst_imsim", source="lsst10:imsim/**", destination="abe:imsim", trigger=per_visit)
    site.manifest("copy", source="lsst10:chopped/**", destination="abe:pipe", trigger={"queue": "pipeline"})
    site.manifest("archive", kind="archive", source="lsst10:chopped/**", destination="mss:pipe")
    site.manifest(
        "restore", kind="restore", source="mss:pipe/**", destination="abe:pipe2", trigger={"queue": "pipeline"}
    )
    assert site.start("run", "chop.toml", "imsim.toml").end().code == 0
    pieces = list(site.root("lsst10").glob("chopped/**/*.fits"))
    assert len(pieces) == 144
    site.remember(*pieces)
    assert site.start("run", "copy.toml", "archive.toml").end().code == 0
    site.remember(*site.root("mss").glob("pipe/**/*.fits"))
    for file in list(site.root("abe").glob("pipe/**/*.fits"))[::2]:
        file.unlink()
    verified = site.run("verify", "copy", "--json")
    assert verified.code == 1
    assert len(verified.json()["troubles"]) == 72
    assert site.run("retry", "copy").code == 0
    assert site.start("restore", "restore.toml").end().code == 0
    check(site)
    claimed = []
    while (ended := site.run("queue", "claim", "pipeline", "--json")).code == 0:
        event = ended.json()
        claimed.append((event["subject"], event["data"]["files"]))
        assert site.run("queue", "ack", "pipeline", event["id"]).code == 0
    assert ended.code == 3
    assert sorted(claimed) == [
        ("chop/visit=1038843", 72), ("chop/visit=1038844", 72), ("copy", 144),
        ("imsim/visit=85471048", len(written)), ("restore", 144),
    ]  # fmt: skip
    check(site)
