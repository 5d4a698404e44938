"""Lists of datasets as announceDataset.py of DC3b reads them: `raw visit=793310 filter=r ccd=9 amp=1` a line.

`#` begins a comment anywhere; `>intids visit ccd` says which ids are whole numbers, all others are text. Blanks stand
between ids, so that no type and no id can have one in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stager.queues.announcing import Announced, Dataset, Excluded
from stager.queues.errors import Undeliverable
from transfers.errors import shown


def write(announced: Announced, about: Sequence[str] = (), flush: int = 0) -> str:
    """A list of what is announced, with what is excluded as comments.

    `about` goes before it as comments; `flush` datasets whose ids are 0 end it, which make pipelines that wait for more
    data come to their end. Raises Undeliverable for an id that no list can say.
    """
    lines = [*(f"# {shown(text)}" for text in about)]
    if numbers := _numbers(announced.datasets):
        lines.append(f">intids {' '.join(numbers)}")
    lines += [line_of(dataset) for dataset in announced.datasets]
    lines += _left_out(announced)
    if announced.datasets and flush:
        first = announced.datasets[0]
        lines += [line_of(Dataset(first.type, dict.fromkeys(first.ids, 0)))] * flush
    return "".join(f"{line}\n" for line in lines)


def line_of(dataset: Dataset) -> str:
    """`raw visit=793310 filter=r ccd=9 amp=1`. Raises Undeliverable for an id that no list can say."""
    for name, value in (("the type", dataset.type), *dataset.ids.items()):
        if any(c.isspace() or c == "#" or not c.isprintable() for c in str(value)):
            raise Undeliverable(f"{name} is {shown(repr(value))}, which no list of datasets can say")
    return " ".join([dataset.type, *(f"{name}={value}" for name, value in dataset.ids.items())])


def _numbers(datasets: Sequence[Dataset]) -> list[str]:
    """The ids that are whole numbers wherever they occur."""
    kinds: dict[str, bool] = {}
    for dataset in datasets:
        for name, value in dataset.ids.items():
            kinds[name] = kinds.get(name, True) and isinstance(value, int)
    return [name for name, whole in kinds.items() if whole]


def _left_out(announced: Announced) -> Iterator[str]:
    for one in announced.excluded:
        yield f"#{_what(one)}  # excluded: {shown(one.reason or 'by the accept list')}"
    for path in announced.without_ids:
        yield f"# not announced, for want of ids: {shown(path)}"


def _what(excluded: Excluded) -> str:
    try:
        return line_of(excluded.dataset) if excluded.dataset else f" {shown(excluded.path)}"
    except Undeliverable:
        return f" {shown(excluded.path)}"
