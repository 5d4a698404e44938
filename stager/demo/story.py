"""What `stager demo` shows, step by step."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from stager.commands.common import Exit, complain, say
from stager.counts import counted
from stager.demo import checking, tape
from stager.demo.documents import EXPOSURE, HOSTS, Paths, write_folder
from stager.demo.processes import DemoFailed, Shell, ending_on_signals, how_to_call, running_daemon, stop

INTERRUPTED = 130  # what a shell gives for Ctrl-C
DATASET = "CFHTLS D3 raw"


def run_demo(folder: Path | None) -> int:
    """Run the demo in a new folder; its exit status: 0 only when all that it showed was verified.

    Where `folder` is taken already, a new one beside it is used. Nothing that was there is changed.
    """
    try:
        paths = Paths(_new_folder(folder))
        with ending_on_signals():
            return _run(paths)
    except DemoFailed as error:
        complain(f"\nthe demo failed: {error}")
    except OSError as error:
        complain(f"\nthe demo failed: {error}")
    except KeyboardInterrupt:
        complain("\nthe demo was interrupted; its daemon is stopped")
        return INTERRUPTED
    return Exit.FAILED


def _new_folder(folder: Path | None) -> Path:
    """A folder that is empty: the one given, or the next free `folder-2` beside it; else a temporary one."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="stager-demo-")).resolve()
    number, tried = 1, folder
    while True:
        tried.parent.mkdir(parents=True, exist_ok=True)
        try:
            tried.mkdir()
            return tried.resolve()
        except FileExistsError:
            if tried.is_dir() and not any(tried.iterdir()):
                return tried.resolve()
        number += 1
        tried = folder.with_name(f"{folder.resolve().name}-{number}")


def _run(paths: Paths) -> int:
    begun = time.monotonic()
    shell = Shell(paths.folder)
    _paragraph(f"Stager's demo, in {paths.folder}")
    write_folder(paths)
    size = paths.focal_plane.stat().st_size / 1e6
    _paragraph(
        f"lsst10 holds a CFHT focal plane (36 CCDs, {size:.1f} MB) to be chopped, and an ImSim visit of which one "
        "sensor is missing and one has bad times."
    )
    shell.show("hosts", "--check")
    with running_daemon(paths.folder) as daemon:
        _chop(paths, shell)
        _copy(paths, shell)
        _restore(paths, shell)
        event = _trigger(shell)
        _heading("5. What landed, by its headers; and how it all stands")
        shell.show("registry", "check", expected=1)
        shell.show("status")
        _heading("6. The daemon is stopped with SIGTERM, and everything shown is verified")
        shell.tell("kill -TERM %1")
        ended = stop(daemon)
    checks = [checking.ended(ended), checking.event(event), *checking.verify(paths, shell.ask)]
    return _conclude(paths, checks, time.monotonic() - begun)


def _chop(paths: Paths, shell: Shell) -> None:
    _heading("1. The daemon starts; two manifests are dropped into its spool folder")
    shell.tell("stager daemon 2> daemon.log &")
    _drop(paths, shell, "", "cfht-d3-chop", "imsim-lsst")
    shell.show("wait", "cfht-d3-chop", "--timeout", "60")
    _until_done(shell, "imsim-lsst", (checking.SENSORS - 1) * checking.PER_SENSOR)
    shell.show("status")


def _copy(paths: Paths, shell: Shell) -> None:
    _heading("2. The chopped files go to lsst and abe, and to the mass store")
    _drop(paths, shell, "cfht-d3-", "lsst", "abe", "mss")
    shell.show("wait", "cfht-d3-lsst", "cfht-d3-abe", "cfht-d3-mss", "--timeout", "60")
    shell.show("status", DATASET)


def _restore(paths: Paths, shell: Shell) -> None:
    _heading("3. The store writes to tape, abe is cleared; before production, it is restored")
    _to_tape(paths, shell)
    removed = paths.amplifiers["abe"].relative_to(paths.folder)
    shell.tell(f"rm -r {removed}")
    shutil.rmtree(paths.folder / removed)
    shell.show("verify", "cfht-d3-abe", expected=1, most=3)
    shell.show("restore", "manifests/cfht-d3-abe-restore.toml")


