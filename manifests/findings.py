"""What a look into a file found: a code for programs, a severity for the policy, a sentence for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; a manifest's `hold` says from which one on an item is held."""

    NOTE = "note"  # ugly and sound: an archive's way of writing
    WARN = "warn"  # a person should know: the file is brought over, and reported
    FAIL = "fail"  # the file is not what it should be

    @property
    def rank(self) -> int:
        """0 for a note, 2 for a failure."""
        return list(Severity).index(self)

    def reaches(self, least: str) -> bool:
        """Whether it is at least as bad as `least`: a severity's name, or "none", which nothing reaches."""
        return least != "none" and self.rank >= Severity(least).rank


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is worth saying of a file. `hdus` are those it is about, 0 the primary; empty: the file."""

    code: str
    severity: Severity
    text: str
    hdus: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{spans(self.hdus)}{self.text}"


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings with those that say the same of several HDUs made one, the worst first."""
    found: dict[tuple[str, Severity, str], Finding] = {}
    for one in findings:
        key = (one.code, one.severity, one.text)
        known = found.get(key)
        found[key] = replace(known, hdus=tuple(sorted({*known.hdus, *one.hdus}))) if known else one
    return sorted(found.values(), key=lambda one: -one.severity.rank)


def spans(hdus: tuple[int, ...]) -> str:
    """The HDUs in words before a sentence: "", "HDU 3: ", "HDUs 1-36: "."""
    if not hdus:
        return ""
    runs: list[list[int]] = []
    for hdu in sorted(hdus):
        if runs and hdu == runs[-1][1] + 1:
            runs[-1][1] = hdu
        else:
            runs.append([hdu, hdu])
    said = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"HDU{'s' if len(hdus) > 1 else ''} {said}: "
