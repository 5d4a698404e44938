"""What is said of an eviction, in lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from manifests.errors import shown
from stager.counts import counted
from stager.drawing import size
from stager.durations import duration
from stager.evicting.evicting import Evicted, Report
from stager.evicting.purging import Emptied, Told

MOST_LINES = 20  # of files that are named; `--json` has all
MOST_CHARS = 2000
COLUMNS: list[str | tuple[str, str]] = ["These stay, for", ("Files", "right"), ("Bytes", "right"), "Such as"]


def lines(report: Report) -> Iterator[str]:
    """What went, or would go, and how much of what was wanted that is."""
    if report.wanted <= 0:
        quarantined = f" and {size(report.leaving)} in quarantine" if report.leaving else ""
        yield f"{report.host} has {size(report.free)} free{quarantined}: nothing need go"
        return
    for one in report.evicted[:MOST_LINES]:
        yield shown(_line(report, one), MOST_CHARS)
    if len(report.evicted) > MOST_LINES:
        yield f"and {len(report.evicted) - MOST_LINES} more; `--json` has them all"
    of = f"{counted(len(report.evicted), 'file')}, {size(report.bytes)} of {size(report.wanted)}"
    if report.dry_run:
        yield f"{of}, would go into quarantine once their others are proven"
    elif report.evicted:
        until = f"are in quarantine, for {duration(report.grace_s)}" if report.grace_s else "were evicted"
        yield f"{of}, {until}"


def _line(report: Report, one: Evicted) -> str:
    hosts = ", ".join(dict.fromkeys(place.partition(":")[0] for place in one.others))
    return f"{report.host}:{one.path}  {size(one.size)}, {'known' if report.dry_run else 'proven'} at {hosts}"


def shortage(report: Report) -> str | None:
    """The sentence for who asked for more than could go."""
    if report.enough:
        return None
    lacking = report.wanted - report.bytes
    could = "could" if not report.dry_run else "would"
    why = "" if report.refused else ": no more copies are named"
    return f"{report.host}: {size(lacking)} of {size(report.wanted)} {could} not be evicted{why}"


def rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Why what was looked at stays, a row for each reason, for a table of COLUMNS."""
    return [
        (str(why), str(tally.files), size(tally.bytes), shown("; ".join(tally.examples), MOST_CHARS))
        for why, tally in report.refused.items()
    ]


def of_quarantine(emptied: Emptied, *, put_back: bool = False) -> Iterator[str]:
    """What left quarantine; `put_back`: it was to return to its place, and not to be removed."""
    if emptied.removed or not (emptied.returned or put_back):
        yield f"{counted(emptied.removed, 'file')}, {size(emptied.removed_bytes)}, removed from quarantine for good"
    if emptied.returned or put_back:
        yield f"{counted(emptied.returned, 'file')}, {size(emptied.returned_bytes)}, put back"


def trouble_of_quarantine(emptied: Emptied) -> Iterator[str]:
    """What did not leave it as it was to."""
    yield from _told("was put back", emptied.put_back)
    yield from _told("stays in quarantine", emptied.waiting)


def _told(became: str, told: Sequence[Told]) -> Iterator[str]:
    for place, why in told[:MOST_LINES]:
        yield shown(f"{place} {became}: {why}", MOST_CHARS)
    if len(told) > MOST_LINES:
        yield f"and {len(told) - MOST_LINES} more like these; `--json` has them all"