def _to_tape(paths: Paths, shell: Shell) -> None:
    """What a tape store does by itself after a while."""
    state = str(paths.folder / "mss")
    shell.tell("python -m stager.demo.tape --state mss migrate --all")
    status = tape.main(["--state", state, "migrate", "--all"])
    if status:
        raise DemoFailed(f"the tape simulator ended with {status}")


def _trigger(shell: Shell) -> Any:
    _heading("4. A pipeline claims the trigger of the visit that is whole, and acknowledges it")
    shell.tell("stager queue claim pipeline --json")
    event = shell.ask("queue", "claim", "pipeline")
    say(json.dumps(event, indent=2))
    shell.show("queue", "ack", "pipeline", event["id"])
    _paragraph("\nThe ImSim visit lacks a sensor, so it gives none:")
    shell.show("queue", "claim", "pipeline", expected=3)
    return event


def _drop(paths: Paths, shell: Shell, same: str, *rests: str) -> None:
    """Drop manifests, whose names begin alike, into the spool folder, as a person would."""
    shell.tell(f"cp manifests/{same}{{{','.join(rests)}}}.toml incoming/")
    for rest in rests:
        shutil.copy(paths.manifest(same + rest), paths.folder / "incoming")


def _until_done(shell: Shell, manifest: str, files: int, patience_s: float = 60.0) -> None:
    """Wait for as much of a manifest as can be done; `stager wait` waits for all of it."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        rows = shell.ask("status", manifest)["datasets"]
        if rows and rows[0]["files"]["done"] >= files:
            return
        time.sleep(0.2)
    raise DemoFailed(f"{manifest} has not brought {counted(files, 'file')} within {patience_s:g} s; see daemon.log")


def _conclude(paths: Paths, checks: list[checking.Check], seconds: float) -> int:
    for check in checks:
        say(f"  {'ok   ' if check.sound else 'WRONG'}  {check.what}" + (f": {check.wrong}" if check.wrong else ""))
    wrong = [check for check in checks if not check.sound]
    if wrong:
        complain(f"\nthe demo failed: {len(wrong)} of {len(checks)} checks; {paths.folder} is left as it is")
        return Exit.FAILED
    _heading("What is where")
    for host in HOSTS:
        below = paths.amplifiers[host].relative_to(paths.folder)
        say(f"  {len(checking.held(paths, host)):3} files  {below}" + (", in a bundle" if host == "mss" else ""))
    imsim = paths.folder / "lsst" / "ImSim" / "raw"
    say(f"  {len(checking.digests(imsim)):3} files  {imsim.relative_to(paths.folder)}")
    _heading("What to try next")
    for line in _next_steps(paths):
        say(f"  {line}")
    say(f"\nAll of it is verified; {seconds:.0f} s.")
    return Exit.DONE


def _next_steps(paths: Paths) -> list[str]:
    return [
        *how_to_call(),
        f"cd {shlex.quote(str(paths.folder))}",
        "less manifests/*.toml stager.toml",
        "stager show imsim-lsst --state missing --most 4",
        "cp -r late/Imsim lsst10/             # the missing sensor turns up:",
        "stager daemon --once                 # it is found and brought over,",
        "stager queue claim pipeline          # and its visit is whole",
        f"cd lsst10; sha256sum -c .stager/inventories/*/r1/visit={EXPOSURE.obsid}*; cd ..",
        "rm abe/obs/CFHTLS/D3/raw/v*/s00/c35-a1.fits",
        "stager restore manifests/cfht-d3-abe-restore.toml",
        "stager doctor --deep",
    ]


def _heading(text: str) -> None:
    bold = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    say(f"\n{bold[0]}{text}{bold[1]}\n")


def _paragraph(text: str) -> None:
    filled = textwrap.fill(text.lstrip("\n"), 80, break_long_words=False, break_on_hyphens=False)
    say(("\n" if text.startswith("\n") else "") + filled + "\n")
