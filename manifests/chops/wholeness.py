"""Whether a focal plane is whole: every amplifier once, and a set of CCDs that an instrument has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from manifests.errors import CameraError

from .readouts import Place, Readout

MOST_NAMED = 8  # CCDs that a sentence lists
Amplifier = tuple[int, int]  # CCD, which of the readout's amplifiers


def check_whole(readout: Readout, places: Sequence[Place], stated: int | None, science: bool) -> None:
    """Raises CameraError, with the CCDs by name, unless `places` are those of a whole focal plane.

    `stated` is NEXTEND, which proves nothing by itself: it may agree with a lack.
    """
    extensions, counts = len(places), readout.counts(science)
    seen = Counter((place.ccd, amp) for place in places for amp in place.amps)
    lacking = _lacking(readout, seen, readout.whole(science, max(extensions, stated or 0)))
    kind = "amplifiers" if readout.naming else "CCDs"
    if stated is not None and stated != extensions:
        head = f"NEXTEND says {stated} extensions, the file has {extensions}"
    elif extensions not in counts:
        whole = "focal plane" if science else "calibration"
        head = f"the file has {extensions} {kind} where a whole {whole} has {' or '.join(map(str, counts))}"
    elif lacking or seen.total() > len(seen):
        head = f"the file has {extensions} {kind}, but not those of a whole focal plane"
    else:
        return
    details = "; ".join(_details(readout, places, seen, lacking))
    if places and lacking and extensions < (stated or 0) and lacking[0] > max(seen):
        details += f"; nothing after extension {extensions} ({readout.text(places[-1])}) is an extension"
    raise CameraError(f"{head}: {details}" if details else head)


def _lacking(readout: Readout, seen: Counter[Amplifier], whole: int) -> list[Amplifier]:
    """What is missing of a set of `whole` extensions, which may begin at a multiple of its size: half a mosaic."""
    ccds, most = (count * readout.amps_of_extension // len(readout.amps) for count in (whole, readout.most))
    begin = min((ccd for ccd, _ in seen), default=0) // ccds * ccds
    begin = begin if begin + ccds <= most else 0
    every = {(ccd, amp) for ccd in range(begin, begin + ccds) for amp in range(len(readout.amps))}
    return sorted(every - set(seen))


def _details(
    readout: Readout, places: Sequence[Place], seen: Counter[Amplifier], lacking: list[Amplifier]
) -> Iterator[str]:
    twice = sorted(each for each, count in seen.items() if count > 1)
    if twice:
        yield f"{_list(readout, twice)} is there more than once"
    if lacking and not all(place.stated for place in places):
        yield "what is missing cannot be told, as there are extensions without EXTNAME and EXTVER"
    elif lacking:
        yield f"{_list(readout, lacking)} missing"


def _list(readout: Readout, amplifiers: Sequence[Amplifier]) -> str:
    """These by name: a CCD's own name where all of its amplifiers are among them."""
    of_ccd: dict[int, list[int]] = {}
    for ccd, amp in amplifiers:
        of_ccd.setdefault(ccd, []).append(amp)
    names = []
    for ccd, amps in of_ccd.items():
        every = tuple(range(len(readout.amps)))
        places = [Place(ccd, every)] if tuple(amps) == every else [Place(ccd, (amp,)) for amp in amps]
        names += [readout.text(place) for place in places]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
