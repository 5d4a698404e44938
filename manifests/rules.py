"""Rules between the keys of one manifest; those that need the configuration are in `problems.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .errors import PatternError, Problem, shown
from .parts import DAY, Chop, Kind, registry_name
from .patterns import Pattern, is_wild
from .stated import Stated

Rule = tuple[frozenset[str], Callable[[Stated, bool], Iterator[Problem]]]


def rules(stated: Stated, listed: bool, bad: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """What is wrong between the keys of one manifest; a rule that needs a key named in `bad` is left out."""
    for needs, rule in RULES:
        if not needs & bad:
            yield from rule(stated, listed)


def _source_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    text = stated.source.path
    if listed and is_wild(text):
        yield Problem(
            "source", f'"{shown(str(stated.source), 80)}" is a pattern, but `files` lists what is meant; '
            "give the folder that the listed paths start from"
        )  # fmt: skip
    elif not listed and not text:
        host = stated.source.host
        yield Problem("source", f'"{host}:" has an empty path; name a file, folder or pattern, such as {host}:raw/**')
    elif not listed:
        try:
            Pattern(text)
        except PatternError as error:
            yield Problem("source", str(error))


def _destination_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    place = stated.destination
    if not place.path:
        yield Problem("destination", f'"{place}" has an empty path; name a folder, such as {place.host}:CFHTDeep')
    elif is_wild(place.path):
        yield Problem(
            "destination",
            f'"{shown(str(place), 80)}" is a pattern; a destination is one folder: leave out * ? [ and {{',
        )


def _apart_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    """A copy that would find its own products, or the very files it reads, as its source."""
    source, place = stated.source, stated.destination
    if source.host != place.host or stated.kind is Kind.CHOP or not place.path or is_wild(place.path):
        return
    try:
        pattern = Pattern(source.path) if source.path and not listed else None
    except PatternError:
        return  # _source_rule has said so
    same = source.path == place.path if pattern is None else pattern.fixed == place.path
    if same or (pattern is not None and pattern.matches(f"{place.path}/x")):
        yield Problem("destination", f'"{shown(str(place), 80)}" is within the source; give another folder or host')


def _chop_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    if stated.kind is Kind.CHOP and stated.camera is None:
        yield Problem("camera", 'missing: a chop needs the camera whose files it cuts, such as camera = "cfht_megacam"')
    if stated.kind is not Kind.CHOP and "chop" in stated.model_fields_set and stated.chop != Chop():
        yield Problem(
            "chop",
            f'a manifest of kind "{stated.kind}" cuts nothing; leave [chop] out, or make it kind = "chop"',
        )


def _camera_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    if stated.camera is not None:
        return
    if stated.expects:
        yield Problem("expect", "only a camera knows which files a visit should have; give `camera`")
    if stated.focal_plane:
        yield Problem("focal_plane", "only a camera has focal planes; give `camera`, or leave it out")
    if stated.trigger and stated.trigger.per:
        yield Problem("trigger.per", "only a camera knows the ids of files; give `camera`, or leave `per` out")


def _archive_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    """What only an archive can do, and what a store can."""
    if stated.kind is not Kind.ARCHIVE:
        for key, value in (("bundle", stated.bundle), ("second", stated.second)):
            if value is not None:
                yield Problem(
                    key, f'only a manifest of kind "archive" has `{key}`, and this one is of kind "{stated.kind}"'
                )
        if stated.proof == "store":
            yield Problem(
                "proof", '"store" is the digest of a mass store, which only a manifest of kind "archive" fills'
            )
    elif stated.second == stated.destination.host:
        yield Problem("second", f'"{stated.second}" is the destination already; a second copy lies on another store')
    if stated.pin and stated.transient:
        yield Problem("transient", "what is pinned never goes, and what is transient may; give one of the two")


def _bundle_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    per = stated.bundle.per if stated.bundle else ()
    for name in sorted({name for name in per if per.count(name) > 1}):
        yield Problem("bundle.per", f'"{shown(name, 40)}" is listed twice; leave one out')
    if stated.camera is None and any(name != DAY for name in per):
        yield Problem(
            "bundle.per", f'only a camera knows the ids of files; give `camera`, or ["{DAY}"], or leave it out'
        )


def _expect_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    if stated.expects and listed:
        yield Problem("expect", "`files` already lists what should exist; give one of `files` and `expect`")
    seen: set[frozenset[tuple[str, int | str]]] = set()
    for number, ids in enumerate(stated.expect):
        if registry_name(ids) is not None:
            continue
        key = frozenset(ids.items())
        if not ids:
            yield Problem(f"expect[{number}]", "found an empty table; expected ids such as {visit = 85770111}")
        elif key in seen:
            said = " ".join(f"{name}={value}" for name, value in ids.items())
            yield Problem(f"expect[{number}]", f"{said} is listed twice; leave one out")
        seen.add(key)


def _per_rule(stated: Stated, listed: bool) -> Iterator[Problem]:
    per = stated.trigger.per if stated.trigger else ()
    for name in sorted({name for name in per if per.count(name) > 1}):
        yield Problem("trigger.per", f'"{shown(name, 40)}" is listed twice; leave one out')


RULES: tuple[Rule, ...] = (
    (frozenset({"source", "files"}), _source_rule),
    (frozenset({"destination"}), _destination_rule),
    (frozenset({"source", "destination", "kind", "files"}), _apart_rule),
    (frozenset({"kind", "camera", "chop"}), _chop_rule),
    (frozenset({"camera", "expect", "trigger", "focal_plane"}), _camera_rule),
    (frozenset({"expect", "files"}), _expect_rule),
    (frozenset({"trigger"}), _per_rule),
    (frozenset({"kind", "destination", "bundle", "second", "proof", "pin", "transient"}), _archive_rule),
    (frozenset({"camera", "bundle"}), _bundle_rule),
)
