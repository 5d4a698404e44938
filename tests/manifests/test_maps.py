"""Where the parts of a focal plane lie on a map."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import CameraError
from manifests.layouts import IdRule
from manifests.maps import Grid, MapPart, MapRule, map_rule

IDS = {
    "ccd": IdRule("int", "[0-9]{1,18}"),
    "raft": IdRule("pair", "[0-9]{2}"),
    "sensor": IdRule("pair", "[0-9]{2}"),
    "name": IdRule("text", "[NS][0-9]+"),
}
EARS = ("0 1 2", "36 3 4 5 37", "6 . 8")


def rule(*grids: tuple[str, tuple[str, ...]], sets: Any = None) -> MapRule:
    made = map_rule([MapPart(id=name, rows=rows) for name, rows in grids], IDS, sets)
    assert made is not None
    return made


def test_a_camera_without_a_map_has_no_rule() -> None:
    assert map_rule([], IDS) is None


def test_rows_are_read_as_people_write_ids() -> None:
    grid = rule(("raft", ("23 2,4",))).grids[0]
    assert grid == Grid("raft", (("2,3", "2,4"),))
    assert rule(("ccd", ("00 01", "2"))).grids[0].rows == ((0, 1), (2,))


def test_a_shorter_row_stands_in_the_middle_by_halves_of_a_place() -> None:
    places = rule(("ccd", EARS)).grids[0].places
    assert places[36] == (1, 0)
    assert places[0] == (0, 2)
    assert places[8] == (2, 6)
    staggered = rule(("ccd", ("0 1 2", "3 4"))).grids[0].places
    assert staggered[3] == (1, 1)


def test_a_point_leaves_a_place_empty() -> None:
    grid = rule(("ccd", EARS)).grids[0]
    assert grid.rows[2] == (6, None, 8)
    assert 7 not in grid.places


def test_each_place_of_the_outer_grid_has_all_of_the_inner_one() -> None:
    both = rule(("raft", ("01 02",)), ("sensor", ("00 01", "10 11")))
    assert both.ids == ("raft", "sensor")
    places = list(both.places())
    assert len(places) == 8
    assert places[0] == ("0,1", "0,0")
    assert places[-1] == ("0,2", "1,1")


def test_a_file_belongs_to_the_place_of_its_ids_whatever_else_it_has() -> None:
    both = rule(("raft", ("01 02",)), ("sensor", ("00 01",)))
    assert both.key({"visit": 7, "raft": "0,2", "sensor": "0,1", "channel": "0,0"}) == ("0,2", "0,1")
    assert both.key({"visit": 7, "raft": "0,2"}) is None
    assert both.key({"raft": "4,4", "sensor": "0,1"}) is None


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        ([("chip", ("1 2",))], 'has the id "chip", which [ids] does not describe'),
        ([("ccd", ("1 2", "2 3"))], "[[map]] of ccd has 2 twice"),
        ([("ccd", ("1 x",))], '[[map]] of ccd has "x"; expected a whole number'),
        ([("ccd", (". .",))], "has no value in its rows"),
        ([("ccd", ("",))], "has no value in its rows"),
        ([("ccd", ("1",)), ("ccd", ("1",))], "each once"),
        ([("ccd", ("...",))], 'has "..."; expected'),
        ([("ccd", (" ".join(map(str, range(200))),) * 1), ("raft", ("01 " + ". " * 99,))], "would have 20000 places"),
    ],
)
def test_what_is_wrong_with_a_map_is_said(grids: list[tuple[str, tuple[str, ...]]], said: str) -> None:
    with pytest.raises(CameraError) as error:
        rule(*grids)
    assert said in str(error.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(CameraError) as error:
        rule(("ccd", ("1 1 x",)), ("chip", ("1",)))
    for said in ("has 1 twice", '"x"', '"chip"'):
        assert said in str(error.value)


def test_a_map_must_have_all_that_is_expected() -> None:
    assert rule(("ccd", ("0 1 2",)), sets={"ccd": (0, 1), "amp": (0, 1)})
    with pytest.raises(CameraError, match=r"lacks 3 4 5 6 7 and 2 more, which \[expected\] has"):
        rule(("ccd", ("0 1 2",)), sets={"ccd": range(10)})


def test_control_characters_in_a_map_are_not_repeated() -> None:
    with pytest.raises(CameraError) as error:
        rule(("ccd", ("\x1b[31m",)))
    assert "\x1b" not in str(error.value)


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=9), min_size=1, max_size=6))
def test_no_two_values_lie_in_one_place(rows: list[list[int]]) -> None:
    values = iter(dict.fromkeys(one for row in rows for one in row))
    unique = [[next(values, None) for _ in row] for row in rows]
    kept = [row for row in ([one for one in row if one is not None] for row in unique) if row]
    grid = rule(("ccd", tuple(" ".join(map(str, row)) for row in kept))).grids[0]
    taken = [(row, half + side) for row, half in grid.places.values() for side in range(2)]
    assert len(set(taken)) == len(taken)
    assert all(0 <= half <= 2 * (grid.width - 1) for _, half in grid.places.values())
