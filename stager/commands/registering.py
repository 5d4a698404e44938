"""The commands of `stager registry`: what landed, by its header; what is missing; what has bad headers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stager.commands.common import ConfigOption, Exit, JsonOption, console, opened, print_json, say

MOST_LINES = 50  # of a report of what is wrong; `--json` has all

app = typer.Typer(no_args_is_help=True, help="What landed, by its header; what is missing; what has bad headers.")


@app.command("check")
def registry_check(
    dataset: Annotated[str | None, typer.Argument(help="A dataset; without it, all.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Completeness by visit, and images whose headers have something wrong.

    Exit status: 0 when every visit is whole and every header good; 1 when not.
    """
    from dataclasses import asdict

    from stager import completeness, drawing, findings

    with opened(config) as (_, database):
        visits = completeness.completeness(database, dataset)
        found = findings.findings(database, dataset)
    whole = all(visit.proven == visit.expected and not visit.bad for visit in visits)
    if as_json:
        print_json({"visits": [asdict(visit) for visit in visits], "findings": [asdict(one) for one in found]})
        raise typer.Exit(Exit.DONE if whole and not found else Exit.FAILED)
    counts = ["expected", "proven", "missing", "registered", "bad"]
    counts[3:3] = [name for name in ("held", "excluded") if any(getattr(visit, name) for visit in visits)]
    rows = [(v.dataset, v.host, v.visit, *(getattr(v, name) for name in counts)) for v in visits]
    headings = ["images" if name == "registered" else name for name in counts]
    columns: list[Any] = ["Dataset", "Host", "Visit", *((name.capitalize(), "right") for name in headings)]
    out = console()
    out.print(drawing.table(columns, rows))
    summaries = findings.summaries(found)
    for line in summaries[:MOST_LINES]:
        out.print(drawing.cell(line))
    if len(summaries) > MOST_LINES:
        say(f"and {len(summaries) - MOST_LINES} more; `--json` has them all")
    raise typer.Exit(Exit.DONE if whole and not found else Exit.FAILED)
