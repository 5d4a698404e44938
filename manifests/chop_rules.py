"""How a camera's focal planes are cut into one file per amplifier, as plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import CameraError, found


@dataclass(frozen=True)
class Amp:
    """One amplifier: its letter, its number in paths, and the cards that take its own values."""

    name: str
    number: int
    replaced: tuple[tuple[str, str], ...]  # (GAIN, GAINA): GAIN takes the value of GAINA


@dataclass(frozen=True)
class ChopRule:
    """Each extension of a focal plane is cut along its first axis into equal strips, one per amplifier."""

    amps: tuple[Amp, ...]  # from the first column on
    amp_id: str  # the id that is the amplifier's number
    extension_id: str  # the id that is the extension's number
    extension_name: str  # regular expression of EXTNAME; its group is the extension's number
    removed: tuple[str, ...]  # keywords that speak of the whole and not of a strip
    path_keyword: str  # takes the path of the file
    shifts: tuple[tuple[str, int | None], ...]  # of CRPIX1, by mode; None: by the true width. Science images only
    science_extensions: tuple[int, ...]  # how many extensions a whole focal plane has
    calibration_extensions: tuple[int, ...]

    def columns(self, index: int, naxis1: int) -> tuple[int, int]:
        """First and last column, from 1, of an amplifier in an extension that wide. Raises CameraError."""
        count = len(self.amps)
        if naxis1 <= 0 or naxis1 % count:
            raise CameraError(f"NAXIS1 is {naxis1}, which does not divide into {count} amplifiers of one width")
        width = naxis1 // count
        return index * width + 1, (index + 1) * width

    def shift(self, index: int, naxis1: int, mode: str, science: bool = True) -> int:
        """What is added to CRPIX1 of an amplifier's file: 0 for a calibration and for the first amplifier."""
        if not science or index == 0:
            return 0
        fixed = dict(self.shifts)[mode]
        return 1 - self.columns(index, naxis1)[0] if fixed is None else fixed * index

    def extension(self, cards: Mapping[str, Any], position: int) -> int:
        """The extension's number: EXTNAME's, and EXTVER's, else `position` (from 0).

        Archive files lack one or the other; where both are there and differ, CameraError.
        """
        name = re.fullmatch(self.extension_name, str(cards.get("EXTNAME", "")).strip())
        version = cards.get("EXTVER")
        by_version = version if isinstance(version, int) and not isinstance(version, bool) else None
        if name is None:
            number = position if by_version is None else by_version
        else:
            number = int(name[1])
            if by_version is not None and by_version != number:
                raise CameraError(f"EXTNAME says {self.extension_id} {number}, EXTVER says {by_version}")
        if not 0 <= number < max(self.science_extensions + self.calibration_extensions):
            raise CameraError(f"extension {position + 1} says that it is {self.extension_id} {number}")
        return number

    def pieces(self, cards: Mapping[str, Any], extensions: int | None, science: bool) -> int:
        """How many files a focal plane gives. Raises CameraError for one that is not whole."""
        said = cards.get("NEXTEND")
        if said is not None and (isinstance(said, bool) or not isinstance(said, int)):
            raise CameraError(f"NEXTEND is {found(said)}; expected a whole number")
        if said is not None and extensions is not None and said != extensions:
            raise CameraError(f"NEXTEND is {said}, but there are {extensions} extensions: the file is not whole")
        count = said if extensions is None else extensions
        if count is None:
            raise CameraError("the primary header has no NEXTEND, so it does not say how many extensions there are")
        whole = self.science_extensions if science else self.calibration_extensions
        if count not in whole:
            kind = "science" if science else "calibration"
            numbers = " or ".join(map(str, whole))
            raise CameraError(
                f"there are {count} extensions, where a {kind} focal plane has {numbers}: "
                "it is not whole, or not spliced to one extension per CCD"
            )
        return count * len(self.amps)
