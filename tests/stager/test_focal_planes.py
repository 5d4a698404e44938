"""Focal planes as archives have them, looked at and chopped; damaged ones refused as a whole, with the CCD named.

astropy reads what was made, and fitsverify judges it; neither is asked by the chop itself.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits  # type: ignore[import-untyped]  # astropy ships no types

from manifests.cameras import load
from manifests.manifest import Manifest
from manifests.reading import read_text
from stager.focal_planes import Look, Recipes, folder_of, look, named, recipes
from stager.samples import Exposure, amplifier_pixels, focal_plane_pixels, write_focal_plane
from tests.stager.site import Site
from transfers import fits
from transfers.copying import copy
from transfers.errors import HostDown, SourceCorrupt, SourceMissing, TransferError
from transfers.fits import BLOCK, Header, header_bytes
from transfers.hosts import Want, only
from transfers.local import LocalHost
from transfers.tiles import image_cards
from transfers.unpacking import unpack

CFHT = load("cfht_megacam")
ROWS = 33
Hdus = list[tuple[list[bytes], bytes]]  # cards and padded data
Change = Callable[[Hdus], Hdus]


def manifest(crpix: str = "exact", **ids: str) -> Manifest:
    given = "".join(f'\n{name} = "{value}"' for name, value in ids.items())
    return read_text(
        'name = "m"\nkind = "chop"\ndataset = "d"\ncamera = "cfht_megacam"\nsource = "a:*.fits"\n'
        f'destination = "b:out"\n[chop]\ncrpix = "{crpix}"\n[ids]{given}\n',
        "m.toml",
    )


def looked(path: Path, said: Manifest | None = None) -> Look:
    host = LocalHost("a", str(path.parent))
    info = only(host.find([path.name]))
    assert info is not None
    assert not isinstance(info, TransferError)
    return only(look(host, [info], said or manifest(), CFHT))


def recipes_of(path: Path, said: Manifest | None = None, root: str = "/data") -> Recipes:
    said = said or manifest()
    seen = looked(path, said)
    assert seen.problem is None, seen.problem
    hdus = only(LocalHost("a", str(path.parent)).headers([path.name]))
    if isinstance(hdus, TransferError):
        raise hdus
    found = recipes(hdus, CFHT, said, seen.ids, root, ("a", path.name))
    assert len(found.pieces) == seen.files
    return found


def landed(path: Path, root: Path, said: Manifest | None = None) -> dict[tuple[int, int], Path]:
    """The amplifier files that a worker makes of a plain focal plane, by CCD and amplifier."""
    root.mkdir()
    found = recipes_of(path, said, str(root))
    source, destination = LocalHost("a", str(path.parent)), LocalHost("b", str(root))
    destination.open(None)
    wants = [Want(1, 1, path.name, to, piece=piece) for _, to, piece in found.pieces]
    for _, result in copy(source, destination, wants):
        assert not isinstance(result, TransferError), result
    return {(ids["ccd"], ids["amp"]): root / to for ids, to, _ in found.pieces}


def parts(path: Path) -> Hdus:
    raw = path.read_bytes()
    hdus = only(LocalHost("a", str(path.parent)).headers([path.name]))
    assert not isinstance(hdus, TransferError), hdus
    ends = [hdu.offset for hdu in hdus[1:]] + [len(raw)]
    return [
        (list(Header.parse(hdu.header).cards), raw[hdu.data_offset : end]) for hdu, end in zip(hdus, ends, strict=True)
    ]


def written(path: Path, hdus: Hdus) -> Path:
    path.write_bytes(b"".join(header_bytes(cards) + data for cards, data in hdus))
    return path


def carded(index: int, name: str, text: str | None) -> Change:
    """One HDU's card with another value, or without it (None)."""

    def change(hdus: Hdus) -> Hdus:
        cards, data = hdus[index]
        new = None if text is None else f"{name:<8}= {text:>20}".encode().ljust(80)
        kept = [new if fits.keyword(card) == name else card for card in cards]
        hdus[index] = ([card for card in kept if card is not None], data)
        return hdus

    return change


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, not to be changed."""
    folder = tmp_path_factory.mktemp("planes")
    detrend = Exposure(obstype="flat", filter="g.MP9401", crunid="03Am04n")
    return {
        "spliced": write_focal_plane(folder / "1038843o.fits", rows=ROWS),
        "40": write_focal_plane(folder / "1927963o.fits", Exposure(obsid=1927963), rows=ROWS, ccds=range(40)),
        "unspliced": write_focal_plane(folder / "688231o.fits", Exposure(obsid=688231), rows=ROWS, spliced=False),
        "80": write_focal_plane(folder / "675258o.fits", Exposure(obsid=675258), rows=2, ccds=range(40), spliced=False),
        "half": write_focal_plane(folder / "03Am04n.flat.g.18.02.fits", detrend, rows=ROWS, ccds=range(18)),
    }


@pytest.fixture
def own(planes: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of one of them, changed."""

    def make(kind: str = "spliced", *changes: Change) -> Path:
        path = Path(shutil.copy(planes[kind], tmp_path))
        for change in changes:
            written(path, change(parts(path)))
        return path

    return make


