"""What a file is bundled with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from manifests.parts import DAY, Bundling
from stager.triggers import label_of


def key_of(rule: Bundling | None, ids: Mapping[str, Any], size: int | None, mtime_ns: int | None) -> str | None:
    """The key of the files that go into one bundle with this one, such as "visit=1257365"; None: it goes as it is.

    A file that is missing at the source has no size yet, and counts as small: its group waits for it. What has none
    of the ids is bundled with what has none of them either.
    """
    if rule is None or (size is not None and size >= rule.below):
        return None
    found = {**ids, **_day(mtime_ns)} if DAY in rule.per else ids
    return label_of({name: found[name] for name in rule.per if name in found})


def _day(mtime_ns: int | None) -> dict[str, str]:
    """The UTC day of a file's time; what is missing has none yet."""
    if mtime_ns is None:
        return {}
    return {DAY: datetime.fromtimestamp(mtime_ns // 10**9, UTC).strftime("%Y-%m-%d")}
