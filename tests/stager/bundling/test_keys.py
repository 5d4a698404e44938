"""What files are bundled with."""

from __future__ import annotations

import pytest

from manifests.parts import Bundling
from stager.bundling.keys import key_of

DAY_S = 86400 * 10**9


@pytest.mark.parametrize(
    ("per", "ids", "mtime_ns", "key"),
    [
        ((), {"visit": 7}, 0, ""),
        (("visit",), {"visit": 7, "ccd": 3}, 0, "visit=7"),
        (("ccd", "visit"), {"visit": 7, "ccd": 3}, 0, "ccd=3 visit=7"),
        (("visit", "ccd"), {"visit": 7}, 0, "visit=7"),
        (("visit",), {}, 0, ""),
        (("day",), {}, DAY_S - 1, "day=1970-01-01"),
        (("day",), {}, DAY_S, "day=1970-01-02"),
        (("visit", "day"), {"visit": 7}, 14785 * DAY_S, "visit=7 day=2010-06-25"),
        (("day",), {}, None, ""),
    ],
)
def test_files_are_bundled_by_what_the_manifest_names(
    per: tuple[str, ...], ids: dict[str, int], mtime_ns: int | None, key: str
) -> None:
    assert key_of(Bundling(per=per), ids, 5, mtime_ns) == key


def test_large_files_go_as_they_are_and_missing_ones_are_waited_for() -> None:
    rule = Bundling(below=100)
    assert key_of(rule, {}, 99, 0) == ""
    assert key_of(rule, {}, 100, 0) is None
    assert key_of(rule, {}, None, None) == ""
    assert key_of(None, {}, 5, 0) is None
