"""A camera's file is checked when it is read: all that is wrong in one error, each with its place."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.camera_reading import read_camera
from manifests.cameras import load, names
from manifests.errors import CameraFileError

MEGACAM = names()["cfht_megacam"].read_text()


def problems(text: str) -> dict[str, str]:
    """Place and sentence of every problem of a camera's file."""
    with pytest.raises(CameraFileError) as error:
        read_camera(text.encode(), "x.toml")
    assert str(error.value).startswith("x.toml: ")
    assert str(error.value).isprintable()
    return {one.place: one.text for one in error.value.problems}


@pytest.mark.parametrize("name", names())
def test_every_shipped_camera_is_sound(name: str) -> None:
    assert load(name).title


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        (("title =", "titel ="), "titel", 'did you mean "title"?'),
        (('raw_layout = "raw"', 'raw_layout = "raws"'), "raw_layout", 'did you mean "raw"?'),
        (('ccd = { kind = "int" }', 'ccd = { kind = "integer" }'), "ids.ccd.kind", '"int", "text" or "pair"'),
        (('ccd = { kind = "int" }', 'CCD = { kind = "int" }'), "ids", "small letters"),
        (('pattern = "[a-z]"', 'pattern = "[a-z"'), "ids.suffix.pattern", "no regular expression"),
        (("a{amp}.fits", "a{amplifier}.fits"), "layouts.raw.templates[0]", "the id amplifier"),
        (("a{amp}.fits", "a{amp:x}.fits"), "layouts.raw.templates[0]", "brace that is no id"),
        (("c{ccd:02d}", "c{ccd:pair}"), "layouts.raw.templates[0]", 'of kind "pair"'),
        (('"{field}/raw', '"/{field}/raw'), "layouts.raw.templates[0]", "absolute"),
        (('"{field}/raw', '"{field}/../raw'), "layouts.raw.templates[0]", '".."'),
        (('"{visit}{suffix}.fits"', '"{visitt}{suffix}.fits"'), "input.templates[0]", "visitt"),
        (('obstypes = ["DARK"]', 'obstypes = ["bias"]'), "layouts.dark.obstypes", "stands for bias already"),
        (('[obstype]\nkeywords = ["OBSTYPE", "EXPTYPE"]', ""), "obstype", "missing"),
        (("[obstype]\n", '[obstype]\notherwise = "rav"\n'), "obstype.otherwise", 'did you mean "raw"?'),
        (("amp = [0, 1]", "amp = [0, 2]"), "expected.amp", "found 2"),
        (("amp = [0, 1]", "amp = [0, 0]"), "expected.amp", "listed twice"),
        (("amp = [0, 1]", "amp = []"), "expected.amp", "a list of 0"),
        (("amp = [0, 1]", "amp = [true]"), "expected.amp", "expected a list"),
        (("amp = [0, 1]", "amps = [0, 1]"), "expected.amps", 'did you mean "amp"?'),
        (("amp = [0, 1]", 'amp = [0, 1]\nnccd = ["36"]'), "expected.nccd", "no path of a layout"),
        (("last = 35", "last = 10000"), "expected.ccd", "at most 10000"),
        (("last = 35", "lost = 35"), "expected.ccd", "found a table (first, lost)"),
        (("last = 39", 'last = "39"'), "focal_planes.spliced40.ccd", "expected a list"),
        (('layout = "dc3a_raw"', 'layout = "dc3a"'), "focal_planes.dc3a.layout", 'did you mean "dc3a_raw"?'),
        (("piece = { first", "pieces = { first"), "focal_planes.dc3a.pieces", 'did you mean "piece"?'),
        (("[header.visit]", "[header.vist]"), "header.vist", 'did you mean "visit"?'),
        (('match = "i.*2"', 'match = "i.*(2"'), "header.filter.cases[0].match", "no regular expression"),
        (("gives = '\\1'", "gives = '\\3'"), "header.filter", "invalid group reference 3"),
        (("gives = '\\g<0>'", "gives = '\\g<x>'"), "header.field", "unknown group name"),
        (("constant = 0", "constant = -1"), "header.snap", "constant is -1"),
        (("constant = 0", ""), "header.snap", "gives nothing"),
        (("'([0-9A-Za-z]+)\\..*'", "'[0-9A-Za-z]+\\..*'"), "header.run", "has no group"),
        (('"DETSECA"', '"A B C"'), None, "a FITS keyword"),
        (('extension_id = "ccd"', 'extension_id = "cdd"'), "chop.extension_id", 'did you mean "ccd"?'),
        (('amp_id = "amp"', 'amp_id = "exptime"'), "chop.amp_id", "all pieces would have one path"),
        (("[input]", "[inputs]"), "input", "there is a [chop]"),
        (('"00 01 02', '"00 01 zz'), "map", "lacks 2"),
        (("[focal_planes.detrend18]", '[focal_planes."de 18"]'), "focal_planes.de 18", "no name of a focal plane"),
        (('"field", "visit", "filter"', '"field", "visitt", "filter"'), "registry", "visitt"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(change: tuple[str, str], place: str | None, said: str) -> None:
    assert change[0] in MEGACAM
    told = problems(MEGACAM.replace(*change, 1))
    assert said in (" ".join(told.values()) if place is None else told[place])


def test_problems_between_tables_are_told_beside_those_within(tmp_path: Path) -> None:
    text = MEGACAM.replace('raw_layout = "raw"', 'raw_layout = "raws"').replace('"00 01 02', '"00 01 zz')
    text = text.replace('ccd = { kind = "int" }', 'ccd = { kind = "int", patern = "x" }').replace("title =", "titel =")
    text = text.replace("[header.visit]", "[header.vist]").replace("science = true", 'science = "yes"', 1)
    assert problems(text).keys() == {
        "title", "titel", "raw_layout", "map", "ids.ccd.patern", "header.vist", "layouts.raw.science",
    }  # fmt: skip


def test_values_are_taken_as_ids_have_them(tmp_path: Path) -> None:
    text = (
        names()["lsst_imsim"].read_text().replace('"0,1", "0,2", "0,3",\n', '"01", 02, "0,3",\n'.replace("02", '"02"'))
    )
    (tmp_path / "own.toml").write_text(text)
    assert load("own", [tmp_path]).sets == load("lsst_imsim").sets


def test_a_visit_of_millions_of_files_is_refused() -> None:
    span = "{ first = 0, last = 9999 }"
    text = MEGACAM.replace("amp = [0, 1]", f"amp = [0, 1]\nvisit = {span}", 1).replace("last = 35", "last = 99", 1)
    assert "2000000 files" in problems(text)["expected"]


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        yield (*place, key)
        yield from leaves(one, (*place, key))


DOCUMENT = tomllib.loads(MEGACAM)
PLACES = list(leaves(DOCUMENT))
JUNK = st.sampled_from(
    [3, -1, 1.5, True, "x", "(", "{", "../x", "{visit}", "\x1b[31m", [], {}, [1], ["x"], [[]], 10**30]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cameras")


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=4))
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_words(
    folder: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    document = copy.deepcopy(DOCUMENT)
    for place, junk in changes:
        table: Any = document
        try:
            for key in place[:-1]:
                table = table[key]
            table[place[-1]] = junk
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the table away
    (folder / "own.toml").write_text(toml(document))
    try:
        camera = load("own", [folder])
        next(camera.expected({}), None)
        camera.identify("D2/raw/v788033-fi/s00/c23-a0.fits")
    except CameraFileError as error:
        said = str(error)
        assert said.isprintable()


def toml(document: dict[str, Any]) -> str:
    return "".join(f"{key_text(key)} = {value_text(value)}\n" for key, value in document.items())


def key_text(key: str) -> str:
    return value_text(str(key))


def value_text(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key_text(key)} = {value_text(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in value) + '"'
    return str(value).lower()
