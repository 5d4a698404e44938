"""Sample exposures in the true structure of their archives, for `stager demo` and for tests.

A CFHT MegaPrime focal plane, spliced or as it was read out, and an ImSim visit, with the keywords of the real
ones in their order, and pixels that say where they came from, so that a chop can be proven pixel by pixel.
"""

from __future__ import annotations

import gzip
import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from transfers.fits import BLOCK, CARD, header_bytes

AMPLIFIER = 1056
COLUMNS = 2 * AMPLIFIER
FULL_ROWS = 4644
OVERSCAN = 32

CHANNELS = tuple(f"{half}{column}" for half in range(2) for column in range(8))
_FILTERS = "ugrizy"
_VALUE = re.compile(r"(?P<name>[A-Z0-9_-]+) = (?P<value>'(?:[^']|'')*'|[^ ]+)(?P<comment>( / .*)?)")

Pixels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Exposure:
    """What the headers of a focal plane say; `mjd` is UTC at the start, `exptime` in seconds."""

    target: str = "D3"
    obsid: int = 1038843
    filter: str = "r.MP9601"
    obstype: str = "OBJECT"
    runid: str = "08BL05"
    crunid: str = "08Bm04"
    qrunid: str = "08BQ09"
    mjd: float = 54771.1929897
    exptime: float = 615.037

    @property
    def filename(self) -> str:
        """The base name CFHT gives it: the odometer number and a letter for the kind of exposure."""
        return f"{self.obsid}{self.obstype[:1].lower()}"


@dataclass(frozen=True)
class Visit:
    """Which files of an ImSim visit there are; `mjd` is TAI. Rafts, sensors and channels as in file names.

    `missing` are the (raft, sensor) that are left out, `bad_times` those whose MJD-OBS and TAI are 0.0.
    """

    visit: int = 85471048
    filter: str = "y"
    mjd: float = 49552.28496
    rafts: tuple[str, ...] = ("23",)
    sensors: tuple[str, ...] = ("00", "01", "02")
    channels: tuple[str, ...] = CHANNELS
    snaps: tuple[int, ...] = (0, 1)
    missing: tuple[tuple[str, str], ...] = ()
    bad_times: tuple[tuple[str, str], ...] = ()