# --------------------------------------------------------------------------------------------- what is looked at


@pytest.mark.parametrize(
    ("kind", "files", "folder"),
    [
        ("spliced", 72, "out/D3/raw/v1038843-fr/s00"),
        ("40", 80, "out/D3/raw/v1927963-fr/s00"),
        ("unspliced", 72, "out/D3/raw/v688231-fr/s00"),
        ("80", 80, "out/D3/raw/v675258-fr/s00"),
        ("half", 36, "out/calib/flat/v03Am04n-fg"),
    ],
)
def test_every_kind_is_known_by_its_first_headers(planes: dict[str, Path], kind: str, files: int, folder: str) -> None:
    seen = looked(planes[kind])
    assert (seen.problem, seen.files) == (None, files)
    assert folder_of(CFHT, manifest(), seen.ids) == folder


@pytest.mark.parametrize("target", ["N6205 fo", "MM1842_3", "focus check", "zenith", "D5", ""])
def test_an_object_that_is_no_field_is_refused_until_the_manifest_says_what_it_is(tmp_path: Path, target: str) -> None:
    path = write_focal_plane(tmp_path / "1257365o.fits", Exposure(target=target, obsid=1257365), rows=2)
    problem = looked(path).problem
    assert problem is not None
    assert "give `[ids] field` in the manifest" in problem
    seen = looked(path, manifest(field="D3"))
    assert (seen.problem, seen.ids["field"], seen.files) == (None, "D3", 72)


@pytest.mark.parametrize("kind", ["spliced", "unspliced"])
def test_without_nextend_the_extensions_are_counted(own: Callable[..., Path], kind: str) -> None:
    path = own(kind, carded(0, "NEXTEND", None))
    assert looked(path).files == 72
    assert len(recipes_of(path).pieces) == 72


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("spliced", carded(0, "NEXTEND", "35"), "there are 35 extensions, where a science focal plane of the spliced"),
        ("spliced", carded(1, "NAXIS1", "1056"), "NAXIS1 of the first extension is 1056"),
        ("unspliced", carded(0, "NEXTEND", "36"), "of the unspliced readout has 72 or 80: it is not whole"),
        ("spliced", carded(1, "EXTNAME", "'im1     '"), None),  # its columns tell, and EXTVER its number
        ("spliced", carded(1, "OBSTYPE", "'FOCUS   '"), "leave the file out"),
    ],
)
def test_what_the_first_headers_show_is_said_at_planning(
    own: Callable[..., Path], kind: str, change: Change, said: str | None
) -> None:
    problem = looked(own(kind, change)).problem
    assert (problem is None) if said is None else problem is not None and said in problem


def test_a_file_of_no_readout_is_refused_with_what_it_has(own: Callable[..., Path]) -> None:
    problem = looked(own("spliced", carded(1, "EXTNAME", "'im1     '"), carded(1, "NAXIS1", "1024"))).problem
    assert problem is not None
    assert 'EXTNAME "im1" and 1024 columns' in problem
    assert "spliced: EXTNAME like ccd" in problem


@pytest.mark.parametrize("obstype", ["bias", "DARK", "Flat", "FRINGE"])
def test_calibrations_go_by_their_layouts_in_whatever_case(tmp_path: Path, obstype: str) -> None:
    exposure = Exposure(obstype=obstype, filter="i.MP9701", crunid="03Am04")
    found = recipes_of(write_focal_plane(tmp_path / "03Am04.x.36.00.fits", exposure, rows=2))
    folder = {
        "bias": "calib/bias/v03Am04",
        "DARK": "calib/dark/v03Am04-e615",
        "Flat": "calib/flat/v03Am04-fi",
        "FRINGE": "calib/fringe/v03Am04-fi",
    }[obstype]
    assert found.pieces[71][1] == f"out/{folder}/c35-a1.fits"
    assert (found.readout, found.shift) == ("spliced", 0)


