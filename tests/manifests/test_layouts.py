"""Templates go both ways: ids to path and path to ids."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.cameras import Camera, load, names
from manifests.errors import CameraError
from manifests.layouts import PLACEHOLDER, IdRule, Layout

CAMERAS = [load(name) for name in names()]
CFHT, IMSIM, DECAM = load("cfht_megacam"), load("lsst_imsim"), load("decam")
PATHS = [
    (CFHT, "raw", "D2/raw/v788033-fi/s00/c23-a0.fits"),
    (CFHT, "raw", "W3/raw/v845493-fi2/s00/c00-a1.fits"),
    (CFHT, "bias", "calib/bias/v03Am04n/c35-a1.fits"),
    (CFHT, "dark", "calib/dark/v03Am02-e1800/c00-a0.fits"),
    (CFHT, "flat", "calib/flat/v07Bm06-fz/c09-a0.fits"),
    (CFHT, "fringe", "calib/fringe/v06Am03-fi2/c09-a1.fits"),
    (CFHT, "postISR", "postISR/v788033-fi/c23-a0.fits"),
    (CFHT, "postISRCCD", "postISRCCD/v788033-fi/c23.fits"),
    (CFHT, "visitim", "visitim/v788033-fi2/c23.fits"),
    (CFHT, "calexp", "calexp/v788033-fr/c00.fits"),
    (CFHT, "psf", "psf/v788033-fr/c00.boost"),
    (CFHT, "dc3a_raw", "704893/0/raw-704893-e000-c008-a007.fits"),
    (IMSIM, "raw", "raw/v85471048-fy/E000/R03/S01/imsim_85471048_R03_S01_C10_E000.fits.gz"),
    (IMSIM, "bias", "bias/v0/R23/S11/imsim_0_R23_S11_C00.fits"),
    (IMSIM, "dark", "dark/v1/R23/S11/imsim_1_R23_S11_C00.fits"),
    (IMSIM, "flat", "flat/v2-fr/R23/S11/imsim_2_R23_S11_C17.fits"),
    (IMSIM, "fringe", "fringe/v2-fz/R23/S11/imsim_2_R23_S11_C17.fits"),
    (IMSIM, "postISR", "postISR/v85751839-fr/s1/R23/S11/C07.fits"),
    (IMSIM, "postISRCCD", "postISRCCD/v85751839-fr/s0/R23/S11.fits"),
    (IMSIM, "visitim", "visitim/v85751839-fr/R23/S11.fits"),
    (IMSIM, "calexp", "calexp/v85408556-fr/R23/S11.fits"),
    (IMSIM, "eimage", "eimage/v85408556-fr/E001/R23/eimage_85408556_R23_S11_E001.fits.gz"),
    (DECAM, "exposure", "20130212/ct4m/2013A-0351/c4d_130213_090140_ori.fits.fz"),
    (DECAM, "raw", "2013A-0351/raw/v177764-fg/c25.fits.fz"),
]


@pytest.mark.parametrize(("camera", "layout", "path"), PATHS, ids=[one[2] for one in PATHS])
@pytest.mark.parametrize("before", ["", "obs/CFHTLS", "a/raw/b", "a/b/calib/bias"])
def test_real_paths_go_both_ways(camera: Camera, layout: str, path: str, before: str) -> None:
    whole = f"{before}/{path}" if before else path
    found = camera.identify(whole)
    assert found is not None
    assert found[0] == layout
    assert camera.why_not(whole) is None
    assert camera.layouts[layout].path(found[1]) == path
    assert camera.layouts[layout].base(whole) == before
    assert camera.destination({**found[1], "obstype": layout}) == path


@pytest.mark.parametrize(
    ("camera", "layout", "path"),
    [
        (CFHT, "bias", "CFHTCalib/bias/v06Am03/c00-a1.fits"),
        (CFHT, "flat", "mysql2/calibrations/of/2006/flat/v06Am03-fi2/c00-a1.fits"),
        (CFHT, "dark", "dark/v03Am02-e1800/c00-a0.fits"),
        (IMSIM, "raw", "raw/v85471048-fy/E001/R03/S01/imsim_85471048_R03_S01_C10_E001.fits"),
        (IMSIM, "bias", "calib/bias/v0/R23/S11/imsim_0_R23_S11_C00_E000.fits.gz"),
        (IMSIM, "postISR", "ImSim/postISR/v85751839-fr/s0/R23-S11-C07.fits"),
        (IMSIM, "postISRCCD", "ImSim/postISRCCD/v85751839-fr/s0/R23-S11.fits"),
        (DECAM, "exposure", "anywhere/c4d_130213_090140_zri.fits.fz"),
        (DECAM, "flat", "cals/flat/v177764-fVR/c62.fits"),
    ],
)
def test_other_forms_of_a_path_are_read_too(camera: Camera, layout: str, path: str) -> None:
    found = camera.identify(path)
    assert found is not None
    assert found[0] == layout


def test_the_ids_of_real_paths_are_what_the_registries_hold() -> None:
    assert CFHT.raw_layout.ids("x/D2/raw/v788033-fi/s00/c23-a0.fits") == {
        "field": "D2", "visit": 788033, "filter": "i", "snap": 0, "ccd": 23, "amp": 0,
    }  # fmt: skip
    assert IMSIM.raw_layout.ids("raw/v85471048-fy/E001/R03/S01/imsim_85471048_R03_S01_C10_E001.fits") == {
        "visit": 85471048, "filter": "y", "snap": 1, "raft": "0,3", "sensor": "0,1", "channel": "1,0",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "D2/raw/v788033-fi/s00/c23-a2.fits",
        "D2/raw/v788033-fi/s00/c023-a0.fits",
        "D2/raw/v788033-fi/s00/c3-a0.fits",
        "D2/raw/v0788033-fi/s00/c23-a0.fits",
        "D2/raw/v788033-fi/s00/c23-a0.fits.bak",
        "D2/raw/v788033/s00/c23-a0.fits",
        "raw/v788033-fi/s00/c23-a0.fits",
        "D2/raw/v788033-fi/s00/.c23-a0.fits",
        "D2/raw/v788033-fi/s00/c23-a0.fits\n",
        "",
    ],
)
def test_a_path_that_is_written_otherwise_is_none_of_the_cameras(path: str) -> None:
    assert CFHT.identify(path) is None
    assert CFHT.raw_layout.base(path) is None


@pytest.mark.parametrize(
    "name",
    [
        "imsim_85471049_R03_S01_C10_E000.fits.gz",
        "imsim_85471048_R04_S01_C10_E000.fits.gz",
        "imsim_85471048_R03_S02_C10_E000.fits.gz",
        "imsim_85471048_R03_S01_C10_E001.fits.gz",
    ],
)
def test_a_name_that_contradicts_its_folders_is_refused(name: str) -> None:
    assert IMSIM.identify(f"raw/v85471048-fy/E000/R03/S01/{name}") is None


@pytest.mark.parametrize(
    ("camera", "path", "said"),
    [
        (
            IMSIM,
            "x/raw/v85471048-fy/E000/R23/S01/imsim_85471048_R22_S01_C10_E000.fits.gz",
            '"R23" says raft 2,3, "imsim_85471048_R22_S01_C10_E000.fits.gz" says raft 2,2',
        ),
        (IMSIM, "raw/v1-fy/E000/R23/S01/imsim_2_R23_S01_C10_E000.fits.gz", '"v1-fy" says visit 1'),
        (IMSIM, "raw/v1-fy/E000/R23/S01/imsim_1_R23_S01_C10_E001.fits", '"E000" says snap 0'),
        (IMSIM, "raw/v1-fy/E000/R23/S01/imsim_1_R23_S02_C10_E000.fits", '"S01" says sensor 0,1'),
        (IMSIM, "eimage/v1-fy/E000/R23/eimage_1_R22_S01_E000.fits.gz", "LSST"),
        (IMSIM, "bias/v0/R23/S11/imsim_0_R23_S12_C00.fits", "says sensor 1,2"),
        (CFHT, "704893/0/raw-704894-e000-c008-a007.fits", "says visit 704894"),
        (CFHT, "D2/raw/v788033-fi/s00/c3-a0.fits", '"c3-a0.fits" has "3" for ccd; expected "03"'),
        (CFHT, "D2/raw/v0788033-fi/s00/c03-a0.fits", '"0788033" for visit; expected "788033"'),
    ],
)
def test_it_is_said_why_a_path_that_looks_right_is_none(camera: Camera, path: str, said: str) -> None:
    assert camera.identify(path) is None
    text = camera.why_not(path)
    assert text is not None
    assert said in text or (said == "LSST" and "lsst_imsim's eimage files" in text)
    assert "rename it, or leave it out" in text


@pytest.mark.parametrize("path", ["", "README", "a/b/c.txt", "D2/raw/v788033-fi/s00/c23-a2.fits", "raw/R22/x.fits"])
def test_nothing_is_said_of_a_path_of_no_layout(path: str) -> None:
    for camera in CAMERAS:
        assert camera.why_not(path) is None


def test_what_is_said_of_a_path_is_fit_for_a_terminal() -> None:
    path = "\x1b[31m/raw/v1-fy/E000/R23/S01/imsim_2_R23_S01_C10_E000.fits.gz"
    text = IMSIM.why_not(path)
    assert text is not None
    assert text.isprintable()


def test_a_layout_can_be_written_in_the_form_of_a_path_that_was_found() -> None:
    path = "raw/v85471048-fy/E000/R03/S01/imsim_85471048_R03_S01_C10_E000.fits"
    found = IMSIM.raw_layout.ids(path)
    assert found is not None
    assert IMSIM.raw_layout.path(found) == f"{path}.gz"
    assert IMSIM.raw_layout.like(f"x/{path}").path(found) == path
    assert IMSIM.raw_layout.like(f"{path}.gz") is IMSIM.raw_layout
    assert IMSIM.raw_layout.like("elsewhere") is IMSIM.raw_layout


def test_an_id_in_two_forms_must_agree_too() -> None:
    layout = Layout("x", ("s{snap:02d}/E{snap:03d}.fits",), {"snap": IdRule("int", "[0-9]+")})
    assert layout.ids("s01/E001.fits") == {"snap": 1}
    assert layout.ids("s01/E002.fits") is None


def test_what_is_not_known_becomes_a_wildcard_or_an_error() -> None:
    ids = {"visit": 5, "ccd": 3, "amp": 1}
    assert CFHT.raw_layout.path(ids) == "*/raw/v5-f*/s*/c03-a1.fits"
    with pytest.raises(CameraError, match="needs the id field"):
        CFHT.raw_layout.path(ids, unknown=None)
    with pytest.raises(CameraError, match="needs the id field"):
        CFHT.destination(ids)


@pytest.mark.parametrize(
    "ids",
    [
        {"visit": -1},
        {"visit": "abc"},
        {"field": "../x"},
        {"field": "a/b"},
        {"amp": 2},
        {"filter": 3},
        {"visit": 10**20},
    ],
)
def test_a_value_that_an_id_cannot_have_never_gets_into_a_path(ids: dict[str, int | str]) -> None:
    with pytest.raises(CameraError, match="cannot be"):
        CFHT.raw_layout.path(ids)


def test_focal_planes_are_known_by_their_names() -> None:
    assert CFHT.input is not None
    assert CFHT.input.ids("in/1257365o.fits.fz") == {"visit": 1257365, "suffix": "o"}
    detrend = CFHT.input.ids("03Am04n.flat.i.36.02.fits.gz")
    assert detrend is not None
    assert detrend["run"] == "03Am04n"
    assert detrend["obstype"] == "flat"
    assert CFHT.input.ids("1257365o.fits.bz2") is None
    assert CFHT.input.paths({"visit": 5}) == ("5*.fits", "5*.fits.fz", "5*.fits.gz")


@given(
    st.integers(0, 10**9),
    st.sampled_from("ugrizy"),
    st.integers(0, 1),
    st.sampled_from(IMSIM.sets["raft"]),
    st.sampled_from(IMSIM.sets["channel"]),
)
def test_any_ids_come_back_from_their_path(
    visit: int, band: str, snap: int, raft: int | str, channel: int | str
) -> None:
    ids: dict[str, int | str] = {
        "visit": visit,
        "filter": band,
        "snap": snap,
        "raft": raft,
        "sensor": "1,2",
        "channel": channel,
    }
    assert IMSIM.raw_layout.ids(IMSIM.raw_layout.path(ids)) == ids


TEMPLATES = [
    pytest.param(camera, layout, number, id=f"{camera.name}-{layout.name}-{number}")
    for camera in CAMERAS
    for layout in camera.layouts.values()
    for number in range(len(layout.templates))
]


def values_of(rule: IdRule) -> st.SearchStrategy[int | str]:
    """Any value that an id can have."""
    if rule.kind == "int" and rule.own(10**9) is not None:
        return st.integers(0, 10**9)
    texts = st.from_regex(rule.pattern, fullmatch=True).filter(str.isascii)
    return texts.map(rule.own).filter(lambda value: value is not None).map(lambda value: value or 0)


def ids_of(camera: Camera, template: str) -> st.SearchStrategy[dict[str, int | str]]:
    in_path = dict.fromkeys(sign[1] for sign in PLACEHOLDER.finditer(template))
    return st.fixed_dictionaries({name: values_of(camera.ids[name]) for name in in_path})


@pytest.mark.parametrize(("camera", "layout", "number"), TEMPLATES)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), before=st.sampled_from(["", "obs/", "a/raw/v1-fr/", "calib/"]))
def test_ids_to_path_to_ids_to_path_changes_nothing(
    camera: Camera, layout: Layout, number: int, data: st.DataObject, before: str
) -> None:
    template = layout.templates[number]
    ids = data.draw(ids_of(camera, template))
    path = layout.paths(ids)[layout.templates.index(template)]
    assert camera.identify(before + path) == (layout.name, ids)
    assert layout.paths(ids)[number] == path
    if number == 0:
        assert layout.path(ids) == path


REPEATS = [
    pytest.param(camera, layout, template, sign.start(), id=f"{camera.name}-{layout.name}-{sign[0]}-{sign.start()}")
    for camera in CAMERAS
    for layout in camera.layouts.values()
    for template in layout.templates[:1]  # the others are of the same form
    for sign in PLACEHOLDER.finditer(template)
    if [other[1] for other in PLACEHOLDER.finditer(template)].count(sign[1]) > 1
]


def filled(template: str, value: Callable[[str, int], int | str], rules: dict[str, IdRule]) -> str:
    """The path with a value for each place of an id, whatever the others are."""

    def text(sign: object) -> str:
        match = next(one for one in PLACEHOLDER.finditer(template) if one.span() == sign.span())  # type: ignore[attr-defined]
        width = int(match[2][1]) if match[2] and match[2].endswith("d") else 1
        written = rules[match[1]].text(value(match[1], match.start()), width)
        assert written is not None
        return written

    return PLACEHOLDER.sub(text, template)


def test_there_are_repeats_to_test() -> None:
    assert len(REPEATS) >= 30


@pytest.mark.parametrize(("camera", "layout", "template", "place"), REPEATS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_repeat_that_disagrees_is_refused_and_told(
    camera: Camera, layout: Layout, template: str, place: int, data: st.DataObject
) -> None:
    ids, others = (data.draw(ids_of(camera, template)) for _ in range(2))
    name = next(sign[1] for sign in PLACEHOLDER.finditer(template) if sign.start() == place)
    path = filled(template, lambda one, start: (others if start == place else ids)[one], dict(camera.ids))
    if ids[name] == others[name]:
        assert camera.identify(path) is not None
        return
    assert camera.identify(path) is None
    text = camera.why_not(path)
    assert text is not None
    assert f"says {name} {ids[name]}" in text
    assert f"says {name} {others[name]}" in text


@given(st.text(max_size=60))
def test_no_text_breaks_a_reader(path: str) -> None:
    for camera in CAMERAS:
        found = camera.identify(path)
        assert found is None or camera.layouts[found[0]].base(path) is not None
        camera.why_not(path)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [(".*", "a/b"), (".*", ".."), ("[^x]*", "\x1b[2J"), (".*", ""), (".*", "a\nb"), ("[.]+", ".")],
)
def test_a_loose_pattern_lets_nothing_into_a_path_that_is_no_name(pattern: str, value: str) -> None:
    layout = Layout("x", ("raw/{field}/c.fits",), {"field": IdRule("text", pattern)})
    with pytest.raises(CameraError, match="field cannot be"):
        layout.path({"field": value})
    assert layout.ids(f"raw/{value}/c.fits") is None


def test_digits_of_other_scripts_are_no_numbers() -> None:
    layout = Layout("x", ("v{visit}.fits",), {"visit": IdRule("int", "\\w+")})
    assert layout.ids("v12.fits") == {"visit": 12}
    for text in ("\u0663", "\u00b2", "12a", "1_2"):
        assert layout.ids(f"v{text}.fits") is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("/raw/v{visit}.fits", "absolute"),
        ("raw/../v{visit}.fits", '".."'),
        ("raw//v{visit}.fits", '"//"'),
        ("raw/v{visit}.fits/", '"//" or ends'),
        (".stager/v{visit}.fits", "own folder"),
        ("raw/v.fits", "no id in braces"),
        ("raw/v{visits}.fits", "visits, which"),
        ("raw/v{visit:2d}.fits", "brace"),
        ("raw/v{visit:pair}.fits", 'of kind "pair"'),
        ("raw/R{raft:02d}.fits", 'of kind "int"'),
        ("", "empty"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str, said: str) -> None:
    rules = {"visit": IdRule("int", "[0-9]+"), "raft": IdRule("pair", "[0-9]{2}")}
    with pytest.raises(CameraError) as error:
        Layout("x", (template,), rules)
    assert said in str(error.value)


@pytest.mark.parametrize("pattern", ["(?P<i0>x)", "(?P<i1>x)", "(?P<a>x)(?P=a)"])
def test_a_pattern_that_does_not_fit_into_a_template_is_refused(pattern: str) -> None:
    rules = {"field": IdRule("text", pattern), "visit": IdRule("int", "[0-9]+")}
    with pytest.raises(CameraError, match="with the patterns of its ids"):
        Layout("x", ("{field}-{visit}-{field:text}.fits",), rules)


def test_a_pattern_with_groups_of_its_own_works() -> None:
    layout = Layout(
        "x", ("v{visit}-{field}.fits",), {"visit": IdRule("int", "([0-9])+"), "field": IdRule("text", "(a|b)c")}
    )
    assert layout.ids("v12-ac.fits") == {"visit": 12, "field": "ac"}


def test_of_templates_that_both_match_the_first_in_the_file_counts() -> None:
    text = names()["decam"].read_text()
    assert text.index("[layouts.raw]") < text.index("[layouts.bias]")
    # A camera's folder may bear the name of a layout: what is nearest to the file counts.
    assert DECAM.identify("bias/raw/v5-fr/c01.fits") == (
        "raw",
        {"proposal": "bias", "visit": 5, "filter": "r", "ccd": 1},
    )
