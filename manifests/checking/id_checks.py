"""A header held against its path, id by id: one that cannot be read hides no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from manifests.errors import found, shown
from manifests.findings import Finding, Severity
from manifests.headers import HeaderRule, Said
from manifests.layouts import Ids

from .looks import INPUT, File

DIFFER, UNREADABLE = "ids-differ", "id-unreadable"


def id_findings(file: File) -> Iterator[Finding]:
    """Where the header says another id than the path, or none where the camera says how it should."""
    yield from _obstype(file)
    for name, of_path in file.ids.items():
        rule = file.camera.header_rules.get(name)
        if rule is not None:
            yield from _id(file, rule, of_path)
    yield from _own_path(file)


def header_ids(file: File, names: Iterable[str]) -> Ids:
    """Those of these ids that the header gives by itself."""
    rules = file.camera.header_rules
    said = {name: _said(file, rules[name]).own for name in names if name in rules}
    return {name: own for name, own in said.items() if own is not None}


def _said(file: File, rule: HeaderRule) -> Said:
    return rule.said(file.joined, file.camera.ids[rule.id_name])


def _id(file: File, rule: HeaderRule, of_path: int | str) -> Iterator[Finding]:
    name, loose = rule.id_name, rule.given == "wins"  # what is written there by hand proves little
    given = _given(file, name)
    if given is not None and given != of_path:
        text = f"the path says {name} {of_path}, and the manifest's [ids] {given}; expected them to agree"
        yield Finding(DIFFER, Severity.WARN if loose else Severity.FAIL, text)
    if given is not None and loose:
        return
    keyword, value, own = _said(file, rule)
    if own is None:
        severity = Severity.NOTE if loose else Severity.WARN
        yield Finding(UNREADABLE, severity, f"{rule.nothing(keyword, value)}; expected {of_path}, as the path says")
    elif own != of_path:
        says = f"{keyword} is {found(value)}, which says {name} {own}" if keyword else f"{name} is {own} by the camera"
        text = f"{says}; expected {of_path}, as the path says"
        yield Finding(DIFFER, Severity.WARN if loose else Severity.FAIL, text, _hdu(file, keyword))
    elif not rule.truncate:
        yield from _second_opinions(file, rule, keyword, own)


def _second_opinions(file: File, rule: HeaderRule, first: str | None, own: int | str) -> Iterator[Finding]:
    """Other cards that give the same id, and give another one."""
    for keyword in rule.keywords:
        if keyword == first or file.joined.get(keyword) is None:
            continue
        said = rule.said({keyword: file.joined.get(keyword)}, file.camera.ids[rule.id_name])
        if said.keyword is not None and said.own not in (None, own, rule.constant):
            text = f"{first} says {rule.id_name} {own}, and {keyword} {said.own}; expected them to agree"
            yield Finding("ids-ambiguous", Severity.WARN, text, _hdu(file, keyword))


def _given(file: File, name: str) -> int | str | None:
    """The manifest's id, as ids have it."""
    value = file.given.get(name)
    return None if value is None else file.camera.ids[name].own(value)


def _obstype(file: File) -> Iterator[Finding]:
    """The header's word for what was exposed, held against the layout, or against the name of a focal plane."""
    layout = file.camera.layouts.get(_layout_name(file))
    if layout is None or not layout.obstypes:
        return
    expected = " or ".join(layout.obstypes)
    if file.obstype is None:
        wanted = " or ".join(file.camera.obstype_keywords)
        text = f"the header has no {wanted}; expected {expected}, as the path says"
        yield Finding(UNREADABLE, Severity.WARN, text)
        return
    keyword, word = file.obstype
    if word.upper() in layout.obstypes:
        return
    known = file.camera.otherwise or any(word.upper() in one.obstypes for one in file.camera.layouts.values())
    # A master is named for what it is, and may keep the word of the exposures that it was made of.
    proven = known and file.layout != INPUT
    text = f"{keyword} is {found(word)}; expected {expected}, as the path says"
    yield Finding(DIFFER, Severity.FAIL if proven else Severity.WARN, text, _hdu(file, keyword))


def _layout_name(file: File) -> str:
    """The layout that a file should be of: a focal plane's name may say so, as in 03Am04.flat.g.36.02.fits."""
    return str(file.ids.get("obstype", "")) if file.layout == INPUT else file.layout


def _own_path(file: File) -> Iterator[Finding]:
    """The path that a chop wrote into the header: ids that no other card gives, such as the amplifier's."""
    rule = file.camera.chop_rule
    value = file.joined.get(rule.path_keyword) if rule else None
    identity = file.camera.identify(value.strip()) if isinstance(value, str) else None
    if rule is None or identity is None or identity[0] != file.layout:
        return
    for name, own in identity[1].items():
        of_path = file.ids.get(name, own)
        if own != of_path and name not in file.camera.header_rules:
            text = f"{rule.path_keyword} is {found(shown(str(value)))}, which says {name} {own}"
            yield Finding(DIFFER, Severity.FAIL, f"{text}; expected {of_path}, as the path says")


def _hdu(file: File, keyword: str | None) -> tuple[int, ...]:
    hdu = file.first(keyword) if keyword else None
    return () if hdu is None or len(file.headers) == 1 else (hdu,)