# ------------------------------------------------------------------------------------------------ what is made


@pytest.mark.parametrize(
    ("kind", "crpix", "readout", "shift"),
    [
        ("spliced", "exact", "spliced", -1056),
        ("spliced", "historic", "spliced", -1024),
        ("40", "exact", "spliced", -1056),
        ("half", "exact", "spliced", 0),
        ("unspliced", "exact", "unspliced", 0),
        ("unspliced", "historic", "unspliced", 0),
    ],
)
def test_how_it_was_made_is_told(planes: dict[str, Path], kind: str, crpix: str, readout: str, shift: int) -> None:
    found = recipes_of(planes[kind], manifest(crpix))
    assert (found.readout, found.shift) == (readout, shift)


def test_no_shift_is_told_where_there_was_nothing_to_shift(own: Callable[..., Path]) -> None:
    def change(hdus: Hdus) -> Hdus:
        return [([card for card in cards if fits.keyword(card) != "CRPIX1"], data) for cards, data in hdus]

    assert recipes_of(own("spliced", change)).shift == 0


@pytest.mark.parametrize(("kind", "ccds"), [("spliced", 36), ("40", 40), ("half", 18), ("unspliced", 36)])
def test_every_amplifier_has_its_own_pixels(planes: dict[str, Path], tmp_path: Path, kind: str, ccds: int) -> None:
    found = landed(planes[kind], tmp_path / "out")
    assert sorted(found) == [(ccd, amp) for ccd in range(ccds) for amp in (0, 1)]
    for (ccd, amp), path in found.items():
        pixels = focal_plane_pixels(ccd, ROWS)[:, 1056 * amp : 1056 * (amp + 1)]
        expected = amplifier_pixels(ccd, amp, ROWS) if kind == "unspliced" else pixels
        with astropy_fits.open(path, checksum=True, memmap=False) as hdus:  # a wrong sum is a warning: an error here
            assert len(hdus) == 1
            assert np.array_equal(hdus[0].data, expected), path


def test_an_amplifier_as_read_out_keeps_its_sections_and_its_gain(planes: dict[str, Path], tmp_path: Path) -> None:
    found = landed(planes["unspliced"], tmp_path / "out")
    with astropy_fits.open(planes["unspliced"]) as source:
        for (ccd, amp), path in found.items():
            letter = "ab"[amp]
            header = astropy_fits.getheader(path)
            assert header["AMPNAME"] == f"{ccd:02d}{letter}"
            assert header["DATASEC"] == "[1:1024,1:1]"
            theirs = next(hdu.header for hdu in source[1:] if hdu.header["AMPNAME"] == header["AMPNAME"])
            for name in ("DETSEC", "BIASSEC", "GAIN", "RDNOISE", "EXTNAME", "EXTVER"):
                assert header[name] == theirs[name]


def real(shared: Path, name: str, path: Path) -> Path:
    """A plain focal plane of a few rows with every card of a real one, and pixels that all differ from row to row."""
    lines = gzip.decompress((shared / "data" / "cfht_headers" / f"{name}.fits.header.gz").read_bytes()).split(b"\n")
    hdus: Hdus = []
    cards: list[bytes] = []
    for line in lines:
        if line.rstrip() == b"END":
            hdus.append(plain(cards, len(hdus)))
            cards = []
        elif line and not line.startswith(b"# HDU"):
            cards.append(line.ljust(80)[:80])
    return written(path, hdus)


def plain(cards: Sequence[bytes], number: int) -> tuple[list[bytes], bytes]:
    header = Header(cards)
    if header.get("ZIMAGE") is not True:
        return list(cards), b""
    made = [card if fits.keyword(card) != "NAXIS2" else number_card("NAXIS2", ROWS) for card in image_cards(header)]
    columns = header.whole("ZNAXIS1") or 0
    pixels = (np.arange(ROWS * columns) * 7 + number * 1000) % 65536
    data = (pixels.astype(np.uint16) ^ 0x8000).astype(">u2").tobytes()
    return made, data + bytes(-len(data) % BLOCK)


