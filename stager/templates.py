"""What `stager init` writes."""

from __future__ import annotations

from pathlib import Path

CONFIG = """\
# Stager's configuration. `stager schema config` describes every key; docs/configuration.md explains them.

[stager]
database = "sqlite:///stager.db"        # beside this file; or postgresql+psycopg://user@host/name
spool = "incoming"                      # manifests dropped into this folder are submitted

# A host is a named place that holds files under one root.
[hosts.here]
kind = "local"
root = "/data"                          # change this

[hosts.mss]
kind = "store"                          # a mass store...
driver = "directory"                    # ...that is mounted here
root = "/mss"                           # change this

# Another machine, reached over SSH; nothing is installed there.
# [hosts.far]
# kind = "ssh"
# address = "far.example.edu"           # or an alias of your ssh configuration
# root = "/data"

# Where triggers wait for a pipeline: `stager queue claim pipeline`.
[queues.pipeline]
kind = "table"
"""

MANIFEST = """\
# A manifest says what should be where. `stager schema manifest` describes every key.
# Try it:  stager submit first-archive.toml --dry-run
# Do it:   stager run first-archive.toml

name = "first-archive"
kind = "archive"                        # or copy, chop, restore
dataset = "first dataset"               # the name in status and triggers
lead = ""                               # who answers for it
source = "here:raw/**"                  # everything below raw; also *.fits, D{1..4}/raw, s[01]
destination = "mss:raw"                 # raw/a/b.fits becomes raw/a/b.fits there

[trigger]
queue = "pipeline"                      # one trigger, when all of it is proven
"""


def write_templates(folder: Path) -> list[Path]:
    """Write stager.toml, a first manifest and the spool folder; returns the files, none where there was one."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("stager.toml", CONFIG), ("first-archive.toml", MANIFEST)):
        path = folder / name
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            if name == "stager.toml":
                return []
            continue
        written.append(path)
    (folder / "incoming").mkdir(exist_ok=True)
    return written
