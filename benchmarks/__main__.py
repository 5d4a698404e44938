"""`python -m benchmarks [NAMES...]`: measure, draw one table, remove everything that was made."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from benchmarks import archive, chop, copies, drawing, headers, idle, machine, planning, ssh, status
from benchmarks.measuring import CHECKOUT, command
from benchmarks.places import Place, Unavailable
from benchmarks.results import Figure

SUBJECTS: dict[str, Callable[[Place], Iterator[Figure]]] = {
    "planning": planning.measure,
    "status": status.measure,
    "chop": chop.measure,
    "copies": copies.measure,
    "idle": idle.measure,
    "headers": headers.measure,
    "archive": archive.measure,
}
OVER_SSH: dict[str, Callable[[Place, ssh.Asked], Iterator[Figure]]] = {
    "ssh-loopback": ssh.loopback,
    "ssh-50ms": ssh.distant,
}
TOGETHER = {"ssh": tuple(OVER_SSH)}  # names of several
PIPED_COLUMNS = 150


def main(given: Sequence[str] | None = None) -> int:
    """0 when everything asked for was measured, whatever the figures are; 1 when something could not be."""
    asked = _arguments(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed then too
    figures: list[Figure] = []
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="stager-bench-", dir=asked.folder) as made:
        facts: dict[str, Any] = machine.facts(Path(made)) | {"runs": asked.runs, "scale": asked.scale}
        keep_bytecode(Path(made) / "bytecode")
        loads = [machine.load()]
        for name in _chosen(asked.names):
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            try:
                for figure in _measured(name, Path(made), asked):
                    figures.append(figure)  # one by one: what was measured before a problem is kept
            except (Unavailable, subprocess.CalledProcessError, OSError) as error:
                said = getattr(error, "stderr", None) or b""
                problems.append(f"{name} could not be measured: {error} {said.decode(errors='replace')}".strip())
            loads.append(machine.load())
            _write(asked, figures, facts | {"load": " ".join(loads)}, problems)
    facts |= {"load": " ".join(loads)}
    _print(figures, facts)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _write(asked: argparse.Namespace, figures: Sequence[Figure], facts: dict[str, Any], problems: list[str]) -> None:
    """All that there is so far: an hour's figures are not to be lost to what comes after them."""
    if asked.json:
        document = {"machine": facts, "figures": [figure.as_dict() for figure in figures], "problems": problems}
        Path(asked.json).write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def keep_bytecode(folder: Path) -> None:
    """Let the commands that are measured keep what Python compiled, as an installed Stager does, but in a folder
    of ours. Without it a command compiles all that it imports anew at every start, which takes a second."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    imports = "import stager.cli, stager.daemon, stager.drawing, stager.submitting, rich.progress, astropy.io.fits"
    imports += ", transfers.ssh.openssh, transfers.sftp.host, transfers.ssh.host"
    command([sys.executable, "-c", imports], CHECKOUT)


def _chosen(names: Sequence[str]) -> list[str]:
    """The subjects that were named, or all."""
    return [one for name in names or (*SUBJECTS, *OVER_SSH) for one in TOGETHER.get(name, (name,))]


def _measured(name: str, folder: Path, asked: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=folder) as own:
        place = Place(Path(own), asked.runs, asked.scale)
        if name in SUBJECTS:
            yield from SUBJECTS[name](place)
        else:
            depth: ssh.Depth = asked.depth or ("usual" if asked.names else "brief")
            yield from OVER_SSH[name](place, ssh.Asked(depth, asked.only))


def _print(figures: Sequence[Figure], facts: dict[str, Any]) -> None:
    out = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False)
    title = "; ".join(f"{name} {value}" for name, value in facts.items())
    out.print(drawing.table(figures, title))
    if facts["scale"] != 1:
        out.print("Goals are about scale 1: what is shown here only says that the benchmarks work.")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    known = (*SUBJECTS, *OVER_SSH, *TOGETHER)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAMES", help=", ".join(known))
    parser.add_argument("--runs", type=int, default=3, help="of each way, in turn (3)")
    parser.add_argument("--folder", help="where to make everything; else the system's folder for temporary files")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes: 0.01 to try whether all works (1)")
    depth = "of the copies over SSH; usual when subjects are named, else brief"
    parser.add_argument("--depth", choices=get_args(ssh.Depth), help=depth)
    parser.add_argument("--only", type=re.compile, metavar="REGEX", help="of the copies over SSH, such ways alone")
    asked = parser.parse_args(given)
    if unknown := set(asked.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if asked.runs < 1 or asked.scale <= 0:
        parser.error("--runs and --scale must be above 0")
    return asked


if __name__ == "__main__":
    sys.exit(main())