def number_card(name: str, value: int) -> bytes:
    return f"{name:<8}= {value:>20}".encode().ljust(80)


REAL = [
    ("1257365o", {"field": "D3"}, "spliced", 36),
    ("688231o", {"field": "D3"}, "unspliced", 36),
    ("02AE10.bias.0.36.00", {}, "spliced", 36),
    ("03Am02.dark.1800.36.00", {}, "spliced", 36),
    ("07Bm06.flat.z.36.02", {}, "spliced", 36),
]
NEVER = {"XTENSION", "PCOUNT", "GCOUNT", "CHECKSUM", "DATASUM"}
CHANGED = {"SIMPLE", "NAXIS1", "GAIN", "RDNOISE", "CRPIX1", "DC3BPATH", "DATASUM", "CHECKSUM"}


def cards_by_astropy(path: Path, number: int) -> list[str]:
    """The cards of an HDU as an independent reader has them, each as it stands in the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # archive headers are as they are
        with astropy_fits.open(path) as hdus:
            text = hdus[number].header.tostring(sep="\n", endcard=False, padding=False)
    return [line.ljust(80) for line in str(text).split("\n")]


def keyword(card: str) -> str:
    return card[:8].rstrip()


@pytest.mark.parametrize(("name", "ids", "readout", "ccds"), REAL)
def test_a_real_focal_plane_is_chopped_card_for_card_and_pixel_for_pixel(
    shared: Path, tmp_path: Path, name: str, ids: dict[str, str], readout: str, ccds: int
) -> None:
    source = real(shared, name, tmp_path / f"{name}.fits")
    said = manifest("exact", **ids)
    if ids:  # observers wrote "MM1842_3" and "focus check" into OBJECT
        assert "which gives no field" in str(looked(source).problem)
    made = recipes_of(source, said)
    assert made.readout == readout
    found = landed(source, tmp_path / "out", said)
    assert sorted(found) == [(ccd, amp) for ccd in range(ccds) for amp in (0, 1)]
    with astropy_fits.open(source, do_not_scale_image_data=True, memmap=False) as hdus:
        pixels = [hdu.data for hdu in hdus]
    for number, (piece_ids, to, _) in enumerate(made.pieces):
        ccd, amp = piece_ids["ccd"], piece_ids["amp"]
        extension = 1 + (number if readout == "unspliced" else number // 2)
        theirs, ours = cards_by_astropy(source, extension), cards_by_astropy(tmp_path / "out" / to, 0)
        check_cards(theirs, ours, readout, (ccd, amp), made.shift)
        with astropy_fits.open(tmp_path / "out" / to, do_not_scale_image_data=True, memmap=False) as hdus:
            columns = slice(None) if readout == "unspliced" else slice(1056 * amp, 1056 * (amp + 1))
            assert np.array_equal(hdus[0].data, pixels[extension][:, columns])


def check_cards(theirs: list[str], ours: list[str], readout: str, place: tuple[int, int], shift: int) -> None:
    assert CFHT.chop_rule is not None
    [rule] = [one for one in CFHT.chop_rule.readouts if one.name == readout]
    changed = CHANGED if readout == "spliced" else CHANGED - {"GAIN", "RDNOISE", "CRPIX1"}
    added = [keyword(card) for card in ours].index("DC3BPATH")
    assert [keyword(card) for card in ours[added:] if keyword(card) != "CONTINUE"] == [
        "DC3BPATH",
        "DATASUM",
        "CHECKSUM",
    ]
    assert [card for card in ours[:added] if keyword(card) not in changed] == [
        card for card in theirs if keyword(card) not in {*changed, *NEVER, *rule.removed}
    ]
    values = {keyword(card): card[10:].split("/")[0].strip() for card in ours}
    before = {keyword(card): card[10:].split("/")[0].strip() for card in theirs}
    ccd, amp = place
    assert before["AMPNAME"].strip("' ") in (f"{ccd:02d}a + {ccd:02d}b", f"{ccd:02d}{'ab'[amp]}")
    if readout == "spliced":
        assert (values["GAIN"], values["RDNOISE"]) == (before[f"GAIN{'AB'[amp]}"], before[f"RDNOISE{'AB'[amp]}"])
    if "CRPIX1" in before:
        assert float(values["CRPIX1"]) == pytest.approx(float(before["CRPIX1"]) + shift * amp, abs=1e-9)


@pytest.fixture
def errors_of(program: Callable[[str], str]) -> Callable[[Path], list[str]]:
    """The errors that fitsverify finds, without the numbers of cards. Stale sums would be warnings of their own."""
    tool = program("fitsverify")

    def verify(path: Path) -> list[str]:
        out = subprocess.run([tool, str(path)], capture_output=True, check=False).stdout.decode("latin-1")
        assert "checksum" not in out.lower().replace("keyword checksum", ""), out
        joined = re.sub(r"\n {6,}", " ", out)
        return [re.sub(r"#\d+", "#", line) for line in joined.splitlines() if line.startswith("*** Error")]

    return verify


@pytest.mark.parametrize(("name", "ids", "readout", "ccds"), REAL)
def test_fitsverify_finds_no_error_but_those_of_the_real_header(
    shared: Path,
    tmp_path: Path,
    errors_of: Callable[[Path], list[str]],
    name: str,
    ids: dict[str, str],
    readout: str,
    ccds: int,
) -> None:
    source = real(shared, name, tmp_path / f"{name}.fits")
    found = landed(source, tmp_path / "out", manifest("exact", **ids))
    theirs = set(errors_of(source))
    for path in list(found.values())[::7]:
        assert set(errors_of(path)) <= theirs


@pytest.mark.parametrize("kind", ["spliced", "40", "half", "unspliced"])
def test_fitsverify_finds_no_error_in_what_is_made(
    planes: dict[str, Path], tmp_path: Path, errors_of: Callable[[Path], list[str]], kind: str
) -> None:
    for path in list(landed(planes[kind], tmp_path / "out").values())[::7]:
        assert errors_of(path) == []


# --------------------------------------------------------------------------------------------- what is refused


def without(*indexes: int) -> Change:
    return lambda hdus: [hdu for index, hdu in enumerate(hdus) if index not in indexes]


def broken(hdus: Hdus) -> Hdus:
    """The first card of ccd17 overwritten: a walk of the HDUs ends before it."""
    hdus[18] = ([b"XTENSION", *hdus[18][0][1:]], hdus[18][1])
    hdus[18][0][0] = b"?" * 80
    return hdus


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("spliced", [without(18)], "NEXTEND says 36 extensions, the file has 35: ccd17 missing"),
        ("spliced", [broken], "nothing after extension 17 (ccd16) is an extension"),
        ("spliced", [broken], "ccd17, ccd18, "),
        ("spliced", [carded(18, "NAXIS1", "2111")], "extension 18 (ccd17) has NAXIS1 2111 where 2112"),
        ("spliced", [carded(18, "BITPIX", "8")], "extension 18 (ccd17) has BITPIX 8 where most have 16"),
        ("spliced", [carded(18, "EXTNAME", "'ccd16   '")], 'EXTNAME "ccd16" and EXTVER 17'),
        ("spliced", [carded(18, "EXTNAME", "'ccd16   '"), carded(18, "EXTVER", None)], "ccd17 missing"),
        ("spliced", [carded(18, "EXTNAME", "'amp17   '")], "extension 18 (ccd17) has EXTNAME"),
        ("40", [without(18), carded(0, "NEXTEND", "39")], None),
        ("unspliced", [without(35)], "NEXTEND says 72 extensions, the file has 71: ccd17 amplifier B missing"),
        ("unspliced", [carded(35, "NAXIS1", "1055")], "extension 35 (ccd17 amplifier B) has NAXIS1 1055"),
        ("unspliced", [carded(35, "AMPNAME", "'17a     '")], "number 34 of 72 is ccd17 amplifier B"),
        ("80", [carded(80, "AMPNAME", None)], "extension 80 has no AMPNAME that names its amplifier"),
        ("half", [without(18)], "NEXTEND says 18 extensions, the file has 17: ccd17 missing"),
    ],
)
def test_a_focal_plane_that_is_not_whole_is_refused_with_its_ccd(
    own: Callable[..., Path], kind: str, changes: list[Change], said: str | None
) -> None:
    path = own(kind)
    hdus = parts(path)
    for change in changes:
        hdus = change(hdus)
    written(path, hdus)
    seen = looked(path)
    if said is None:
        assert seen.problem is not None
        return
    found = only(LocalHost("a", str(path.parent)).headers([path.name]))
    assert not isinstance(found, TransferError)
    with pytest.raises(SourceCorrupt) as error:
        recipes(found, CFHT, manifest(), seen.ids, "/data", ("a", path.name))
    assert said in error.value.text
    assert (error.value.host, error.value.path, error.value.side, error.value.phase) == (
        "a",
        path.name,
        "source",
        "chop",
    )


def told(path: Path) -> TransferError:
    """What a worker says of a focal plane that cannot be read to its end."""
    source = LocalHost("a", str(path.parent))
    found = only(source.headers([path.name]))
    assert isinstance(found, TransferError)
    return named(found, CFHT, source, path.name)


def offset(path: Path, index: int) -> tuple[int, int]:
    """Where an HDU's header and its data begin."""
    found = only(LocalHost("a", str(path.parent)).headers([path.name]))
    assert not isinstance(found, TransferError)
    return found[index].offset, found[index].data_offset


