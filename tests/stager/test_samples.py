"""Samples are what their archives hold, in small: the same keywords, hazards and structure."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from stager.samples import (
    CHANNELS,
    Exposure,
    Visit,
    focal_plane_pixels,
    visit_pixels,
    write_focal_plane,
    write_visit,
)
from transfers.fits import Header, keyword


def real_keywords(path: Path, hdu: int) -> list[str]:
    """The keywords of one HDU of a dump of a real file's headers, without those of its tile compression."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    ends = [place for place, line in enumerate(lines) if line.strip() == "END"]
    begin = ends[hdu - 1] + 1 if hdu else 0
    names = [line[:8].strip() for line in lines[begin : ends[hdu]]]
    tiles = ("ZIMAGE", "ZBITPIX", "ZNAXIS", "ZTILE", "ZCMP", "ZNAME", "ZVAL", "TFIELDS", "TTYPE", "TFORM")
    return [name for name in names if not name.startswith(tiles)]


def test_a_focal_plane_has_the_cards_and_hazards_of_a_real_one(tmp_path: Path) -> None:
    path = write_focal_plane(tmp_path / "1038843o.fits", Exposure(target="w2.+2+2", mjd=54771.1929897))
    with astropy_fits.open(path) as hdus:
        hdus.verify("exception")
        assert len(hdus) == 37
        assert [hdu.name.lower() for hdu in hdus[1:]] == [f"ccd{ccd:02d}" for ccd in range(36)]
        assert np.array_equal(hdus[12].data, focal_plane_pixels(11, 48))
        header = hdus[12].header
        assert header["OBJECT"] == "w2.+2+2"
        assert header["UTC-OBS"] == "4:37:54.31"
        assert header["QID"] == 55100500000000020236
        assert header["DETSECB"] == "[6347:7370,14316:9705]"
        assert (header["CCDNICK"], header["GAINA"], header["CD1_1"]) == ("Guenole", 1.63, 5.194e-05)
    raw = path.read_bytes()
    assert len(raw) == 25920 + 36 * (25920 + 204480)
    assert raw.count(b"Reserved space") == 47


def test_its_keywords_stand_in_the_real_order(tmp_path: Path, shared: Path) -> None:
    raw = write_focal_plane(tmp_path / "1038843o.fits", rows=2).read_bytes()
    dump = shared / "data" / "cfht_headers" / "1257365o.fits.header.gz"
    extension = raw.index(b"XTENSION")
    for hdu, start in ((0, 0), (1, extension)):
        assert [keyword(card) for card in Header.parse(raw[start:]).cards] == real_keywords(dump, hdu)


def test_one_that_was_not_spliced_has_the_amplifiers_of_the_real_one(tmp_path: Path, shared: Path) -> None:
    path = write_focal_plane(tmp_path / "688231o.fits", rows=2, spliced=False)
    dump = gzip.decompress((shared / "data" / "cfht_headers" / "688231o.fits.header.gz").read_bytes())
    real = [Header.parse(b"XTENSION" + text.replace(b"\n", b"")) for text in dump.split(b"XTENSION")[1:]]
    with astropy_fits.open(path) as hdus:
        assert hdus[0].header["NEXTEND"] == 72
        assert b"imsplice" not in path.read_bytes()
        for hdu, header in zip(hdus[1:], real, strict=True):
            for name in ("AMPNAME", "EXTVER", "CCDNAME", "CCDNICK", "GAIN"):
                assert hdu.header[name] == header[name]
            assert hdu.header["EXTNAME"] == header.all("EXTNAME")[1]
            assert hdu.header["DETSEC"].split(",")[0] == str(header["DETSEC"]).split(",")[0]


def test_a_focal_plane_may_have_40_ccds(tmp_path: Path) -> None:
    with astropy_fits.open(write_focal_plane(tmp_path / "1927963o.fits", rows=2, ccds=range(40))) as hdus:
        header = hdus[0].header
        assert (len(hdus), header["NEXTEND"], header["NCCDS"], header["NAMPS"]) == (41, 40, 40, 80)
        assert hdus[40].header["AMPNAME"] == "39a + 39b"
        assert len({hdu.header["DETSEC"] for hdu in hdus[1:]}) == 40


def test_a_full_size_focal_plane_is_written_in_flat_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    path = write_focal_plane(tmp_path / "1038843o.fits.gz", rows=1000, ccds=range(6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20
    with gzip.open(path) as file:
        assert len(file.read()) == 25920 + 6 * (25920 + 4224000 + 960)


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    first = write_focal_plane(tmp_path / "a.fits.gz", rows=2, ccds=[0]).read_bytes()
    assert write_focal_plane(tmp_path / "a.fits.gz", rows=2, ccds=[0]).read_bytes() == first


def test_a_visit_lacks_its_missing_sensor_and_has_a_bad_time(tmp_path: Path) -> None:
    visit = Visit(missing=(("23", "01"),), bad_times=(("23", "02"),))
    names = write_visit(tmp_path, visit)
    assert len(names) == 2 * 2 * 16
    assert str(names[0]) == "raw/v85471048-fy/E000/R23/S00/imsim_85471048_R23_S00_C00_E000.fits.gz"
    assert not any("S01" in str(name) for name in names)
    times = {}
    for name in names:
        with astropy_fits.open(tmp_path / name) as hdus:
            header = hdus[0].header
            times[header["CHIPID"]] = (header["MJD-OBS"], header["TAI"])
            assert f"imsim_{header['OBSID']}_{header['CCDID']}_E{header['PAIRID']:03d}" in name.name
    assert times == {"R23_S00": (49552.28496, 49552.28496), "R23_S02": (0.0, 0.0)}


def test_plain_files_of_a_visit_have_pixels_that_tell_them_apart(tmp_path: Path) -> None:
    visit = Visit(rafts=("01", "43"), sensors=("22",), snaps=(1,))
    names = write_visit(tmp_path, visit, shape=(3, 5), gzipped=False)
    seen = set()
    for name in names:
        pixels = astropy_fits.getdata(tmp_path / name)
        raft, sensor, channel = (part[1:] for part in name.stem.split("_")[2:5])
        assert np.array_equal(pixels, visit_pixels((3, 5), 1, raft, sensor, channel))
        seen.add(pixels.tobytes())
    assert len(seen) == len(names) == 2 * len(CHANNELS)


def test_an_unknown_filter_of_a_visit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="substring not found"):
        write_visit(tmp_path, Visit(filter="K"))
