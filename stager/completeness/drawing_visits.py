"""The tables of `stager registry check`: how complete visits are, and what a registry lacks. Nothing here asks the
database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from stager.completeness.drawing_maps import visits_named
from stager.counts import counted
from stager.drawing import ANY_WIDTH, cell, table
from stager.findings import summaries

if TYPE_CHECKING:
    from stager.completeness.auditing import Audit
    from stager.completeness.by_visit import Visit
    from stager.completeness.checks import Check

MOST_WHOLE = 50  # visits that are whole that a terminal is shown
MOST_LINES = 50  # of what is missing; `--json` has all


def check(shown: Check, width: int, *, brief: bool) -> Iterator[RenderableType]:
    """All that `stager registry check` found out."""
    if shown.visits:
        yield from visits(shown.visits, width, brief=brief)
        yield from lacking(shown.visits)
    yield from findings(summaries(shown.findings))
    if shown.registry is not None:
        yield from audit(shown.registry, brief=brief)


def visits(shown: Sequence[Visit], width: int, *, brief: bool) -> Iterator[RenderableType]:
    """The table by visit: one for all where there is room, else one for each dataset at a host. `brief`: of visits
    that are whole only some."""
    kept = list(shown)
    if brief:
        whole = [one for one in shown if one.whole]
        left = {id(one) for one in whole[MOST_WHOLE:]}
        kept = [one for one in shown if id(one) not in left]
    wide = _visits_table(kept, ("Dataset", "Host"))
    if Console(width=ANY_WIDTH, emoji=False).measure(wide).maximum <= width:
        yield wide
    else:
        for (dataset, host), some in groupby(kept, lambda one: (one.dataset, one.host)):
            yield cell(f"{dataset} at {host}", "bold")
            yield _visits_table(list(some), ())
    if len(kept) < len(shown):
        yield cell(_more(len(shown) - len(kept)), "dim")


def _visits_table(some: Sequence[Visit], lead: tuple[str, ...]) -> Table:
    counts = [
        name
        for name in ("found", "proven", "registered", "held", "excluded", "findings")
        if name not in ("held", "excluded", "findings") or any(getattr(one, name) for one in some)
    ]
    heads = [("Images" if name == "registered" else name.capitalize(), "right") for name in counts]
    rows = (
        (
            *((one.dataset, one.host) if lead else ()),
            "no visit" if one.visit is None else one.visit,
            "found" if one.basis == "found" else one.expected,
            *(getattr(one, name) for name in counts),
            cell(one.state, "green" if one.whole else "red"),
        )
        for one in some
    )
    drawn = table([*lead, "Visit", ("Expected", "right"), *heads, "State"], rows)
    drawn.padding = (0, 1, 0, 0)  # so that all of them fit into 80 columns
    return drawn


def lacking(shown: Sequence[Visit]) -> Iterator[Text]:
    """A sentence for each visit of which files are missing, and what else the table cannot say."""
    said = [
        ((one.dataset, one.host), "no visit" if one.visit is None else one.visit, "; ".join(one.lacking))
        for one in shown
        if one.lacking
    ]
    for (dataset, host), some in groupby(said, lambda one: one[0]):
        lines = _alike((visit, sentence) for _, visit, sentence in some)
        yield from _some([cell(f"{dataset} at {host}, {line}") for line in lines])
    yield from _unasked(shown)


def findings(some: Iterable[tuple[str, str, str]]) -> Iterator[Text]:
    """(severity, code, sentence) of what was found in headers, a line each, the first of them."""
    styles = {"fail": "red", "warn": "yellow"}
    lines = [cell(f"{severity}: {said} [{code}]", styles.get(severity, "")) for severity, code, said in some]
    yield from _some(lines)


def _unasked(shown: Sequence[Visit]) -> Iterator[Text]:
    """What is to be said of datasets of which no manifest says which visits there should be."""
    said: dict[tuple[str, str], list[str]] = {}
    for (dataset, host), some in groupby(shown, lambda one: (one.dataset, one.host)):
        found = [one for one in some if one.visit is not None]
        if found and found[0].full and all(one.basis == "found" for one in found):
            most, full = max(one.found + one.missing + one.excluded for one in found), found[0].full
            short = f"; the fullest has {most} of the {full} files of a whole one" if most < full else ""
            said.setdefault((dataset, short), []).append(host)
    for (dataset, short), hosts in said.items():
        where = f"{dataset} at {', '.join(hosts)}"
        yield cell(f"{where}: no manifest says which visits there should be, with `expect`{short}", "dim")


def _more(whole: int) -> str:
    return f"and {counted(whole, 'more visit that is', 'more visits that are')} whole; `--json` has them all"


def _alike(said: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each sentence, with all the visits of which it is to be said."""
    visits: dict[str, list[str]] = {}
    for visit, sentence in said:
        visits.setdefault(sentence, []).append(visit)
    return [f"{visits_named(some)}: {sentence}" for sentence, some in visits.items()]


def _some(lines: Sequence[Text]) -> Iterable[Text]:
    more = [cell(f"and {len(lines) - MOST_LINES} more; `--json` has them all")] if len(lines) > MOST_LINES else []
    return [*lines[:MOST_LINES], *more]


def audit(shown: Audit, *, brief: bool) -> Iterator[RenderableType]:
    """A registry's visits, what is wrong with each, and with the file. `brief`: of sound visits only some."""
    held = (
        f"held against the proven files of {', '.join(shown.against)}" if shown.against else "held against its camera"
    )
    yield cell(f"{shown.path}, a registry of {shown.camera}, {held}", "bold")
    sound = [one for one in shown.visits if one.sound]
    left = {id(one) for one in sound[MOST_WHOLE:]} if brief else set()
    rows = [
        (one.visit, one.expected, one.rows, cell(one.state, "green" if one.sound else "red"))
        for one in shown.visits
        if id(one) not in left
    ]
    expected = "Proven" if shown.against else "Expected"
    yield table(["Visit", (expected, "right"), ("Rows", "right"), "State"], rows)
    if left:
        yield cell(_more(len(left)), "dim")
    lines = [cell(problem, "red") for problem in shown.problems]
    said = ((str(one.visit), "; ".join(one.problems)) for one in shown.visits if one.problems)
    lines += [cell(line) for line in _alike(said)]
    yield from _some(lines)
