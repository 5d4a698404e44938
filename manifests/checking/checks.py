"""What a file's headers say, held against what its camera expects of them, its path, and its siblings.

A finding is no verdict: what holds a file is for its manifest to say. Archives write headers in all manner of ways
and their files are sound; what is only ugly is a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median_low
from typing import Any, TypeVar

from manifests.cameras import Camera
from manifests.clocks import SECONDS_A_DAY
from manifests.errors import found
from manifests.findings import Finding, merged
from manifests.headers import Times, misspelt, number_of

from .card_texts import card_texts
from .check_rules import CheckRule, MjdOf, Seen, same
from .extension_checks import extension_findings
from .id_checks import header_ids, id_findings
from .looks import Cards, File

__all__ = ["Cards", "CheckRule", "check", "odd_ones"]

# What is done without a camera's asking: the amplifiers of an exposure were read out together.
SIBLINGS = (
    CheckRule(sibling="mjd", within=0.01),
    CheckRule(sibling="exptime", within=0.001),
    CheckRule(sibling="filter"),
)
SIBLING_CODES = {"mjd": "sibling-mjd", "exptime": "sibling-exptime", "filter": "sibling-filter"}
MOST_SHOWN = 3  # values that a sentence lists

Key = TypeVar("Key")


def check(
    camera: Camera,
    path: str,
    headers: Sequence[Cards],
    given: Mapping[str, int | str],
    siblings: Sequence[Mapping[str, Any]] = (),
) -> list[Finding]:
    """All that is to be said of a file of this camera, the worst first; `headers` are those of all its HDUs.

    `path` is where it lies, `given` are its manifest's [ids]; `siblings` are other files of the same exposure, each
    with what is known of its "mjd", "exptime" and "filter". Never raises, whatever the headers are.
    """
    file = File(camera, path, headers, given)
    times = _times(file)
    every = merged(
        [
            *card_texts(file),
            *id_findings(file),
            *extension_findings(file),
            *(finding for one in times.values() for finding in one.problems),
            *(finding for rule in camera.checks for finding in _rule_findings(file, rule, times)),
            *_sibling_findings(file, times, siblings),
        ]
    )
    return every if len(headers) > 1 else merged(replace(one, hdus=()) for one in every)


# ------------------------------------------------------------------------------------------- times


def _times(file: File) -> dict[int | None, Times]:
    """The times of every HDU that has one, their problems with the HDU; of the whole file (None) where none has."""
    rule = file.camera.time_rule
    if rule is None or not file.headers:
        return {}
    timed = [hdu for hdu, header in enumerate(file.headers) if rule.mjd in header]
    times: dict[int | None, Times] = {hdu: file.camera.times(file.seen_from(hdu)) for hdu in timed}
    if not timed:
        return {None: file.camera.times(file.joined)}
    return {hdu: _placed(one, hdu) for hdu, one in times.items()}


def _placed(times: Times, hdu: int | None) -> Times:
    if hdu is None or not times.problems:
        return times
    problems = tuple(Finding(one.code, one.severity, one.text, (hdu,)) for one in times.problems)
    return Times(times.mjd, times.scale, times.exptime, problems)


def _is_usable(times: Times, what: str) -> bool:
    """Whether no problem is known of a time: one that has its finding is held against nothing more."""
    return not any(one.code.startswith(f"{what}-") for one in times.problems)


# ------------------------------------------------------------------------------------------- rules


def _rule_findings(file: File, rule: CheckRule, times: Mapping[int | None, Times]) -> Iterator[Finding]:
    if rule.sibling or not _of_file(file, rule):
        return
    for keyword in rule.keywords:
        hdus = [hdu for hdu in file.hdus(rule.where, keyword) if _of_header(file, rule, hdu)]
        if rule.required and rule.where == "first" and not hdus and file.first(keyword) is None:
            yield _missing(file, rule, keyword, None)
        values = {}
        for hdu in hdus:
            value = file.headers[hdu].get(keyword)
            if value is None or (rule.unknown and rule.is_unknown(value)):
                if rule.required:
                    yield _missing(file, rule, keyword, hdu)
                continue
            values[hdu] = value
            if rule.tests and not _known_bad(file, rule, keyword, times.get(hdu)):
                seen = Seen(file.seen_from(hdu), file.ids, file.camera.ids)
                yield from (_at(finding, hdu) for finding in rule.faults(keyword, value, seen))
        if rule.alike:
            yield from _unlike(rule, keyword, values)
        if rule.distinct:
            yield from _repeated(rule, keyword, values)


def _of_file(file: File, rule: CheckRule) -> bool:
    """Whether the rule's conditions on the whole file hold."""
    if not rule.of_file:
        return True
    words = {"layout": file.layout, "obstype": file.obstype[1] if file.obstype else None}
    return all(any(same(words[name], one) for one in values) for name, values in rule.of_file)


def _of_header(file: File, rule: CheckRule, hdu: int) -> bool:
    """Whether the rule's conditions on cards hold, for this header and those that it inherits from."""
    if not rule.of_cards:
        return True
    seen = file.seen_from(hdu)
    return all(any(same(seen.get(name), one) for one in values) for name, values in rule.of_cards)


