"""How a camera's focal planes are cut into one file per amplifier, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from manifests.errors import CameraError, found

from .readouts import Cards, Place, Readout, called, width_of
from .wholeness import check_whole


@dataclass(frozen=True)
class ChopRule:
    """Its readouts, and what is the same in all of them."""

    readouts: tuple[Readout, ...]
    amp_id: str  # the id that is the amplifier's number
    extension_id: str  # the id that is the CCD's number
    path_keyword: str  # takes the path of the file
    shifts: tuple[tuple[str, int | None], ...]  # of CRPIX1, by mode; None: by the true width. Science images only

    def readout(self, extensions: Sequence[Cards]) -> Readout:
        """The readout of a file, by the names of its extensions, and by their columns where they have none of ours.

        Most of them decide, so that a damaged one is told from the others. Raises CameraError where none fits.
        """
        if len(self.readouts) == 1:
            return self.readouts[0]
        kinds = Counter(kind for cards in extensions if (kind := self._kind(cards)) is not None)
        most = max(kinds.values(), default=0)
        if most * 2 <= len(extensions):
            raise CameraError(self._strange(extensions))
        return self.readouts[next(kind for kind, count in kinds.items() if count == most)]

    def places(self, readout: Readout, primary: Cards, extensions: Sequence[Cards], science: bool) -> list[Place]:
        """What each extension holds. Raises CameraError for one that does not say, or that says two things."""
        whole = readout.whole(science, max(len(extensions), stated_extensions(primary) or 0))
        places = []
        for position, cards in enumerate(extensions):
            try:
                place = readout.place(cards, position, whole)
                self._check_kind(readout, place, cards, position)
            except CameraError as error:
                expected = readout.following(extensions[:position], whole)
                hint = f"; {readout.text(expected)} should be there" if expected else ""
                raise CameraError(f"{error}{hint}") from error
            places.append(place)
        return places

    def check_whole(self, readout: Readout, primary: Cards, places: Sequence[Place], science: bool) -> None:
        """Raises CameraError, with the CCDs by name, unless these are the places of a whole focal plane."""
        check_whole(readout, places, stated_extensions(primary), science)

    def pieces(self, primary: Cards, first: Cards, science: bool, extensions: int | None = None) -> int:
        """How many files a focal plane gives, from its primary header and that of its first extension.

        `extensions` is how many there are, where the primary header has no NEXTEND. Raises CameraError for a
        focal plane that cannot be whole.
        """
        readout = self.readout([first])
        self._check_width(readout, first)
        count = stated_extensions(primary)
        count = extensions if count is None else count
        if count is None:
            raise CameraError("the primary header has no NEXTEND, so it does not say how many extensions there are")
        if count not in (whole := readout.counts(science)):
            raise CameraError(
                f"there are {count} extensions, where a {'science' if science else 'calibration'} focal plane "
                f"of the {readout.name} readout has {' or '.join(map(str, whole))}: it is not whole"
            )
        return count * readout.amps_of_extension

    def shift(self, readout: Readout, index: int, columns: int, mode: str, science: bool = True) -> int:
        """What is added to CRPIX1 of an extension's amplifier: 0 for a calibration and for the first one."""
        first = readout.strips(columns)[index][0]
        fixed = dict(self.shifts)[mode]
        if not science or index == 0:
            return 0
        return 1 - first if fixed is None else fixed * index

    def name(self, primary: Cards, extensions: Sequence[Cards], position: int) -> str | None:
        """The CCD of the extension at this position (from 0), by its own header where `extensions` reach that far.

        Else by those before it; None where they do not tell.
        """
        try:
            readout = self._likely(primary, extensions)
            if readout is None or position > len(extensions):
                return None
            whole = readout.whole(True, max(len(extensions), stated_extensions(primary) or 0))
            if position < len(extensions):
                return readout.text(readout.place(extensions[position], position, whole))
            place = readout.following(extensions, whole)
            return readout.text(place) if place else None
        except CameraError:
            return None

    def _likely(self, primary: Cards, extensions: Sequence[Cards]) -> Readout | None:
        """The readout by the extensions, or where there are none by how many there should be."""
        if extensions or len(self.readouts) == 1:
            return self.readout(extensions)
        stated = stated_extensions(primary)
        fit = [one for one in self.readouts if stated in one.science_extensions + one.calibration_extensions]
        return fit[0] if len(fit) == 1 else None

    def _kind(self, cards: Cards) -> int | None:
        """Which readout an extension is of: by its name, else by its columns."""
        named = [index for index, one in enumerate(self.readouts) if one.names(cards)]
        width = width_of(cards)
        wide = [index for index, one in enumerate(self.readouts) if one.columns == width]
        return next(iter(named or wide), None)

    def _check_kind(self, readout: Readout, place: Place, cards: Cards, position: int) -> None:
        """An extension with a name of another readout is not what its number says."""
        kind = None if readout.names(cards) else self._kind(cards)
        if kind is not None and self.readouts[kind].names(cards):
            raise CameraError(
                f"extension {position + 1} ({readout.text(place)}) has {called(cards)}: it is of the "
                f"{self.readouts[kind].name} readout in a file that is {readout.name}"
            )

    def _check_width(self, readout: Readout, cards: Cards) -> None:
        width = width_of(cards)
        if readout.columns is not None and width != readout.columns:
            raise CameraError(
                f"NAXIS1 of the first extension is {found(width)}; expected {readout.columns}, "
                f"as the {readout.name} readout has"
            )
        readout.strips(width or 0)

    def _strange(self, extensions: Sequence[Cards]) -> str:
        """What a file of no readout has, and what was expected."""
        what = dict.fromkeys(called(cards) for cards in extensions[:3])
        known = "; ".join(
            f"{one.name}: EXTNAME like {one.extension_name}, {one.columns or 'any number of'} columns"
            for one in self.readouts
        )
        return (
            f"its {len(extensions)} extensions are of no readout of this camera ({'; '.join(what)}); expected {known}"
        )


def stated_extensions(primary: Cards) -> int | None:
    """NEXTEND, None where there is none. Raises CameraError for one that is no number."""
    said = primary.get("NEXTEND")
    if said is not None and (isinstance(said, bool) or not isinstance(said, int)):
        raise CameraError(f"NEXTEND is {found(said)}; expected a whole number")
    return said
