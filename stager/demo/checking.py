"""The demo's own verification: bytes read and hashed here, not by what Stager used to prove them, and figures
counted on the disks, held against what the commands say."""

from __future__ import annotations

import hashlib
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stager.demo.documents import ARCHIVED, BAD_TIMES, EXPOSURE, HOSTS, LOST, ROWS, VISIT, Paths
from stager.samples import AMPLIFIER, focal_plane_pixels

CCDS = 36
FILES = 2 * CCDS  # of a chopped focal plane
SENSORS = 3  # that the manifest expects of the ImSim visit
PER_SENSOR = len(VISIT.channels) * len(VISIT.snaps)

Ask = Callable[..., Any]  # the JSON that `stager ARGUMENTS --json` prints


@dataclass(frozen=True)
class Check:
    """Something that the demo showed: whether it is so, and what was found where it is not."""

    what: str
    wrong: str = ""

    @property
    def sound(self) -> bool:
        return not self.wrong


def verify(paths: Paths, ask: Ask) -> Iterator[Check]:
    """Everything that the demo shows, checked anew."""
    yield _chopped(paths)
    yield _inventory(paths, ask)
    yield _copies(paths)
    yield _imsim(paths)
    yield _no_parts(paths)
    yield _percentages(paths, ask)
    yield _registry(ask)
    yield _triggers(ask)


def _check(what: str, problems: Sequence[str]) -> Check:
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return Check(what, "; ".join(problems[:3]) + more)


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder by its path there, hidden names left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    }


def held(paths: Paths, host: str) -> dict[str, str]:
    """The same of the visit's files at a host: of the mass store, of what its bundles hold."""
    folder = paths.amplifiers[host]
    if host != "mss":
        return digests(folder)
    found: dict[str, str] = {}
    for bundle in sorted(folder.glob("*.stager.tar")):
        with tarfile.open(bundle) as tar:
            members = [member for member in tar if member.name.startswith(f"{ARCHIVED}/")]
            for member in members:
                data = tar.extractfile(member)
                assert data is not None  # a bundle has files alone
                found[member.name.removeprefix(f"{ARCHIVED}/")] = hashlib.sha256(data.read()).hexdigest()
    return found


def _chopped(paths: Paths) -> Check:
    """Every amplifier file against the pixels that its CCD was made with."""
    made = {ccd: focal_plane_pixels(ccd, ROWS) for ccd in range(CCDS)}
    wrong = []
    for ccd, pixels in made.items():
        for amp in range(2):
            name = f"v{EXPOSURE.obsid}-fr/s00/c{ccd:02d}-a{amp}.fits"
            path = paths.amplifiers["lsst10"] / name
            strip = pixels[:, amp * AMPLIFIER : (amp + 1) * AMPLIFIER]
            if not path.is_file():
                wrong.append(f"{name} is not there")
            elif not np.array_equal(_pixels(path.read_bytes(), strip.shape), strip):
                wrong.append(f"{name} has other pixels than its CCD")
    return _check(f"{FILES} amplifier files, pixel by pixel those of the focal plane", wrong)


