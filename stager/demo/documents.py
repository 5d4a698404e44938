"""What the demo's folder holds before anything happens: data, hosts, a configuration, manifests to learn from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stager.demo import tape
from stager.samples import Exposure, Visit, write_focal_plane, write_visit

HOSTS = ("lsst10", "lsst", "abe", "mss")
ARCHIVED = "repos/obs/CFHTLS/D3/raw"  # where the files are on the mass store
ROWS = 48  # of a real CCD's 4644: the structure is what matters here

EXPOSURE = Exposure(target="D3")
LOST = ("23", "02")  # raft and sensor that are not at the source
BAD_TIMES = ("23", "01")  # raft and sensor whose headers lost the time
VISIT = Visit(missing=(LOST,), bad_times=(BAD_TIMES,))
LATE = Visit(sensors=(LOST[1],))  # the lost sensor, as it may turn up one day

CONFIG = """\
# Four hosts, named as on the status page that Stager replaces; here each is a folder of this machine.
# `stager schema config` describes every key.

[stager]
database = "sqlite:///stager.db"    # beside this file
spool = "incoming"                  # manifests dropped into this folder are submitted
walk_s = 5                          # seconds between looks for what no event told of (60 when left out)

[hosts.lsst10]                      # where images arrive and are chopped
kind = "local"
root = {lsst10}

[hosts.lsst]                        # the cluster
kind = "local"
root = {lsst}

[hosts.abe]                         # where production runs; its disk is cleared now and then
kind = "local"
root = {abe}

[hosts.mss]                         # the mass store: a tape store, played by a test tool that keeps nothing safe
kind = "store"
driver = "command"                  # spoken to as hsi or msscmd are: by programs, of which these are the words
root = "/lsst"

[hosts.mss.commands]
{commands}

[queues.pipeline]                   # where triggers wait: `stager queue claim pipeline`
kind = "table"
"""

CHOP = """\
# Cut spliced focal planes into one file an amplifier: 36 CCDs x 2 = 72 files each, all of them or none.
name = "cfht-d3-chop"
kind = "chop"
dataset = "CFHTLS D3 raw"                   # its name in status and triggers
lead = "DG"                                 # who answers for it
camera = "cfht_megacam"                     # knows how to cut, and where the files go
source = "lsst10:CFHTLS/D3/*o.fits"
destination = "lsst10:CFHTDeep"             # becomes CFHTDeep/D3/raw/v1038843-fr/s00/c00-a0.fits ...

[trigger]
queue = "pipeline"
per = ["visit"]                             # one trigger a visit, when all of the visit is proven
"""

COPY = """\
# Bring what was chopped to another host. What stands after the source's fixed part is kept below the destination.
name = "cfht-d3-{host}"
kind = "copy"
dataset = "CFHTLS D3 raw"
lead = "DG"
camera = "cfht_megacam"                     # so that every image is registered by its header
source = "lsst10:CFHTDeep/D3/raw"           # a folder means everything below it
destination = "{host}:obs/CFHTLS/D3/raw"
"""

ARCHIVE = """\
# To the mass store: an archive is a copy whose destination is a store.
name = "cfht-d3-mss"
kind = "archive"
dataset = "CFHTLS D3 raw"
lead = "DG"
camera = "cfht_megacam"
source = "lsst10:CFHTDeep/D3/raw"
destination = "mss:repos/obs/CFHTLS/D3/raw"

[bundle]                                    # tape wants few large files: one tar a visit, which any tar reads
per = ["visit"]
"""

RESTORE = """\
# Back from the mass store to where production runs. `stager restore` checks, brings what is not there, and proves it.
name = "cfht-d3-abe-restore"
kind = "restore"
dataset = "CFHTLS D3 raw"
lead = "Ray"
camera = "cfht_megacam"
source = "mss:repos/obs/CFHTLS/D3/raw"
destination = "abe:obs/CFHTLS/D3/raw"
priority = 10                               # goes before what has less (0 when left out)
"""

IMSIM = """\
# Simulated images. `expect` says what should exist, so that what is missing at the source is counted and waited for.
name = "imsim-lsst"
kind = "copy"
dataset = "ImSim raw"
lead = "AC+"
camera = "lsst_imsim"
source = "lsst10:Imsim/raw"
destination = "lsst:ImSim/raw"
expect = [                                  # three sensors of the visit; {visit = 85471048} alone is all 6048 files
    {visit = 85471048, raft = "2,3", sensor = "0,0"},
    {visit = 85471048, raft = "2,3", sensor = "0,1"},
    {visit = 85471048, raft = "2,3", sensor = "0,2"},
]

[trigger]
queue = "pipeline"
per = ["visit"]
"""

MANIFESTS = {
    "cfht-d3-chop": CHOP,
    "cfht-d3-lsst": COPY.format(host="lsst"),
    "cfht-d3-abe": COPY.format(host="abe"),
    "cfht-d3-mss": ARCHIVE,
    "cfht-d3-abe-restore": RESTORE,
    "imsim-lsst": IMSIM,
}


@dataclass(frozen=True)
class Paths:
    """The demo's folder, and what lies where in it."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "stager.toml"

    @property
    def focal_plane(self) -> Path:
        return self.folder / "lsst10" / "CFHTLS" / "D3" / f"{EXPOSURE.filename}.fits"

    @property
    def imsim(self) -> Path:
        return self.folder / "lsst10" / "Imsim"

    @property
    def amplifiers(self) -> dict[str, Path]:
        """The folder of the visit's 72 files at each host; at the mass store, that of the bundle which has them."""
        places = {"lsst10": "CFHTDeep/D3/raw", "mss": f"files/lsst/{ARCHIVED}"}
        return {host: self.folder / host / places.get(host, "obs/CFHTLS/D3/raw") for host in HOSTS}

    def manifest(self, name: str) -> Path:
        return self.folder / "manifests" / f"{name}.toml"


def write_folder(paths: Paths) -> None:
    """Write the four hosts with their data, the configuration and the manifests. Raises OSError."""
    for host in (*HOSTS, "manifests", "incoming"):
        (paths.folder / host).mkdir(parents=True)
    (paths.folder / "mss" / "files" / "lsst").mkdir(parents=True)
    roots = {host: _quoted(str(paths.folder / host)) for host in HOSTS}
    commands = "\n".join(f"{key} = {_quoted(value)}" for key, value in tape.commands(paths.folder / "mss").items())
    paths.config.write_text(CONFIG.format(**roots, commands=commands), encoding="utf-8")
    for name, text in MANIFESTS.items():
        paths.manifest(name).write_text(text, encoding="utf-8")
    paths.focal_plane.parent.mkdir(parents=True)
    write_focal_plane(paths.focal_plane, EXPOSURE, rows=ROWS)
    write_visit(paths.imsim, VISIT)
    write_visit(paths.folder / "late" / "Imsim", LATE)


def _quoted(text: str | list[str]) -> str:
    """Text, or a list of it, as TOML writes it."""
    return json.dumps(text, ensure_ascii=False)