def _known_bad(file: File, rule: CheckRule, keyword: str, times: Times | None) -> bool:
    """Whether the rule is about an MJD that has its finding already."""
    mjd = file.camera.time_rule.mjd if file.camera.time_rule else None
    of_time = keyword == mjd and any(isinstance(test, MjdOf) for test in rule.tests)
    return of_time and times is not None and not _is_usable(times, "mjd")


def _missing(file: File, rule: CheckRule, keyword: str, hdu: int | None) -> Finding:
    header = file.joined if hdu is None else file.headers[hdu]
    value = header.get(keyword)
    if value is not None:
        what = f"{keyword} is {found(value)}, which stands for no value"
    elif hdu is not None and keyword in file.headers[hdu]:
        what = f"{keyword} has no value"
    else:
        what = f"{keyword} is absent{misspelt(keyword, header)}"
    return _at(rule.finding("card-missing", what, "expected a value"), hdu)


def _unlike(rule: CheckRule, keyword: str, values: Mapping[int, Any]) -> Iterator[Finding]:
    """HDUs of one file whose values differ from the others', or all of them where no value prevails."""
    if all(same(value, next(iter(values.values())), rule.within) for value in values.values()):
        return
    odd = odd_ones(values, rule.within)
    for hdu in odd:
        usual = next(value for other, value in values.items() if other not in odd)
        what = f"{keyword} is {found(values[hdu])} where most HDUs have {found(usual)}"
        yield _at(rule.finding("cards-unlike", what, "expected one value in all of them"), hdu)
    if not odd:
        some = list(dict.fromkeys(found(value) for value in values.values()))
        what = f"{keyword} is {' and '.join(some[:MOST_SHOWN])} in one file"
        finding = rule.finding("cards-unlike", what, "expected one value in all HDUs")
        yield Finding(finding.code, finding.severity, finding.text, tuple(values))


def _repeated(rule: CheckRule, keyword: str, values: Mapping[int, Any]) -> Iterator[Finding]:
    """HDUs of one file that have a value in common."""
    places: dict[str, list[int]] = {}
    for hdu, value in values.items():
        places.setdefault(str(value).strip().upper(), []).append(hdu)
    for hdus in places.values():
        if len(hdus) > 1:
            what = f"{keyword} is {found(values[hdus[0]])} in {len(hdus)} HDUs"
            finding = rule.finding("card-repeated", what, "expected another value in each")
            yield Finding(finding.code, finding.severity, finding.text, tuple(hdus))


def _at(finding: Finding, hdu: int | None) -> Finding:
    return finding if hdu is None else Finding(finding.code, finding.severity, finding.text, (hdu,))


# ---------------------------------------------------------------------------------------- siblings


def _sibling_findings(
    file: File, times: Mapping[int | None, Times], siblings: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """What the file says otherwise than most others of its exposure."""
    if not siblings:
        return
    rules = {rule.sibling: rule for rule in (*SIBLINGS, *file.camera.checks) if rule.sibling}
    for name, rule in rules.items():
        others = [one[name] for one in siblings if one.get(name) is not None]
        value = _own(file, times, name) if others else None
        if value is None or others.count(value) * 2 > len(others):
            continue
        within = rule.within / SECONDS_A_DAY if name == "mjd" else rule.within
        usual, agree = _usual(others, within)
        if agree * 2 > len(others) and not same(value, usual, within):
            most = f"{found(usual)} in {agree} of {len(others)} other files of the exposure"
            yield rule.finding(
                SIBLING_CODES[name], f"{name} is {found(value)}, and {most}", "expected one value in all"
            )


def _own(file: File, times: Mapping[int | None, Times], name: str) -> Any:
    """What this file has of that which siblings have in common; None for a time that has a finding of its own."""
    first = next(iter(times.values()), Times())
    if name in ("mjd", "exptime"):
        return getattr(first, name) if _is_usable(first, name) else None
    return header_ids(file, (name,)).get(name)


def odd_ones(values: Mapping[Key, Any], within: float = 0.0) -> list[Key]:
    """The keys whose value is not the one that more than half share; none where no value is so common.

    Numbers within `within` of each other are one value. None is no value: it neither counts nor is odd.
    """
    known = {key: value for key, value in values.items() if value is not None}
    usual, agree = _usual(list(known.values()), within)
    if agree * 2 <= len(known):
        return []
    return [key for key, value in known.items() if not same(value, usual, within)]


def _usual(values: Sequence[Any], within: float) -> tuple[Any, int]:
    """The value that more than half share, where there is one, and how many share it."""
    numbers = [number for value in values if (number := number_of(value)) is not None]
    # A cluster of more than half of all holds their median, however they are spread.
    usual: Any = median_low(numbers) if len(numbers) * 2 > len(values) else _commonest(values)
    return usual, sum(same(value, usual, within) for value in values)


def _commonest(values: Sequence[Any]) -> str:
    return max(Counter(str(value) for value in values).items(), key=lambda one: one[1], default=("", 0))[0]
