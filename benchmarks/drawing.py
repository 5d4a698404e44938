"""The figures as one table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.results import Figure


def table(figures: Sequence[Figure], title: str) -> Table:
    """A line a figure: the median of its runs, the least and the most, the goal and whether the median meets it."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for heading in ("", "median", "min - max", "CPU s", "goal", "met"):
        drawn.add_column(heading, justify="left" if heading in ("", "met") else "right", overflow="fold")
    for number, figure in enumerate(figures):
        if number == 0 or figures[number - 1].subject != figure.subject:
            drawn.add_section()
            drawn.add_row(f"[bold]{figure.subject}[/bold]")
        drawn.add_row(*_cells(figure))
    return drawn


def _cells(figure: Figure) -> tuple[str, ...]:
    span = f"{_number(min(figure.values), figure.unit)} - {_number(max(figure.values), figure.unit)}"
    cpu = _number(sorted(figure.cpu_s)[len(figure.cpu_s) // 2], "s") if figure.cpu_s else ""
    goal = f"{'<=' if figure.goal.at_most else '>='} {value(figure.goal.limit, figure.unit)}" if figure.goal else ""
    met = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.met]
    return f"  {figure.what}", value(figure.median, figure.unit), span if len(figure.values) > 1 else "", cpu, goal, met


def value(number: float, unit: str) -> str:
    """A number with its unit, to three digits."""
    return f"{_number(number, unit)} {unit}"


def _number(number: float, unit: str) -> str:
    if unit == "files/s":
        return f"{round(number, -2):,.0f}".replace(",", " ")
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}" if abs(number) >= 0.001 else f"{number:.4f}"
