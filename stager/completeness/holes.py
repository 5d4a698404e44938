"""Which files of a whole exposure are lacking, told in few words and without loss. Pure: data in, data out."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from manifests.errors import shown
from stager.counts import counted

Value = int | str
Key = tuple[Value, ...]  # of one file: its value of each id of the sets, in their order
Sets = Mapping[str, Sequence[Value]]  # what a whole exposure has of each id, the slowest first

MOST_BLOCKS = 9  # told one by one; of more, their places are told instead


@dataclass(frozen=True)
class Block:
    """Files that have any of some values of each id: the product of `values`, which go as the ids of the sets do."""

    values: tuple[tuple[Value, ...], ...]

    @property
    def count(self) -> int:
        """How many files it is."""
        return _product(map(len, self.values))

    def files(self) -> Iterator[Key]:
        return itertools.product(*self.values)


def blocks(keys: Collection[Key]) -> list[Block]:
    """The keys as blocks that have no file in common: `files()` of all of them together are the keys.

    Values of an id are put together where all that follows is the same for them, so that a sensor without its
    second snap is one block, and so is a missing snap.
    """
    if () in keys:
        return [Block(())]
    rest: dict[Value, list[Key]] = {}
    for first, *others in keys:
        rest.setdefault(first, []).append(tuple(others))
    alike: dict[frozenset[Key], list[Value]] = {}
    for first, tails in rest.items():
        alike.setdefault(frozenset(tails), []).append(first)
    made = []
    for tail, values in alike.items():
        made += [Block((_ordered(values), *block.values)) for block in blocks(tail)]
    return sorted(made, key=lambda block: [_place(value) for values in block.values for value in values[:1]])


def told(
    sets: Sets, keys: Collection[Key], places: Sequence[str] = (), what: str = "missing", most: int = MOST_BLOCKS
) -> list[str]:
    """Sentences without an end, such as `raft 2,3 sensor 1,1: 16 of 32 missing (snap 1)`; at most `most` and one.

    `places` are the ids that tell where on the focal plane a file belongs, the outermost first; what else there
    is (snap, channel, amplifier) is told in brackets. Where the keys lie too scattered to be named, places are
    told with how many of their files it is, and where there are too many places, the outermost of them.
    """
    if not keys:
        return []
    names = [*(name for name in places if name in sets), *(name for name in sets if name not in places)]
    best = min((_blocks_in(sets, keys, order) for order in (names, list(sets))), key=len)
    if len(best) <= most:
        return [_sentence(sets, block, places, what) for block in best]
    outer = [name for name in names if name in places] or names[:1]
    for depth in range(len(outer), 0, -1):
        counts = _counts(sets, keys, outer[:depth])
        if len(counts) <= most or depth == 1:
            return _scattered(sets, counts, outer[:depth], what, most)
    raise AssertionError("the outermost places are always told")


def _blocks_in(sets: Sets, keys: Collection[Key], order: Sequence[str]) -> list[Block]:
    """The blocks of the keys when their ids are taken in this order; with values in the order of the sets again."""
    names = list(sets)
    there = [names.index(name) for name in order]
    back = [order.index(name) for name in names]
    found = blocks([tuple(key[index] for index in there) for key in keys])
    return [Block(tuple(block.values[index] for index in back)) for block in found]


def _sentence(sets: Sets, block: Block, places: Sequence[str], what: str) -> str:
    where: list[tuple[str, str]] = []
    within: list[tuple[str, str]] = []
    whole = 1
    for (name, every), values in zip(sets.items(), block.values, strict=True):
        said = "" if set(values) == set(every) else _values(name, values, every)
        if said:
            (where if name in places else within).append((name, said))
        whole *= len(values) if name in places or not set(values) <= set(every) else len(every)
    where.sort(key=lambda one: list(places).index(one[0]))
    head = " ".join(said for _, said in where)
    tail = ", ".join(said for _, said in within)
    return f"{head}{': ' if head else ''}{_of(block.count, whole)} {what}{f' ({tail})' if tail else ''}"


def _scattered(sets: Sets, counts: Mapping[Key, int], names: Sequence[str], what: str, most: int) -> list[str]:
    """How many files of each place, those with the most first where not all can be told."""
    whole = _product(len(every) for name, every in sets.items() if name not in names)
    ordered = sorted(counts, key=lambda key: [_place(value) for value in key])
    chosen = set(sorted(ordered, key=lambda key: -counts[key])[:most])
    lines = []
    for key in (key for key in ordered if key in chosen):
        head = " ".join(f"{name} {_value(value)}" for name, value in zip(names, key, strict=True))
        lines.append(f"{head}: {_of(counts[key], whole)} {what}")
    left = len(counts) - len(chosen)
    if left:
        files = sum(counts.values()) - sum(counts[key] for key in chosen)
        lines.append(f"{counted(left, f'more {names[-1]}')}: {files} {what}")
    return lines


def _counts(sets: Sets, keys: Iterable[Key], names: Sequence[str]) -> dict[Key, int]:
    there = [list(sets).index(name) for name in names]
    counts: dict[Key, int] = {}
    for key in keys:
        place = tuple(key[index] for index in there)
        counts[place] = counts.get(place, 0) + 1
    return counts


def _of(count: int, whole: int) -> str:
    return f"all {whole}" if count == whole and whole > 1 else f"{count} of {whole}" if whole > 1 else str(count)


def _values(name: str, values: Sequence[Value], every: Sequence[Value]) -> str:
    """`ccd 5, 17-19`, `raft 2,3 2,4`, or what is not among them where that is shorter: `every raft but 2,2`."""
    others = [value for value in every if value not in set(values)]
    if set(values) <= set(every) and len(others) < len(values) and len(values) > 3:
        return f"every {name} but {_list(others)}"
    return f"{name} {_list(values)}"


def _list(values: Sequence[Value]) -> str:
    if not all(isinstance(value, int) for value in values):
        return " ".join(map(_value, values))
    runs: list[list[int]] = []
    for number in sorted(int(value) for value in values):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    spans = (run if len(run) < 3 else [f"{run[0]}-{run[-1]}"] for run in runs)
    return ", ".join(str(one) for span in spans for one in span)


def _value(value: Value) -> str:
    return shown(str(value), 40)


def _ordered(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(sorted(values, key=_place))


def _place(value: Value) -> tuple[bool, int, str]:
    """Numbers by their size, before text by its letters."""
    return (True, 0, value) if isinstance(value, str) else (False, value, "")


def _product(numbers: Iterable[int]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product
