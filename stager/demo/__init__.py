"""`stager demo`: a guided first run on this machine, in a folder of its own, with everything it shows verified."""

from stager.demo.story import run_demo

__all__ = ["run_demo"]
