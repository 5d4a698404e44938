"""The PT1 set-up from one daemon, with nothing installed on the far sides: every kind of manifest, every command."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from stager.samples import Exposure, write_focal_plane
from tests.sshd import Sshd
from tests.system.checker import check, connection
from tests.system.far import FAR, TRIGGER, Pt1, nothing_burnt, skipping_waits
from tests.system.preloaded import Preloaded
from tests.system.sites import sha256

PER_VISIT = {"queue": "pipeline", "per": ["visit"]}
CHOP = {"kind": "chop", "camera": "cfht_megacam", "trigger": PER_VISIT}
SECRET = "planted-in-the-environment-6c1f"


def focal_planes(pt1: Pt1, host: str, folder: str = "D3", rows: int = 33) -> int:
    """A focal plane as it is and one packed; the bytes that their pieces hold."""
    place = pt1.root(host) / folder
    place.mkdir(parents=True)
    files = [place / "1038843o.fits", place / "1038844o.fits.gz"]
    write_focal_plane(files[0], rows=rows)
    with gzip.open(files[1], "wb", compresslevel=1) as packed:
        plain = write_focal_plane(pt1.folder.with_name("plain.fits"), Exposure(obsid=1038844), rows=rows)
        packed.write(plain.read_bytes())
    pt1.remember(*files)
    return files[0].stat().st_size + plain.stat().st_size


def chopped(root: Path) -> dict[str, str]:
    return {str(file.relative_to(root)): sha256(file) for file in root.rglob("*.fits")}


def test_focal_planes_are_chopped_where_they_lie_as_they_would_be_here(pt1: Pt1) -> None:
    """The pieces of a far host are those of this one, byte for byte, and their pixels cross no network."""
    size = focal_planes(pt1, "lsst10", rows=300)
    pt1.save()
    login = pt1.logins.pop("lsst10")
    pt1.configure()
    pt1.submit("job", "lsst10:D3/*", "lsst10:out", **CHOP)
    assert pt1.run("daemon", "--once").code == 0
    near = chopped(pt1.root("lsst10") / "out")
    pt1.restore()
    pt1.logins["lsst10"] = login
    pt1.submit("job", "lsst10:D3/*", "lsst10:out", **CHOP)
    before = pt1.passed()
    with pt1.daemon():
        pt1.until_complete()
    assert 0 < pt1.passed() - before < size / 8, "pixels crossed the network"
    assert len(near) == 144
    assert chopped(pt1.root("lsst10") / "out") == near
    check(pt1)


def test_one_daemon_serves_the_hosts_of_pt1(pt1: Pt1) -> None:
    """chop, copy up, down and between, archive, restore; triggers with inventories there; every command that looks."""
    focal_planes(pt1, "lsst10")
    pt1.fill("here", "cal", 30, 20_000)
    pt1.fill("abe", "results", 30, 20_000)
    pt1.manifest("chop", source="lsst10:D3/*", destination="lsst10:out", **CHOP)
    pt1.manifest("up", source="here:cal/**", destination="lsst:cal", trigger=TRIGGER)
    pt1.manifest("down", source="abe:results/**", destination="here:results", trigger=TRIGGER)
    pt1.manifest("between", source="lsst10:out/**", destination="lsst:pipe", trigger=TRIGGER)
    pt1.manifest("archive", kind="archive", source="lsst10:out/**", destination="mss:pipe")
    pt1.manifest("restore", kind="restore", source="mss:pipe/**", destination="abe:pipe", trigger=TRIGGER)
    with pt1.daemon() as daemon:
        assert pt1.run("submit", "chop.toml", "up.toml", "down.toml").code == 0
        pt1.until_complete("chop", "up", "down")
        pt1.remember(*(pt1.root("lsst10") / "out").rglob("*.fits"))
        shutil.copy(pt1.folder / "between.toml", pt1.folder / "incoming")
        assert pt1.run("submit", "archive.toml").code == 0
        pt1.until(lambda: pt1.status("between"))
        pt1.until_complete("between", "archive")
        pt1.remember(*pt1.root("mss").rglob("pipe/**/*.fits"))
        restored = pt1.run("restore", "restore.toml")
        assert restored.code == 0, restored.out + restored.err
        assert pt1.complete()
        _claims(pt1)
        _looks(pt1)
        assert "Traceback" not in daemon.err
    assert pt1.passed("mss") > 0
    check(pt1)


def _claims(pt1: Pt1) -> None:
    claimed = {}
    while (ended := pt1.run("queue", "claim", "pipeline", "--json")).code == 0:
        event = ended.json()
        data = event["data"]
        claimed[event["subject"]] = (data["host"], data["files"])
        inventory = pt1.root(data["host"]) / data["inventory"].partition(":")[2]
        proof = subprocess.run(["sha256sum", "-c", "--quiet", inventory], cwd=pt1.root(data["host"]), check=False)
        assert proof.returncode == 0
        assert pt1.run("queue", "ack", "pipeline", event["id"]).code == 0
    assert claimed == {
        "chop/visit=1038843": ("lsst10", 72), "chop/visit=1038844": ("lsst10", 72), "up": ("lsst", 30),
        "down": ("here", 30), "between": ("lsst", 144), "restore": ("abe", 144),
    }  # fmt: skip


def _looks(pt1: Pt1) -> None:
    """Commands that look at far hosts, beside the daemon."""
    for what in ("between", "lsst:cal", "mss:pipe"):
        verified = pt1.run("verify", what)
        assert verified.code == 0, verified.out + verified.err
    seen = pt1.run("hosts", "--check", "--json")
    assert seen.code == 0, seen.out
    for one in seen.json():
        if one["name"] in FAR:
            assert one["up_bytes_per_s"] > 0
            assert one["marker"]
            assert pt1.server.host_key_fingerprint in one["about"]["key"]
    status = pt1.status()
    assert {route["why"] for route in status["routes"]}
    assert all(host["reached"].startswith("openssh") for host in status["hosts"] if host["host"] in FAR)
    damaged = next((pt1.root("lsst") / "cal").rglob("f1.dat"))
    good, info = damaged.read_bytes(), damaged.stat()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(damaged, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert pt1.run("verify", "lsst:cal").code == 1, "a bit that rotted over there was not found"
    damaged.write_bytes(good)
    os.utime(damaged, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert pt1.run("verify", "lsst:cal").code == 0


def test_the_same_on_postgresql(
    tmp_path: Path, preloaded: Preloaded, make_sshd: Callable[..., Sshd], postgres_url: str
) -> None:
    """Up, down and between, with the daemon killed once on the way."""
    pt1 = Pt1(tmp_path / "site", preloaded, make_sshd(), postgres_url)
    try:
        pt1.fill("here", "raw", 60, 50_000)
        pt1.fill("abe", "raw", 60, 50_000)
        pt1.submit("up", "here:raw/**", "lsst:raw")
        pt1.submit("down", "abe:raw/**", "here:down")
        pt1.submit("between", "abe:raw/**", "mss:raw", kind="archive")
        daemon = pt1.start("daemon")
        pt1.until(lambda: pt1.tries().get("done"))
        daemon.kill(signal.SIGKILL)
        daemon.end()
        check(pt1)
    finally:
        pt1.close()


# ------------------------------------------------------------------------------- roots, links, disks


def test_a_far_root_that_is_not_mounted_is_down_and_not_empty(pt1: Pt1) -> None:
    pt1.fill("here", "raw", 5, 1000)
    pt1.submit("first", "here:raw/v0/*", "abe:first")
    assert pt1.run("daemon", "--once").code == 0
    pt1.submit("job", "here:raw/**", "abe:new")
    pt1.submit("other", "here:raw/**", "lsst:new")
    away = pt1.root("abe").rename(pt1.folder.with_name("abe-away"))
    for empty in (False, True):  # the folder is gone, and then there and empty as without its mount
        if empty:
            pt1.root("abe").mkdir()
        assert pt1.run("daemon", "--once").code == 1
        assert pt1.status("other")["state"] == "complete", "another route was held up"
        kind, problem = pt1.trouble("abe")
        assert kind == "host down"
        assert "abe" in problem
        assert "host down" in pt1.status("job")["last_error"]
    assert pt1.run("verify", "first").code == 1
    back = pt1.manifest("back", source="abe:**", destination="here:back")
    refused = pt1.run("submit", "--dry-run", back.name)
    assert refused.code in (1, 2)
    assert "host down" in refused.err
    assert not list(pt1.root("abe").iterdir()), "something was written where nothing is mounted"
    nothing_burnt(pt1)
    with connection(pt1) as query:
        assert query("SELECT count(*) FROM copies WHERE trouble IS NOT NULL") == [(0,)]
    back.unlink()
    pt1.root("abe").rmdir()
    away.rename(pt1.root("abe"))
    check(pt1)


def test_far_links_out_of_the_root_are_not_followed(pt1: Pt1) -> None:
    outside = pt1.folder / "outside"
    pt1.fill("lsst10", "raw", 3, 1000)
    (pt1.root("lsst10") / "raw/out.dat").symlink_to(outside / "witness")
    (pt1.root("lsst10") / "raw/folder").symlink_to(outside)
    pt1.fill("here", "raw", 3, 1000)
    pt1.root("abe").joinpath("new").symlink_to(outside)
    pt1.submit("from", "lsst10:raw/**", "here:new")
    pt1.submit("to", "here:raw/**", "abe:new")
    assert pt1.run("daemon", "--once").code == 1
    row = pt1.status("from")
    assert row["files"]["done"] == 3
    assert not list((pt1.root("here") / "new").rglob("witness"))
    row = pt1.status("to")
    assert (row["state"], row["files"]["held"]) == ("held", 3)
    assert "refused" in row["last_error"] or "conflict" in row["last_error"]
    assert [file.name for file in outside.iterdir()] == ["witness"]
    pt1.root("abe").joinpath("new").unlink()
    for link in ("out.dat", "folder"):
        (pt1.root("lsst10") / "raw" / link).unlink()
    assert pt1.run("release", "to").code == 0
    check(pt1)


@pytest.fixture
def small_abe(pt1: Pt1, require: Callable[[str], NoReturn]) -> Iterator[Path]:
    """The far root of abe as a file system of 4 MB."""
    root = pt1.root("abe")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "stager-test", str(root)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        require(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


def test_a_far_disk_that_is_full_is_waited_for(pt1: Pt1, small_abe: Path) -> None:
    pt1.fill("here", "raw", 8, 1_000_000)
    pt1.submit("job", "here:raw/**", "abe:new")
    pt1.submit("other", "here:raw/**", "lsst:new")
    with pt1.daemon():
        pt1.until(lambda: "no space" in (pt1.status("job")["last_error"] or ""))
        pt1.until_complete("other")
        nothing_burnt(pt1)
        pt1.until(lambda: not list(small_abe.rglob("*.part")))
        subprocess.run(["mount", "-o", "remount,size=40m", str(small_abe)], check=True)
        skipping_waits(pt1)
    check(pt1)


def test_a_far_file_that_changes_while_it_is_read_is_copied_as_it_ends(pt1: Pt1) -> None:
    file = pt1.write("abe", "raw/log.dat", os.urandom(1 << 20) * 20)
    pt1.write("abe", "raw/calm.dat", b"calm" * 100)
    pt1.submit("job", "abe:raw/**", "here:new")
    pt1.proxies["abe"].limit(20_000_000, "down")
    grower = subprocess.Popen(
        ["/bin/sh", "-c", 'while sleep 0.02; do printf xxxxxxxxxx >> "$0"; done', str(file)], start_new_session=True
    )
    try:
        daemon = pt1.start("daemon")
        pt1.until(lambda: sum(one["kind"] == "source changed" for one in pt1.show("job")["attempts"]) >= 2)
        assert not (pt1.root("here") / "new/log.dat").exists()
    finally:
        os.killpg(grower.pid, signal.SIGKILL)
        grower.wait()
    pt1.remember(file)
    pt1.proxies["abe"].limit(None)
    pt1.until_complete()
    daemon.kill(signal.SIGTERM)
    assert daemon.end().code == 0
    check(pt1)
    assert {one["kind"] for one in pt1.show("job")["attempts"] if one["outcome"] == "failed"} == {"source changed"}


ODD = (
    "-oProxyCommand=touch pwned", "with blank", "quote'\"double", "new\nline", "back\\slash", "$(touch pwned)", "`id`",
    ";rm -rf *", "tab\tand\x1bescape", "é".ljust(100, "ü"), "x" * 200, "not\udcffutf8\udcfe", "{a,b}", "*", "~",
)  # fmt: skip


def test_odd_names_come_and_go_as_they_are(pt1: Pt1) -> None:
    """Up, between, down, archived and restored; nothing in a name is ever a command, a pattern or another name."""
    for number, name in enumerate(ODD):
        pt1.write("here", f"raw/{name}/{name}", bytes([number]) * (100 + number))
    pt1.submit("up", "here:raw/**", "lsst:raw")
    with pt1.daemon():
        pt1.until_complete()
        pt1.remember(*(file for file in (pt1.root("lsst") / "raw").rglob("*") if file.is_file()))
        pt1.submit("between", "lsst:raw/**", "abe:raw")
        pt1.submit("archive", "lsst:raw/**", "mss:raw", kind="archive")
        pt1.submit("down", "lsst:raw/**", "here:down")
        pt1.until_complete()
        pt1.remember(*(file for file in (pt1.root("mss") / "raw").rglob("*") if file.is_file()))
        pt1.submit("restore", "mss:raw/**", "abe:back", kind="restore")
        pt1.until_complete()
        assert pt1.run("verify", "between").code == 0
    names = {os.fsencode(file.relative_to(pt1.root("abe") / "back")) for file in (pt1.root("abe") / "back").rglob("*")}
    assert {os.fsencode(f"{name}/{name}") for name in ODD} <= names
    assert not list(pt1.folder.rglob("pwned")), "a name was executed"
    assert not list(pt1.server.home.iterdir())
    check(pt1)


# ---------------------------------------------------------------------------------------- secrets


def test_no_secret_is_told_anywhere(pt1: Pt1) -> None:
    """Neither the private key nor the daemon's environment is in an argument, a log, the database or over there."""
    key = Path(pt1.server.identity).read_text()
    body = [line for line in key.splitlines() if line and "PRIVATE KEY" not in line]
    hidden = [SECRET.encode(), *(line.encode() for line in body if len(line) > 20)]
    assert len(hidden) >= 3
    pt1.over_ssh(pt1.server, "abe", proxy=pt1.proxies["abe"], client="paramiko")
    pt1.fill("here", "raw", 40, 100_000)
    for name in ("lsst", "abe"):
        pt1.submit(name, "here:raw/**", f"{name}:raw")
        pt1.proxies[name].limit(100_000)
    daemon = pt1.start_real("daemon", STAGER_PLANTED=SECRET)
    pt1.until(lambda: len(pt1.clients()) >= 2 and len(pt1.server.commands()) >= 3)
    there = _told(pt1.server.commands())
    here = _told(pt1.clients(), "cmdline")
    assert there
    assert here
    assert not [word for word in hidden if word in there or word in here]
    assert SECRET.encode() in _told([daemon.pid]), "it was not planted"
    for name in ("lsst", "abe"):
        pt1.proxies[name].limit(None)
    pt1.until_complete()
    daemon.kill(signal.SIGTERM)
    ended = daemon.end()
    assert ended.code == 0, ended.err
    check(pt1)
    kept = [pt1.folder, pt1.folder.with_name(pt1.folder.name + ".said"), pt1.server.home]
    for file in (file for folder in kept for file in folder.rglob("*") if file.is_file()):
        data = file.read_bytes()
        assert not [word for word in hidden if word in data], file


def _told(pids: list[int], *names: str) -> bytes:
    """What is to be seen of processes in /proc."""
    said = b""
    for pid in pids:
        for name in names or ("cmdline", "environ"):
            try:
                said += Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:  # it has just ended
                continue
    return said


def test_an_address_that_could_be_an_option_is_refused(pt1: Pt1) -> None:
    for address in ("-oProxyCommand=touch pwned", "a;touch pwned", "$(touch pwned)", "a b"):
        pt1.logins["abe"]["address"] = address
        pt1.configure()
        ended = pt1.run("hosts", "--check")
        assert ended.code == 2
        assert re.search(r"hosts\.abe\.address", ended.err)
    assert not list(pt1.folder.rglob("pwned"))
