"""A route keeps to its hours and to its rate."""

from __future__ import annotations

import time
from datetime import time as Clock

import pytest

from manifests.errors import ManifestError
from stager.config import parse_config
from stager.hours import is_open
from stager.routes import Throttle
from tests.stager.site import Site


@pytest.mark.parametrize(
    ("hours", "now", "open_"),
    [
        (None, "12:00", True),
        ("08:00-18:00", "08:00", True),
        ("08:00-18:00", "18:00", False),
        ("20:00-06:00", "23:59", True),
        ("20:00-06:00", "05:59", True),
        ("20:00-06:00", "06:00", False),
        ("20:00-06:00", "12:00", False),
    ],
)
def test_hours_may_go_over_midnight(hours: str | None, now: str, open_: bool) -> None:
    assert is_open(hours, Clock.fromisoformat(now)) is open_


def test_a_rate_holds_those_up_who_are_too_quick() -> None:
    counted: list[int] = []
    throttle = Throttle(1_000_000, counted.append, bool)
    begun = time.monotonic()
    for _ in range(15):
        throttle(100_000)
    assert sum(counted) == 1_500_000
    assert time.monotonic() - begun >= 0.9  # 1.5 s of bytes, of which half a second may have been saved up


def test_what_stops_is_not_held_up() -> None:
    begun = time.monotonic()
    Throttle(1000, bool, lambda: True)(10**9)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    "said", [{"hours": "25:00-06:00"}, {"hours": "late"}, {"bytes_per_s": 0}, {"bytes_per_s": "fast"}, {"speed": 1}]
)
def test_a_limit_that_cannot_be_kept_is_refused(site: Site, said: dict[str, object]) -> None:
    hosts = {name: {"kind": "local", "root": "/data"} for name in "ab"}
    with pytest.raises(ManifestError):
        parse_config({"hosts": hosts, "routes": {"a > b": said}}, site.folder / "stager.toml")
