"""What a manifest says of ids, held against its camera: a trigger would never come, a list would exclude nothing, what
is expected would never be found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath

from .cameras import Camera
from .errors import CameraError, Problem, found, shown
from .layouts import Ids, expectation
from .manifest import Manifest
from .parts import DAY, Kind, RegistryFile
from .wording import nearest

MOST_SAID = 20  # problems of one list that are written out
MOST_VALUES = 5  # of one id that are named
Values = Mapping[str, Collection[int | str]]


def id_problems(manifest: Manifest, camera: Camera) -> Iterator[Problem]:
    """Everything in the manifest's ids that the camera's files do not have."""
    said: list[tuple[str, Sequence[str]]] = [
        ("ids", list(manifest.ids)),
        ("trigger.per", manifest.trigger.per if manifest.trigger else ()),
        ("bundle.per", [name for name in manifest.bundle.per if name != DAY] if manifest.bundle else ()),
        *((f"expect[{number}]", list(ids)) for number, ids in enumerate(manifest.expect)),
    ]
    for place, names in said:
        yield from (problem for name in names if (problem := _unknown(camera, place, name)))
    tables = [("ids", manifest.ids), *((f"expect[{n}]", ids) for n, ids in enumerate(manifest.expect))]
    for place, ids in tables:
        yield from _value_problems(camera, place, ids)
    yield from _first(_exclusion_problems(manifest, camera))
    try:
        usual = camera.expected_sets(manifest.focal_plane)
    except CameraError as error:
        yield Problem("focal_plane", str(error))
        return
    yield from _expect_problems(manifest, camera)
    if manifest.registry is not None:
        tells = {} if manifest.kind is Kind.CHOP else usual
        yield from _registry_problems(manifest.registry, camera, tells, usual)


def _unknown(camera: Camera, place: str, name: str) -> Problem | None:
    if name in camera.id_names:
        return None
    near = nearest(name, camera.id_names)
    return Problem(place, f'{camera.name} has no id "{shown(name, 40)}"{near}; its ids: {_names(camera.id_names)}')


def _value_problems(camera: Camera, place: str, ids: Ids) -> Iterator[Problem]:
    """Values that an id of the camera cannot have, such as text for a visit."""
    for name, value in ids.items():
        rule = camera.ids.get(name)
        if rule and rule.own(value) is None:
            yield Problem(f"{place}.{name}", f"found {found(value)}; expected {expectation(rule)}")


def _expect_problems(manifest: Manifest, camera: Camera) -> Iterator[Problem]:
    for number, ids in enumerate(manifest.expect):
        if "visit" not in ids and "visit" not in manifest.ids and all(name in camera.id_names for name in ids):
            yield Problem(f"expect[{number}]", "names no visit; expected a number, or ids such as {visit = 85770111}")
        try:
            next(camera.expected(ids, manifest.focal_plane), None)
        except CameraError as error:
            yield Problem(f"expect[{number}]", str(error))


def _exclusion_problems(manifest: Manifest, camera: Camera) -> Iterator[Problem]:
    """Each id, and each value of it, that a list names and the camera has not, where it is named first."""
    every = values_of(camera)
    sound: dict[tuple[str, str], bool] = {}
    for number, one in enumerate(manifest.exclusions, 1):
        for name, text in one.ids.items():
            if (name, text) in sound or (name, "") in sound:
                continue
            place = f"accept.except, entry {number}"
            if problem := _unknown(camera, place, name):
                sound[name, ""] = False
                yield problem
                continue
            wrong = _wrong(camera, every, name, text)
            sound[name, text] = wrong is None
            if wrong is not None:
                said = " ".join(f"{name}={shown(value, 40)}" for name, value in one.ids.items())
                yield Problem(place, f"{said}: {wrong}")


def values_of(camera: Camera) -> dict[str, set[int | str]]:
    """The values that an id has in any of the camera's focal planes."""
    every: dict[str, set[int | str]] = {}
    for sets in (camera.sets, *(plane.sets for plane in camera.focal_planes.values())):
        for name, values in sets.items():
            every.setdefault(name, set()).update(values)
    return every


def _wrong(camera: Camera, every: Values, name: str, value: int | str) -> str | None:
    """A sentence where no file of the camera has this value of an id."""
    rule = camera.ids.get(name)
    own = rule.own(value) if rule else value
    if rule and own is None:
        return f"found {found(value)} for {name}; expected {expectation(rule)}"
    if own is not None and name in every and own not in every[name]:
        known = ", ".join(map(str, sorted(every[name], key=lambda one: (isinstance(one, str), one))))
        return f"{camera.name} has no {name} {shown(str(value), 40)}; its {name}s: {known}"
    return None


def _registry_problems(registry: RegistryFile, camera: Camera, tells: Values, usual: Values) -> Iterator[Problem]:
    """`tells` are the ids that tell the files of a visit apart, `usual` the values in a whole visit."""
    place = f"expect, {shown(PurePath(registry.path).name, 80)}"
    lacking = [name for name, values in tells.items() if len(values) > 1 and name not in registry.ids]
    if lacking:
        yield Problem(
            place, f"its table raw has no column {_names(lacking)}, which the files of {camera.name} are told apart "
            f"by; its ids: {_names(registry.ids)}",
        )  # fmt: skip
    for name, values in registry.ids.items():
        if name not in camera.id_names and name != "visit":
            continue
        if problem := _unknown(camera, place, name):
            yield problem
            continue
        wrong = [said for value in values if (said := _wrong(camera, usual, name, value)) is not None]
        yield from (Problem(f"{place}: {name}", said) for said in wrong[:MOST_VALUES])
        if len(wrong) > MOST_VALUES:
            yield Problem(f"{place}: {name}", f"and {len(wrong) - MOST_VALUES} more values like these")


def _first(every: Iterator[Problem]) -> Iterator[Problem]:
    more = 0
    for number, problem in enumerate(every):
        if number < MOST_SAID:
            yield problem
        else:
            more += 1
    if more:
        yield Problem("accept.except", f"and {more} more like these")


def _names(names: Collection[str]) -> str:
    return ", ".join(shown(name, 40) for name in sorted(names)) or "none"