@pytest.mark.parametrize(
    ("kind", "index", "name"),
    [("spliced", 18, "ccd17"), ("40", 40, "ccd39"), ("unspliced", 35, "ccd17 amplifier B"), ("spliced", 1, "ccd00")],
)
@pytest.mark.parametrize("where", ["header", "data"])
def test_a_file_that_is_cut_short_is_told_with_the_ccd_in_which_it_ends(
    own: Callable[..., Path], kind: str, index: int, name: str, where: str
) -> None:
    path = own(kind)
    at = offset(path, index)[where == "data"] + 4000
    path.write_bytes(path.read_bytes()[:at])
    error = told(path)
    assert error.text.startswith(f"{name}: HDU {index}: ")
    assert error.facts["ccd"] == name
    assert (error.kind, error.host, error.path) == ("source corrupt", "a", path.name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NAXIS1", "'many'"),
        ("BITPIX", "17"),
        ("NAXIS", "1000"),
        ("NAXIS2", "99999999"),
        ("PCOUNT", "-1"),
        ("BITPIX", None),
    ],
)
def test_a_damaged_header_is_told_with_its_ccd(own: Callable[..., Path], name: str, text: str | None) -> None:
    assert told(own("spliced", carded(18, name, text))).text.startswith("ccd17: HDU 18: ")