def focal_plane_pixels(ccd: int, rows: int) -> Pixels:
    """The pixels of one CCD, as [row, column], with rows counted from 0 and the topmost 32 the y overscan.

    Image: 2000 + 400 * ccd + 200 * (1 for amplifier B) + 10 * (row // 387). The x overscan, 32 columns at
    each side: 900 + 2 * ccd + amplifier. The y overscan: 800 + ccd. Corners and eight columns' worth of
    marks beside the cut (row 100, where there is one) have values of their own.
    """
    image = max(rows - OVERSCAN, 0)
    pixels = np.empty((rows, COLUMNS), dtype=np.uint16)
    steps = (10 * (np.arange(image) // 387))[:, np.newaxis]
    for amplifier, columns in enumerate((slice(0, AMPLIFIER), slice(AMPLIFIER, COLUMNS))):
        pixels[:image, columns] = 2000 + 400 * ccd + 200 * amplifier + steps
    pixels[:image, :OVERSCAN] = 900 + 2 * ccd
    pixels[:image, -OVERSCAN:] = 900 + 2 * ccd + 1
    pixels[image:] = 800 + ccd
    for corner, place in enumerate(((0, 0), (0, -1), (-1, 0), (-1, -1))):
        pixels[place] = 60000 + 1000 * corner + ccd
    if image > 100:
        pixels[100, [1055, 1056, 32, 2079]] = (50001, 50002, 50003, 50004)
    return pixels


def amplifier_pixels(ccd: int, amplifier: int, rows: int) -> Pixels:
    """The same pixels of one amplifier as it reads them: from its own side of the CCD on, the overscan last."""
    pixels = focal_plane_pixels(ccd, rows)
    if amplifier == 0:
        return np.hstack((pixels[:, OVERSCAN:AMPLIFIER], pixels[:, :OVERSCAN]))
    return np.hstack((pixels[:, COLUMNS - OVERSCAN - 1 : AMPLIFIER - 1 : -1], pixels[:, -OVERSCAN:]))


def write_focal_plane(
    path: Path,
    exposure: Exposure = Exposure(),
    *,
    rows: int = 48,
    ccds: Sequence[int] = range(36),
    nextend: int | None = None,
    spliced: bool = True,
) -> Path:
    """Write a focal plane (gzipped where the name ends in .gz), one CCD in memory at a time.

    At 4644 rows it has the size of a real one, 706 MB. `ccds` and `nextend` make incomplete ones, and ones of 18 or
    40 CCDs. Not spliced, an extension is an amplifier as it was read, of the upper half of the mosaic B before A.
    """
    each = 1 if spliced else 2
    extensions = nextend or each * len(ccds)
    facts = {**_exposure_facts(exposure), "extensions": extensions, "ccds": extensions // each, "amps": 2 * len(ccds)}
    facts |= {"rows": rows, "lit": max(rows - OVERSCAN, 1), "columns": COLUMNS if spliced else AMPLIFIER}
    table = _lines("megacam_ccds.txt")
    with _created(path) as file:
        file.write(header_bytes(_cards("megacam.txt", "pbh" if spliced else "pb", facts)))
        for ccd in ccds:
            of_ccd = {**facts, **_ccd_facts(ccd, table[ccd])}
            if spliced:
                file.write(header_bytes(_cards("megacam.txt", "esbh", of_ccd)))
                _write_pixels(file, focal_plane_pixels(ccd, rows))
                continue
            for place, amplifier in enumerate((1, 0) if _is_turned(ccd) else (0, 1)):
                of_amplifier = {**of_ccd, **_amplifier_facts(of_ccd, amplifier, 2 * ccd + place)}
                file.write(header_bytes(_cards("megacam.txt", "eub", of_amplifier)))
                _write_pixels(file, amplifier_pixels(ccd, amplifier, rows))
    return path


def _is_turned(ccd: int) -> bool:
    """Whether a CCD is of the upper half of the mosaic, turned by 180 degrees."""
    return ccd < 18 or ccd in (36, 37)


def write_visit(
    root: Path,
    visit: Visit = Visit(),
    *,
    shape: tuple[int, int] = (16, 20),
    gzipped: bool = True,
) -> list[Path]:
    """Write an ImSim visit below `root` in its archive's layout; the paths, relative to `root`, in order.

    `shape` is (rows, columns) of a file; the real one is (2001, 513).
    """
    written = []
    for snap in visit.snaps:
        for raft in visit.rafts:
            for sensor in visit.sensors:
                if (raft, sensor) in visit.missing:
                    continue
                for channel in visit.channels:
                    name = _visit_path(visit, snap, raft, sensor, channel) + (".gz" if gzipped else "")
                    path = root / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _write_amplifier(path, visit, shape, (snap, raft, sensor, channel))
                    written.append(Path(name))
    return written


def visit_pixels(shape: tuple[int, int], snap: int, raft: str, sensor: str, channel: str) -> Pixels:
    """The pixels of one ImSim amplifier: 1000, 8 for each amplifier of a visit before it, and row % 8."""
    sensors = int(raft, 5) * 9 + int(sensor, 3)
    amplifiers = (sensors * 2 + snap) * len(CHANNELS) + CHANNELS.index(channel)
    rows = (np.arange(shape[0]) % 8)[:, np.newaxis]
    return np.broadcast_to(1000 + 8 * amplifiers + rows, shape).astype(np.uint16)


def _visit_path(visit: Visit, snap: int, raft: str, sensor: str, channel: str) -> str:
    folder = f"raw/v{visit.visit}-f{visit.filter}/E{snap:03d}/R{raft}/S{sensor}"
    return f"{folder}/imsim_{visit.visit}_R{raft}_S{sensor}_C{channel}_E{snap:03d}.fits"


def _write_amplifier(path: Path, visit: Visit, shape: tuple[int, int], ids: tuple[int, str, str, str]) -> None:
    snap, raft, sensor, channel = ids
    facts = {
        "visit": visit.visit,
        "filter": visit.filter,
        "filter_number": _FILTERS.index(visit.filter),
        "mjd": "0." if (raft, sensor) in visit.bad_times else f"{visit.mjd:.5f}",
        "chip": f"R{raft}_S{sensor}",
        "channel": f"C{channel}",
        "snap": snap,
        "exposure": f"E{snap:03d}",
        "rows": shape[0],
        "columns": shape[1],
    }
    with _created(path) as file:
        file.write(header_bytes(_cards("imsim.txt", "b", facts)))
        _write_pixels(file, visit_pixels(shape, *ids))


@contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """The file to write, through gzip where its name says so; the same bytes every time."""
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        with gzip.GzipFile(path.stem, "wb", 4, raw, mtime=0) as packed, io.BufferedWriter(packed) as file:
            yield file


def _write_pixels(file: IO[bytes], pixels: Pixels) -> None:
    """16-bit integers with BZERO 32768, which is the top bit turned, padded to whole blocks."""
    data = (pixels ^ np.uint16(0x8000)).astype(">u2").tobytes()
    file.write(data)
    file.write(b"\0" * (-len(data) % BLOCK))


def _exposure_facts(exposure: Exposure) -> dict[str, object]:
    begin = datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=exposure.mjd)
    end = begin + timedelta(seconds=exposure.exptime)
    return {
        "object": exposure.target.replace("'", "''"),
        "obsid": exposure.obsid,
        "filter": exposure.filter,
        "obstype": exposure.obstype,
        "runid": exposure.runid,
        "crunid": exposure.crunid,
        "qrunid": exposure.qrunid,
        "filename": exposure.filename,
        "exptime": exposure.exptime,
        "etime": round(exposure.exptime),
        "mjd": exposure.mjd,
        "mjd_end": exposure.mjd + exposure.exptime / 86400,
        "date_obs": f"{begin:%Y-%m-%d}",
        "utc_obs": _clock(begin),
        "date_end": f"{end:%Y-%m-%d}",
        "utc_end": _clock(end),
        "date_made": f"{end:%Y-%m-%dT%H:%M:%S}",
    }


def _clock(moment: datetime) -> str:
    """A time of day as the archive writes it: hours without a leading zero, hundredths of seconds."""
    return f"{moment.hour}:{moment:%M:%S}.{moment.microsecond // 10_000:02d}"


def _ccd_facts(ccd: int, row: str) -> dict[str, object]:
    name, nick, across, up, gain_a, gain_b, noise_a, noise_b, crpix1, crpix2 = row.split()
    first, last = (int(edge) for edge in across.split(":"))
    step = 1023 if last > first else -1023
    sign = "-" if last > first else ""
    return {
        "ccd": ccd,
        "extname": f"ccd{ccd:02d}",
        "ccdname": name,
        "ccdnick": nick,
        "detsec": f"[{across},{up}]",
        "detseca": f"[{first}:{first + step},{up}]",
        "detsecb": f"[{last}:{last - step},{up}]",
        "gain": (float(gain_a) + float(gain_b)) / 2,
        "gaina": float(gain_a),
        "gainb": float(gain_b),
        "rdnoise": (int(noise_a) + int(noise_b) + 1) // 2,
        "rdnoisea": noise_a,
        "rdnoiseb": noise_b,
        "crpix1": crpix1,
        "crpix2": crpix2,
        "cd11": f"{sign}5.194E-05",
        "cd22": "5.194E-05" if sign else "-5.194E-05",
    }


def _amplifier_facts(of_ccd: Mapping[str, object], amplifier: int, extension: int) -> dict[str, object]:
    """What the header of an extension says that is one amplifier."""
    letter = "ab"[amplifier]
    return {
        "extname": f"amp{extension:02d}",
        "extension": extension,
        "ampname": f"{of_ccd['ccd']:02d}{letter}",
        "detsec_amp": of_ccd[f"detsec{letter}"],
        "gain_amp": of_ccd[f"gain{letter}"],
        "rdnoise_amp": of_ccd[f"rdnoise{letter}"],
    }


def _lines(name: str) -> list[str]:
    text = (resources.files("stager") / "sample_cards" / name).read_text(encoding="ascii")
    return [line for line in text.splitlines() if not line.startswith("#")]


def _cards(name: str, parts: str, facts: Mapping[str, object]) -> list[bytes]:
    """The cards of one header: the lines whose letter is among `parts`, filled in."""
    return [_card(line[2:].format_map({**facts, **more})) for line, more in _repeated(_lines(name)) if line[0] in parts]


def _repeated(lines: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """The lines, those between @repeat and @end once for each {n}; {noise} is the same at every call."""
    block: list[str] = []
    numbers: Sequence[int] | None = None
    for line in lines:
        if line.startswith("@repeat"):
            first, last = line.split()[1:]
            block, numbers = [], range(int(first), int(last) + 1)
        elif line == "@end":
            yield from ((each, {"n": n, "noise": _noise(f"{each}{n}")}) for n in numbers or () for each in block)
            numbers = None
        elif numbers is not None:
            block.append(line)
        else:
            yield line, {}


def _noise(seed: str) -> str:
    return f"{random.Random(seed).uniform(-5e-5, 5e-5):.6E}"  # noqa: S311 -- sample values, no secret


def _card(text: str) -> bytes:
    """A card in fixed format from free text; as in the archives, what is over 80 characters is cut off."""
    match = _VALUE.fullmatch(text)
    if match:
        name, value, comment = match.group("name", "value", "comment")
        shown = f"'{value[1:-1]:<8}'".ljust(20) if value.startswith("'") else value.rjust(20)
        text = f"{name:<8}= {shown}{comment}"
    return text[:CARD].ljust(CARD).encode("ascii")
