"""`python -m benchmarks.peak FILE ARGUMENTS...`: `stager ARGUMENTS`; memory at its peak and bytes read go into FILE."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.planning import peak_bytes


def main(report: Path) -> None:
    from stager.cli import main as stager

    try:
        stager()
    finally:
        report.write_text(json.dumps({"peak": peak_bytes(), "read": bytes_read()}), "ascii")


def bytes_read() -> int:
    """By this process so far, from the page cache too (proc_pid_io(5))."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
    return int(lines["rchar"])


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