def test_the_ccd_is_that_of_the_header_where_extensions_stand_in_another_order(own: Callable[..., Path]) -> None:
    path = own("spliced", lambda hdus: [hdus[0], *hdus[:0:-1]])
    path.write_bytes(path.read_bytes()[: offset(path, 18)[1] + 10])
    assert told(path).text.startswith("ccd18: HDU 18: ")
    path.write_bytes(path.read_bytes()[: offset_of_last_header(path) + 2880])
    assert told(path).text.startswith("HDU 18: ")  # its header is cut too: nobody knows which one it was


def offset_of_last_header(path: Path) -> int:
    return path.read_bytes().rindex(b"XTENSION=")


def test_a_gzipped_file_that_is_cut_short_is_told_with_its_ccd(own: Callable[..., Path], tmp_path: Path) -> None:
    plane = own()
    packed = tmp_path / f"{plane.name}.gz"
    raw = plane.read_bytes()
    rest = gzip.compress(np.random.default_rng(1).bytes(1 << 16))
    packed.write_bytes(gzip.compress(raw[: offset(plane, 18)[1] + 100_000]) + rest[: len(rest) // 2])
    assert "ccd17: its gzip stream ends too early" in unpacking(packed).text


def unpacking(path: Path) -> TransferError:
    """What a worker says of a packed focal plane that cannot be unpacked; nothing is left of it."""
    scratch = LocalHost("scratch", str(path.parent / "scratch"))
    Path(scratch.root).mkdir()
    source = LocalHost("a", str(path.parent))
    with pytest.raises(SourceCorrupt) as error:
        unpack(source, path.name, scratch)
    assert not list(Path(scratch.root).iterdir())
    return named(error.value, CFHT, source, path.name)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tile-compressed focal plane."""
    folder = tmp_path_factory.mktemp("tiled")
    plane = write_focal_plane(folder / "1038843o.fits", rows=4)
    hdus = astropy_fits.HDUList([astropy_fits.PrimaryHDU(header=astropy_fits.getheader(plane, 0))])
    for ccd in range(36):
        header = astropy_fits.getheader(plane, ccd + 1)
        hdus.append(astropy_fits.CompImageHDU(focal_plane_pixels(ccd, 4), header, compression_type="RICE_1"))
    hdus.writeto(folder / "1038843o.fits.fz")
    return folder / "1038843o.fits.fz"


def zeroed(hdus: Hdus) -> Hdus:
    """The compressed pixels of ccd17 gone: its tiles point nowhere."""
    hdus[18] = (hdus[18][0], b"\xff" * len(hdus[18][1]))
    return hdus


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([zeroed], "extension 18 (ccd17) has tiles outside of its data"),
        ([zeroed, carded(18, "EXTNAME", None)], "ccd17: extension 18 has tiles outside of its data"),
        ([zeroed, carded(18, "EXTNAME", None), carded(18, "EXTVER", None)], "ccd17: extension 18 has tiles outside"),
        ([carded(18, "ZCMPTYPE", "'NOTHING'")], "extension 18 (ccd17) has ZCMPTYPE 'NOTHING'"),
        ([carded(18, "ZBITPIX", "17")], "extension 18 (ccd17) has ZBITPIX 17"),
        ([carded(18, "ZNAXIS2", "5")], "extension 18 (ccd17)"),
        ([carded(18, "NAXIS2", "'many'")], "ccd17: what is in it is no sound FITS file: HDU 18: "),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_ccd_that_does_not_decompress_is_named(
    tiled: Path, tmp_path: Path, changes: list[Change], said: str, zipped: bool
) -> None:
    hdus = parts(tiled)
    for change in changes:
        hdus = change(hdus)
    path = written(tmp_path / tiled.name, hdus)
    if zipped:
        path = path.with_suffix(".fz.gz")
        path.write_bytes(gzip.compress((tmp_path / tiled.name).read_bytes(), 1))
    assert unpacking(path).text.startswith(said)


def test_what_is_not_of_an_extension_is_told_as_it_is(own: Callable[..., Path]) -> None:
    path = own()
    source = LocalHost("a", str(path.parent))
    for error in (
        SourceMissing("the file is gone", path=path.name),
        SourceCorrupt("HDU 0: the file is empty", facts={"hdu": 0}),
        SourceCorrupt("its digest is another", phase="read"),
        HostDown("gone"),
    ):
        assert named(error, CFHT, source, path.name) is error
    error = SourceCorrupt("HDU 18: bad", facts={"hdu": 18})
    assert named(error, None, source, path.name) is error
    assert named(error, load("lsst_imsim"), source, path.name) is error
    path.unlink()
    assert named(error, CFHT, source, path.name) is error


def test_a_first_extension_that_is_cut_short_is_named_at_planning(own: Callable[..., Path]) -> None:
    path = own()
    path.write_bytes(path.read_bytes()[: offset(path, 1)[0] + 2880])
    problem = looked(path).problem
    assert problem is not None
    assert "ccd00: HDU 1: the file ends inside the header" in problem


def test_a_damaged_focal_plane_is_held_as_a_whole_and_the_others_land(sqlite_site: Site) -> None:
    site, folder = sqlite_site, sqlite_site.path("a:in")
    folder.mkdir()
    write_focal_plane(folder / "1o.fits", Exposure(obsid=1), rows=ROWS, spliced=False)
    lacking = write_focal_plane(folder / "2o.fits", Exposure(obsid=2), rows=ROWS)
    written(lacking, without(18)(parts(lacking)))
    short = write_focal_plane(folder / "3o.fits", Exposure(obsid=3), rows=ROWS)
    short.write_bytes(short.read_bytes()[: offset(short, 18)[1] + 9])
    site.run(kind="chop", source="a:in/*.fits", destination="b:out", camera="cfht_megacam", trigger=None)
    items = {source: (state, reason) for source, state, reason in site.rows("SELECT source, state, reason FROM items")}
    assert items["in/1o.fits"] == ("done", None)
    for source, said in (("in/2o.fits", ": ccd17 missing"), ("in/3o.fits", "ccd17: HDU 18: ")):
        assert items[source][0] == "held"
        assert said in items[source][1]
    assert {path.name for path in site.path("b:out/D3/raw").iterdir()} == {"v1-fr"}
    assert len(list(site.path("b:out").rglob("c*-a?.fits"))) == 72
    assert site.rows("SELECT readout, shift FROM makings") == [("unspliced", 0)]
