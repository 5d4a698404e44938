"""The spool folder of a running daemon."""

from __future__ import annotations

import signal
import time

from tests.system.checker import check, connection
from tests.system.sites import Running, Site, manifest_text
from tests.waiting import until

SEEN_S = 1.0  # from the drop to the submission


def running_daemon(site: Site) -> Running:
    for number in range(3):
        site.write("lsst10", f"raw/f{number}.dat", b"x" * (1000 + number))
    site.configure(walk_s=600.0)  # so that only what is seen at once is seen
    daemon = site.start("daemon")
    site.until(lambda: "event=started" in daemon.err)
    time.sleep(1)
    return daemon


def text(name: str, source: str = "lsst10:raw/**") -> str:
    return manifest_text(name, source=source, destination=f"abe:{name}", trigger={"queue": "pipeline"})


def end(site: Site, daemon: Running) -> None:
    daemon.kill(signal.SIGTERM)
    assert daemon.end().code == 0
    check(site)


def submitted_at(site: Site, name: str) -> float:
    """When the database first had the manifest, Unix seconds."""
    site.until(lambda: site.status(name))
    with connection(site) as reading:
        return float(reading(f"SELECT submitted_at FROM manifests WHERE name = '{name}'")[0][0])


def test_a_manifest_is_seen_within_a_second(site: Site) -> None:
    daemon = running_daemon(site)
    seen_s: list[float] = []

    def is_seen_soon() -> bool:  # each is seen, and one in time: a busy machine may hold up others
        name, dropped = f"job{len(seen_s)}", time.time()
        (site.folder / f"incoming/{name}.toml").write_text(text(name))
        seen_s.append(submitted_at(site, name) - dropped)
        return seen_s[-1] < SEEN_S

    for _ in range(3):
        until(is_seen_soon, lambda: seen_s)
    site.until(lambda: all(row["state"] == "complete" for row in site.status()["datasets"]))
    end(site, daemon)


def test_a_half_written_manifest_is_left_alone_until_it_is_whole(site: Site) -> None:
    daemon = running_daemon(site)
    whole = text("job")
    with (site.folder / "incoming/job.toml").open("w") as file:
        file.write(whole[:40])
        file.flush()
        time.sleep(2.5)
        found = site.status()
        assert (found["datasets"], found["refused"]) == ([], [])
        file.write(whole[40:])
    assert submitted_at(site, "job")  # and the next walk is ten minutes away
    site.until(lambda: site.status("job")["state"] == "complete")
    end(site, daemon)


def test_many_dropped_at_once_are_all_taken(site: Site) -> None:
    daemon = running_daemon(site)
    for number in range(20):
        hidden = site.folder / f"incoming/.job{number}.toml.new"
        hidden.write_text(text(f"job{number}"))
        hidden.rename(site.folder / f"incoming/job{number}.toml")
    site.until(lambda: sum(row["state"] == "complete" for row in site.status()["datasets"]) == 20)
    assert site.status()["refused"] == []
    end(site, daemon)


def test_a_refused_one_is_shown_and_taken_once_it_is_mended(site: Site) -> None:
    daemon = running_daemon(site)
    path = site.folder / "incoming/job.toml"
    path.write_text(text("job") + "[triger]\nqueue = 1\n")
    (refused,) = site.until(lambda: site.status()["refused"])
    assert refused["file"].endswith("job.toml")
    assert "triger" in refused["problem"]
    assert "job.toml" in site.run("status").out
    path.write_text(text("job"))
    site.until(lambda: (row := site.status("job")) and row["state"] == "complete")
    site.until(lambda: not site.status()["refused"])
    end(site, daemon)
