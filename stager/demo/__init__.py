"""`stager demo`: a guided first run on this machine, in a folder of its own, with everything it shows verified."""

from __future__ import annotations

from pathlib import Path


def run_demo(folder: Path | None) -> int:
    """See `stager.demo.story.run_demo`, which is imported only now: the simulator beside it is run very often."""
    from stager.demo import story

    return story.run_demo(folder)
