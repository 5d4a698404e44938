"""What people bring files over SSH with instead: each as its manual has it, with the same key to the same server."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import paramiko

from benchmarks.measuring import environment
from benchmarks.sets import Work

PATIENCE_S = 1800.0  # for a way that may have stopped moving
# For OpenSSH servers rclone's manual advises chunks of 255 KiB, far quicker than its 32 where round trips are long.
RCLONE_CHUNK = "255k"


def program(arguments: Sequence[str | Path]) -> None:
    """Run a program to its end. CalledProcessError, with what it said, when it fails."""
    subprocess.run(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        check=True,
        timeout=PATIENCE_S,
    )


def rsync(work: Work, *options: str) -> None:
    shell = f"ssh -F {shlex.quote(work.host.config)}"
    program(["rsync", "-a", *options, "-e", shell, *_from_and_to(work)])


def rsync_fsync(work: Work) -> None:
    rsync(work, "--fsync")


def scp(work: Work) -> None:
    program(["scp", "-q", "-r", "-F", work.host.config, *_from_and_to(work)])


def _from_and_to(work: Work) -> tuple[str, str]:
    """data and the folder that it comes into, one of them far away."""
    far = f"{work.host.alias}:"
    return (f"{work.root}/data", f"{far}{work.out}/") if work.up else (f"{far}{work.root}/data", f"{work.out}/")


def rclone(work: Work) -> None:
    """It verifies: after each file, the far side's md5sum or sha1sum against its own."""
    here, there = (work.root, work.out) if work.up else (work.out, work.root)
    ends = [f"{here}/data", f"far:{there}/data"]
    program([_rclone(), "--config", _rclone_config(work), "copy", *(ends if work.up else reversed(ends))])


def know_far_side(work: Work) -> None:
    """Have rclone find out, as it does once, which programs make checksums there; its configuration keeps them."""
    config = _rclone_config(work)
    if not config.exists():
        login = work.host.login
        said = {
            "type": "sftp",
            "host": login.address,
            "port": login.port,
            "user": login.user,
            "key_file": login.identity,
            "known_hosts_file": login.known_hosts,
            "shell_type": "unix",
            "chunk_size": RCLONE_CHUNK,
        }
        config.write_text("[far]\n" + "".join(f"{key} = {value}\n" for key, value in said.items()), "utf-8")
        program([_rclone(), "--config", config, "md5sum", f"far:{work.root / work.names[0]}"])


def _rclone_config(work: Work) -> Path:
    return work.place.folder / f"rclone.{work.host.port}.conf"


def _rclone() -> str:
    """Beside this Python first: it comes from the package index, with the other tools of the tests."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise FileNotFoundError("rclone is not installed")
    return found


def paramiko_one_by_one(work: Work) -> None:
    """One connection, one session, file after file, by `put` and `get`: what a script of twenty lines does."""
    login = work.host.login
    with paramiko.SSHClient() as client:
        client.load_host_keys(login.known_hosts)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            login.address,
            login.port,
            login.user,
            key_filename=login.identity,
            allow_agent=False,
            look_for_keys=False,
        )
        with client.open_sftp() as sftp:
            made: set[Path] = set()
            for name in work.names:
                for folder in reversed(Path(name).parents[:-1]):
                    if folder not in made:
                        made.add(folder)
                        if work.up:
                            sftp.mkdir(f"{work.out / folder}")
                        else:
                            (work.out / folder).mkdir()
                copied = sftp.put if work.up else sftp.get
                copied(f"{work.root / name}", f"{work.out / name}")
