"""The extensions of a focal plane, and the CCD that a piece of one says it is of.

The rules are those of a chop (`readouts`): EXTNAME names a CCD, where it does not EXTVER, then the position. A copy is
held to them too, so that a file that no chop will take is known before it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests.chops.chop_rules import ChopRule
from manifests.chops.readouts import Place, Readout
from manifests.errors import CameraError, found
from manifests.findings import Finding, Severity

from .looks import INPUT, Cards, File


def extension_findings(file: File) -> Iterator[Finding]:
    """Findings of a camera whose focal planes are chopped; of other cameras none."""
    rule = file.camera.chop_rule
    if rule is None:
        return
    if rule.extension_id in file.ids:
        for hdu, header in enumerate(file.headers):
            yield from _piece(file, rule, header, hdu)
    elif file.layout in ("", INPUT) and file.extensions:
        yield from _focal_plane(file, rule)


def _focal_plane(file: File, rule: ChopRule) -> Iterator[Finding]:
    try:
        readout = rule.readout(file.extensions)
    except CameraError as error:
        yield Finding("readout-unknown", Severity.WARN, str(error))
        return
    science = _is_science(file)
    places: dict[int, Place] = {}
    for position, header in enumerate(file.extensions):
        hdu = (position + 1,)
        yield from (Finding(code, Severity.NOTE, text, hdu) for code, text in _ugliness(readout, header))
        try:
            readout.number(header, position)
        except CameraError as error:
            yield Finding("extname-differs", Severity.FAIL, f"{error}; expected one number of this readout", hdu)
            continue
        try:
            places[position + 1] = readout.place(header, position, readout.whole(science, len(file.extensions)))
        except CameraError as error:
            yield Finding("amplifier-unclear", Severity.WARN, str(error), hdu)
    if len(places) == len(file.extensions):
        yield from _wholeness(file, rule, readout, places)


def _ugliness(readout: Readout, header: Cards) -> Iterator[tuple[str, str]]:
    """What is taken as it is: EXTNAME twice, as old fpack wrote it, or absent."""
    names = [str(value).strip() for value in header.all("EXTNAME")]
    if len(names) > 1:
        others = [found(name) for name in names if not re.fullmatch(readout.extension_name, name, re.IGNORECASE)]
        once = f", once as {' and '.join(others)}" if others else ""
        taken = "the one that names an extension" if readout.names(header) else _instead(header)
        yield "extname-twice", f"EXTNAME stands {len(names)} times{once}; expected it once: {taken} is taken"
    elif not names:
        expected = f"expected a name like {readout.extension_name}"
        yield "extname-absent", f"EXTNAME is absent; {expected}: {_instead(header)} is taken"


def _instead(header: Cards) -> str:
    return "EXTVER" if isinstance(header.get("EXTVER"), int) else "the position in the file"


def _wholeness(file: File, rule: ChopRule, readout: Readout, places: dict[int, Place]) -> Iterator[Finding]:
    """A CCD that is there twice, else what is missing of a whole focal plane."""
    hdus: dict[str, list[int]] = {}
    for hdu, place in places.items():
        hdus.setdefault(readout.text(place), []).append(hdu)
    twice = {name: several for name, several in hdus.items() if len(several) > 1}
    for name, several in twice.items():
        text = f"{name} is there {len(several)} times; expected each once"
        yield Finding("extension-twice", Severity.FAIL, text, tuple(several))
    if twice:
        return
    try:
        rule.check_whole(readout, file.headers[0], list(places.values()), _is_science(file))
    except CameraError as error:
        yield Finding("extensions-missing", Severity.WARN, str(error))


def _is_science(file: File) -> bool:
    """Whether it is of the sky; what has no layout is held to no more than a calibration is."""
    word = file.obstype[1].upper() if file.obstype else ""
    return any(layout.science and word in layout.obstypes for layout in file.camera.layouts.values())


def _piece(file: File, rule: ChopRule, header: Cards, hdu: int) -> Iterator[Finding]:
    """What a chopped file says of its CCD, and of its amplifier where an extension was one, held against its path."""
    try:
        known = _place(rule, header)
    except CameraError as error:
        yield Finding("extname-differs", Severity.FAIL, f"{error}; expected one number", (hdu,) * (hdu > 0))
        return
    if known is None:
        return
    readout, place = known
    said: dict[str, int | str] = {rule.extension_id: place.ccd}
    if readout.naming:
        said[rule.amp_id] = readout.amps[place.amps[0]].number
    for name, own in said.items():
        of_path = file.ids.get(name, own)
        if own != of_path:
            card = "EXTNAME" if readout.names(header) else "EXTVER"
            text = f"{card} is {found(header.all(card)[-1])}, which says {name} {own}; expected {of_path}"
            yield Finding("ids-differ", Severity.FAIL, f"{text}, as the path says", (hdu,) * (hdu > 0))


def _place(rule: ChopRule, header: Cards) -> tuple[Readout, Place] | None:
    """The readout that a piece is of, and what it is a piece of; None where its header does not tell.

    Raises CameraError where EXTNAME and EXTVER name two. EXTVER alone is an amplifier's where the header names one.
    """
    nameless = not header.all("EXTNAME") and isinstance(header.get("EXTVER"), int)
    for readout in sorted(rule.readouts, key=lambda one: one.naming is None):
        named = bool(readout.names(header))
        if named:
            readout.number(header, 0)
        if named or nameless:
            try:
                return readout, readout.place(header, 0, readout.most)
            except CameraError:
                continue
    return None
