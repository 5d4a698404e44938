"""What a restore comes to, or came to, as lines for people and as plain data. Nothing here asks the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stager.counts import counted
from stager.drawing import size
from stager.restoring.amounts import Amount
from transfers.errors import shown

if TYPE_CHECKING:
    from stager.restoring.judging import Verdict
    from stager.restoring.planning import Plan, Plans
    from stager.restoring.rooms import Room
    from stager.restoring.stored import Recalls

MOST_LINES = 20  # of one kind that a terminal is shown; `--json` has all


def amount(of: Amount) -> str:
    """`12 files, 1.3 GB`."""
    return f"{counted(of.files, 'file')}, {size(of.bytes)}"


def plan_lines(plans: Plans) -> Iterator[str]:
    """What restores come to before anything is done: each manifest, then all together, then what stands in the way."""
    for one in plans.manifests:
        yield f"{one.name}: {one.source} to {one.destination}"
        yield from (f"  {line}" for line in _plan_lines(one))
    if len(plans.manifests) > 1:
        amounts = ", ".join(
            f"{amount(plans.total(name))} {words}"
            for name, words in (
                ("in_place", "in place and proven"),
                ("there", "to be compared"),
                ("to_come", "to come"),
            )
        )
        yield f"in sum: {amounts}"
        for name, found in plans.recalls.items():
            if found.recall.files:
                yield f"from tape at {name}: {_recalls(found)}"
    yield from (f"room at {', '.join(room.hosts)}: {_room(room)}" for room in plans.rooms)
    if plans.total("to_come").files:
        yield f"likely time: {plans.whole}"
    yield from some([f"in the way: {problem}" for problem in plans.problems])


def _plan_lines(one: Plan) -> Iterator[str]:
    if one.down is not None:
        return
    yield f"{amount(one.in_place)} in place and proven, by their size and time"
    if one.there.files:
        yield f"{amount(one.there)} there, to be read and taken where they are the same"
    lost = f", of them {amount(one.lost)} that were proven and are gone or changed" if one.lost.files else ""
    yield f"{amount(one.to_come)} to come{lost}"
    if one.recalls.recall.files:
        yield f"of that from tape: {_recalls(one.recalls)}"
    if one.excluded:
        yield f"{one.excluded} left out by the accept list"
    yield from some(one.notes)


def _recalls(found: Recalls) -> str:
    """`120 files of the store, 960 GB, on 7 volumes, 3 of them on their way already`."""
    words = [
        f"{counted(found.recall.files, 'file')} of the store",
        size(found.recall.bytes),
    ]
    if found.volumes:
        words.append(f"on {counted(len(found.volumes), 'volume')}")
    if found.staging:
        words.append(f"{found.staging} on the way already")
    return ", ".join(words)


def _room(room: Room) -> str:
    free = "the host does not say how much there is" if room.free is None else f"{size(room.free)} may be used"
    return f"{size(room.needed)} needed, {free}"


def some(lines: Sequence[str], what: str = "lines") -> list[str]:
    """The first of the lines, each on one line, and how many more there are."""
    more = [f"and {len(lines) - MOST_LINES} more {what}; `--json` has them all"] if len(lines) > MOST_LINES else []
    return [shown(line) for line in lines[:MOST_LINES]] + more


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """What a restore came to: a line for each manifest, what is not as it should be, what else is worth a word."""
    for one in verdict.manifests:
        yield f"{one.name}: {one.sentence()}" if one.standing.total.files else f"{one.name}:"
        yield from (f"  {line}" for line in some([*one.problems, *one.lacking]))
        # Where it is told by visit what is missing, it is not told by file too.
        entries = [str(entry) for entry in one.entries if not (one.lacking and entry.state == "missing")]
        yield from (f"  {line}" for line in some(entries, "files"))
        yield from (f"  remark: {line}" for line in some(one.remarks))
    yield from some(verdict.problems)
    yield verdict.sentence()


def plans_as_dict(plans: Plans) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "manifests": [_plan_as_dict(one) for one in plans.manifests],
        "sum": {name: asdict(plans.total(name)) for name in ("in_place", "there", "to_come", "lost")},
        "recalls": {name: _recalls_as_dict(found) for name, found in plans.recalls.items()},
        "rooms": [room.as_dict() for room in plans.rooms],
        "time": {name: getattr(plans, name).as_dict() for name in ("transfer", "recall", "whole")},
        "problems": plans.problems,
    }


def _plan_as_dict(one: Plan) -> dict[str, Any]:
    said = asdict(one)
    down = said.pop("down")
    return said | {
        "recalls": _recalls_as_dict(one.recalls),
        "down": None if down is None or one.down is None else one.down.as_dict(),
    }


def _recalls_as_dict(found: Recalls) -> dict[str, Any]:
    return asdict(found) | {"volumes": sorted(found.volumes)}
