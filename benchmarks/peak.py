"""`python -m benchmarks.peak FILE ARGUMENTS...`: `stager ARGUMENTS`; the peak of its memory in bytes goes into FILE."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.planning import peak_bytes


def main(report: Path) -> None:
    from stager.cli import main as stager

    try:
        stager()
    finally:
        report.write_text(str(peak_bytes()), "ascii")


if __name__ == "__main__":
    main(Path(sys.argv.pop(1)))