def _pixels(content: bytes, shape: tuple[int, int]) -> Any:
    """The 16-bit pixels after a FITS header, BZERO 32768 taken into account; None where there is no such header."""
    end = next((at for at in range(0, len(content), 80) if content[at : at + 8] == b"END     "), None)
    if end is None:
        return None
    start = (end // 2880 + 1) * 2880
    stored = np.frombuffer(content[start : start + 2 * shape[0] * shape[1]], dtype=">u2")
    return None if stored.size != shape[0] * shape[1] else (stored ^ np.uint16(0x8000)).reshape(shape)


def _inventory(paths: Paths, ask: Ask) -> Check:
    """The list that came with the trigger against the files, as `sha256sum -c` would."""
    root = paths.folder / "lsst10"
    lists = sorted((root / ".stager" / "inventories").rglob("*.sha256"))
    if len(lists) != 1:
        return Check("the trigger's inventory", f"{len(lists)} inventories at lsst10, expected 1")
    lines = (line.partition("  ") for line in lists[0].read_text("ascii").splitlines())
    listed = {name: digest for digest, _, name in lines}
    below = paths.amplifiers["lsst10"]
    found = {f"{below.relative_to(root)}/{name}": digest for name, digest in digests(below).items()}
    return _check(f"the trigger's inventory lists these {FILES} files with their sha256", _differences(listed, found))


def _copies(paths: Paths) -> Check:
    first, *others = ((host, held(paths, host)) for host in HOSTS)
    wrong = [f"{host}: {problem}" for host, found in others for problem in _differences(first[1], found)]
    if len(first[1]) != FILES:
        wrong.insert(0, f"{first[0]}: {len(first[1])} files, expected {FILES}")
    return _check(f"the same {FILES} files, byte for byte, at {', '.join(HOSTS)}", wrong)


def _imsim(paths: Paths) -> Check:
    source, copy = digests(paths.imsim / "raw"), digests(paths.folder / "lsst" / "ImSim" / "raw")
    expected = (SENSORS - 1) * PER_SENSOR
    wrong = _differences(source, copy)
    if len(copy) != expected:
        wrong.append(f"{len(copy)} files, expected {expected}")
    return _check(f"the {expected} ImSim files that exist, byte for byte, at lsst", wrong)


def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    missing = [f"{name} is not there" for name in wanted if name not in found]
    other = [f"{name} has other bytes" for name in wanted if name in found and found[name] != wanted[name]]
    return missing + other + [f"{name} should not be there" for name in found if name not in wanted]


def _no_parts(paths: Paths) -> Check:
    left = [str(path.relative_to(paths.folder)) for host in HOSTS for path in (paths.folder / host).rglob("*.part")]
    return _check("no partial file is left at any host", left)


def _percentages(paths: Paths, ask: Ask) -> Check:
    """The table of `stager status` against a count of the files on the disks."""
    on_disk = {f"cfht-d3-{host}": len(held(paths, host)) for host in ("lsst", "abe", "mss")}
    on_disk |= {"cfht-d3-chop": len(digests(paths.amplifiers["lsst10"]))}
    on_disk |= {"cfht-d3-abe-restore": on_disk["cfht-d3-abe"]}
    wanted = {name: (count, FILES) for name, count in on_disk.items()}
    wanted["imsim-lsst"] = (len(digests(paths.folder / "lsst" / "ImSim" / "raw")), SENSORS * PER_SENSOR)
    rows = {row["manifest"]: row for row in ask("status")["datasets"]}
    wrong = [f"{name} is not in the table" for name in wanted if name not in rows]
    for name, (done, total) in wanted.items():
        percent = math.floor(1000 * done / total) / 10
        said = rows.get(name)
        if said and (said["percent"], said["files"]["done"], said["files"]["total"]) != (percent, done, total):
            wrong.append(f"{name} says {said['percent']} % of {said['files']}, the disks {percent} % ({done}/{total})")
    if rows.get("imsim-lsst") and rows["imsim-lsst"]["files"]["missing"] != PER_SENSOR:
        wrong.append(f"imsim-lsst counts {rows['imsim-lsst']['files']['missing']} missing, expected {PER_SENSOR}")
    return _check("every percentage is what a count of the files on the disks gives", wrong)


def _registry(ask: Ask) -> Check:
    """The missing sensor and the one with bad times, and nothing else."""
    said = ask("registry", "check")
    bad = [one["ids"] for one in said["findings"]]
    wrong = [f"{ids} is reported, and its times are good" for ids in bad if ids.get("sensor") != _comma(BAD_TIMES[1])]
    if len(bad) != PER_SENSOR:
        wrong.append(f"{len(bad)} images with bad times are reported, expected {PER_SENSOR}")
    missing = sum(visit["missing"] for visit in said["visits"])
    if missing != PER_SENSOR:
        wrong.append(f"{missing} files are counted as missing, expected {PER_SENSOR}")
    what = f"missing: sensor {_comma(LOST[1])}, {PER_SENSOR} files; bad times: sensor {_comma(BAD_TIMES[1])}, as many"
    return _check(what, wrong)


def _comma(pair: str) -> str:
    return f"{pair[0]},{pair[1]}"


def _triggers(ask: Ask) -> Check:
    """One trigger, for the visit that is whole, taken over; none for the visit that is not."""
    said = [(one["dataset"], one["group"], one["state"], one["claims"]) for one in ask("queue", "list", "pipeline")]
    wanted = [("CFHTLS D3 raw", f"visit={EXPOSURE.obsid}", "acked", 1)]
    wrong = [] if said == wanted else [f"the queue has {said}, expected {wanted}"]
    return _check("one trigger for the visit that is whole, none for the one that is not", wrong)


def event(event: Mapping[str, Any]) -> Check:
    """The trigger as a pipeline got it."""
    data = event.get("data", {})
    said = {name: data.get(name) for name in ("dataset", "group", "host", "files")}
    wanted = {"dataset": "CFHTLS D3 raw", "group": {"visit": EXPOSURE.obsid}, "host": "lsst10", "files": FILES}
    wrong = [f"it says {said}, expected {wanted}"] if said != wanted else []
    return _check("the trigger names dataset, visit, host and number of files", wrong)


def ended(status: int) -> Check:
    """How the daemon ended after SIGTERM."""
    return _check("the daemon ended when asked to", [f"its exit status was {status}"] if status else [])
