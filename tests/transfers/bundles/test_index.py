"""An index says what is in a bundle in one way, whatever the order, and nothing else is read as one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transfers.bundles.crafted import T0_NS, index_of, signed
from tests.transfers.bundles.test_headers import paths, times
from transfers.bundles.index import (
    BUNDLE,
    ENDING_BYTES,
    LAST,
    Entry,
    Index,
    beside_bytes,
    label_of,
    layout_of,
    member_size,
    name_of,
    packed_size,
    parse_beside,
    parse_index,
)
from transfers.errors import SourceCorrupt

members = st.lists(
    st.tuples(paths, st.integers(0, 1 << 40), times), min_size=1, max_size=20, unique_by=lambda one: one[0]
)
SMALL = index_of({"D1/raw/a.fits": b"1", "D1/raw/b c.fits": b"", os.fsdecode(b"D1/raw/\xe9.fits"): b"x" * 600})


def _sound(found: list[tuple[str, int, int]]) -> bool:
    try:
        layout_of("x", found)
    except SourceCorrupt:
        return False
    return True


def _index(label: str, found: list[tuple[str, int, int]], digest: str) -> Index:
    layout = layout_of(label, found)
    return Index(layout.label, tuple(Entry(*one[:3], f"sha256:{digest}", one.offset) for one in layout.members))


def _code(act: Callable[[], object]) -> str:
    with pytest.raises(SourceCorrupt) as error:
        act()
    assert str(error.value).isprintable()
    return str(error.value.facts["code"])


@given(members.filter(_sound), st.text(), st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.randoms())
def test_index_is_read_as_it_was_written_and_knows_no_order(
    found: list[tuple[str, int, int]], label: str, digest: str, random: Any
) -> None:
    index = _index(label, found, digest)
    data = index.to_bytes()
    assert parse_index(data) == index
    layout = layout_of(label, found)
    assert (len(data), layout.size, layout.name) == (
        layout.index_size,
        packed_size(label, found),
        name_of(label, found),
    )
    assert layout.size <= ENDING_BYTES + sum(member_size(*one) for one in found)  # and little less
    assert layout.size > sum(member_size(*one) for one in found) - 19 * len(found)
    beside = parse_beside(beside_bytes(data, layout.size, f"sha256:{digest}"))
    assert (beside.index, beside.size, beside.digest) == (index, layout.size, f"sha256:{digest}")
    random.shuffle(found)
    assert layout_of(label, found) == layout
    assert _index(label, found, digest).to_bytes() == data


def test_other_members_make_another_name() -> None:
    one, other = ("a", 1, 5), ("b", 2, 6)
    made = {
        name_of("x", found)
        for found in (
            [one],
            [one, other],
            [("c", 1, 5)],
            [("a", 2, 5)],
            [("a", 1, 6)],
        )
    }
    assert len(made) == 5
    assert name_of("x", [other, one]) in made
    assert name_of("y", [one]) not in made


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("visit=85501968", "visit=85501968"),
        ("2009-11-12", "2009-11-12"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("D1/raw r\n", "D1-raw-r"),
        ("", "bundle"),
        ("Ü", "bundle"),
        ("x" * 300, "x" * 100),
    ],
)
def test_name_carries_of_a_label_what_a_name_may_have(text: str, label: str) -> None:
    assert label_of(text) == label
    name = name_of(text, [("a", 1, 1)])
    assert name.startswith(f"{label}.")
    assert name.endswith(BUNDLE)
    assert len(os.fsencode(f".{name}.index.1-1.part")) < 255


def test_bundle_of_nothing_is_none() -> None:
    assert _code(lambda: layout_of("x", [])) == "bundle-members"


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([("a", 1, 1), ("a", 1, 1)], "bundle-duplicate"),
        ([("a", 1, 1), ("a/b", 1, 1)], "bundle-clash"),
        ([("../a", 1, 1)], "bundle-climbs"),
        ([("\ud800", 1, 1)], "bundle-climbs"),
        ([("a", -1, 1)], "bundle-size"),
        ([("a", 1 << 63, 1)], "bundle-size"),
        ([("a", 1, 1 << 63)], "bundle-size"),
    ],
)
def test_members_that_no_bundle_may_have_are_refused_before_it_is_made(
    found: list[tuple[str, int, int]], code: str
) -> None:
    assert _code(lambda: layout_of("x", found)) == code


def test_every_changed_byte_is_seen() -> None:
    data = SMALL.to_bytes()
    for place in range(len(data)):
        harmed = bytearray(data)
        harmed[place] ^= 1
        with pytest.raises(SourceCorrupt):
            parse_index(bytes(harmed))


@pytest.mark.parametrize("length", [0, 1, LAST - 1, LAST, LAST + 1, -1])
def test_index_that_was_cut_is_refused(length: int) -> None:
    assert _code(lambda: parse_index(SMALL.to_bytes()[:length])) == "bundle-index"
    assert _code(lambda: parse_index(SMALL.to_bytes()[-length:])) == "bundle-index" if length > 0 else True


# Indexes that say of themselves that they are right, and are not.


def _lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SMALL.to_bytes()[:-LAST].splitlines()]


def _resigned(lines: list[Any], **facts: Any) -> bytes:
    texts = [line if isinstance(line, str) else json.dumps(line, separators=(",", ":")) for line in lines]
    size = layout_of(SMALL.label, [one[:3] for one in SMALL.entries]).size
    return signed("".join(f"{text}\n" for text in texts).encode(), size, **facts)


def test_the_crafted_index_is_sound_but_for_what_is_crafted() -> None:
    assert _resigned(_lines()) == SMALL.to_bytes()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": 1.0}, "bundle-index"),
        ({"size": True}, "bundle-index"),
        ({"size": "1"}, "bundle-index"),
        ({"size": None}, "bundle-index"),
        ({"size": -1}, "bundle-size"),
        ({"size": 1 << 63}, "bundle-size"),
        ({"offset": -512}, "bundle-size"),
        ({"mtime_ns": 1 << 63}, "bundle-size"),
        ({"offset": float("nan")}, "bundle-index"),
        ({"offset": 1 << 40}, "bundle-offset"),
        ({"offset": 1024}, "bundle-offset"),
        ({"size": 600}, "bundle-offset"),
        ({"sha256": "0" * 63}, "bundle-index"),
        ({"sha256": "A" * 64}, "bundle-index"),
        ({"path": "../a"}, "bundle-climbs"),
        ({"path": "/etc/passwd"}, "bundle-climbs"),
        ({"path": ".stager/marker"}, "bundle-climbs"),
        ({"path": "D1/raw/\ud800"}, "bundle-climbs"),
        ({"path": "D1/raw/b c.fits"}, "bundle-duplicate"),
        ({"path": "D1"}, "bundle-clash"),
        ({"path": "D1/raw/z.fits"}, "bundle-order"),
        ({"path": "D1/raw/0.fits"}, "bundle-foreign-index"),
        ({"mtime_ns": T0_NS + 7}, "bundle-foreign-index"),
        ({"more": 1}, "bundle-index"),
    ],
)
def test_index_that_lies_about_a_member_is_refused(change: dict[str, Any], code: str) -> None:
    first, one, *rest = _lines()
    assert _code(lambda: parse_index(_resigned([first, one | change, *rest]))) == code


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[]",
        "5",
        "null",
        "{",
        "[" * 8000,
        '{"path":"a","path":"b"}',
        '{"path": "a"}' + " " * 9000,
        '{"path":"\\ud800',
        "\u00e9",
        '{"size":' + "9" * 5000 + "}",
        '{"size":Infinity}',
    ],
)
def test_line_that_is_no_member_is_refused(line: str) -> None:
    first, _, *rest = _lines()
    assert _code(lambda: parse_index(_resigned([first, line, *rest]))) == "bundle-index"


def test_key_that_is_given_twice_is_refused() -> None:
    first, one, *rest = _lines()
    twice = json.dumps(one, separators=(",", ":"))[:-1] + ',"size":1}'
    with pytest.raises(SourceCorrupt, match="given twice"):
        parse_index(_resigned([first, twice, *rest]))


def test_line_that_is_written_otherwise_is_refused() -> None:
    first, one, *rest = _lines()
    for text in (json.dumps(one), json.dumps(dict(reversed(one.items())), separators=(",", ":"))):
        assert _code(lambda text=text: parse_index(_resigned([first, text, *rest]))) == "bundle-index"  # type: ignore[misc] # a default of a lambda


def test_index_that_lists_a_member_twice_is_refused() -> None:
    first, one, *rest = _lines()
    assert _code(lambda: parse_index(_resigned([first | {"files": 4}, one, one, *rest]))) == "bundle-duplicate"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"format": "other"}, "bundle-index"),
        ({"version": 2}, "bundle-version"),
        ({"version": True}, "bundle-index"),
        ({"bundle": "visit=2.000000000000.stager.tar"}, "bundle-foreign-index"),
        ({"label": "visit=2"}, "bundle-foreign-index"),
        ({"label": "../x"}, "bundle-foreign-index"),
        ({"files": 4}, "bundle-foreign-index"),
        ({"bytes": 7}, "bundle-foreign-index"),
    ],
)
def test_index_that_lies_about_its_bundle_is_refused(change: dict[str, Any], code: str) -> None:
    first, *rest = _lines()
    assert _code(lambda: parse_index(_resigned([first | change, *rest]))) == code


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"files": 2}, "bundle-index"),
        ({"files": 1_000_001}, "bundle-index"),
        ({"files": -1}, "bundle-index"),
        ({"index_bytes": 1 << 40}, "bundle-index"),
        ({"index_bytes": 300}, "bundle-index"),
        ({"bundle_bytes": 10240}, "bundle-foreign-index"),
        ({"bundle_bytes": 1 << 63}, "bundle-index"),
        ({"sha256": "0" * 64}, "bundle-index"),
        ({"sha256": 5}, "bundle-index"),
        ({"end": "other"}, "bundle-index"),
        ({"more": 1}, "bundle-index"),
    ],
)
def test_last_line_that_lies_is_refused(facts: dict[str, Any], code: str) -> None:
    assert _code(lambda: parse_index(_resigned(_lines(), **facts))) == code


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data[:-200] + data[-200:].replace(b'"bundle_bytes":9', b'"bundle_bytes":8'),
        lambda data: data[:-10] + b"0" * 7 + data[-3:] + b"\n",
        lambda data: data[: -LAST // 2],
        lambda data: data.replace(b"ab" * 32, b"AB" * 32),
        lambda data: SMALL.to_bytes(),
        lambda data: b"\n" * 500,
        lambda data: b"",
        lambda data: data.replace(b'"bundle_bytes":', b'"bundle_bytes": '),
    ],
)
def test_file_beside_a_bundle_that_was_changed_is_refused(change: Callable[[bytes], bytes]) -> None:
    size = layout_of(SMALL.label, [one[:3] for one in SMALL.entries]).size
    data = beside_bytes(SMALL.to_bytes(), size, "sha256:" + "ab" * 32)
    assert parse_beside(data).index == SMALL
    assert change(data) != data
    with pytest.raises(SourceCorrupt):
        parse_beside(change(data))
