"""The PT1 page as manifests: every row can be read and fits its stager.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import manifests
from manifests.problems import problems
from manifests.reading import read_exclusions, read_manifest

PT1 = Path(manifests.__file__).parent / "pt1"
ROWS = sorted(path for path in PT1.glob("*.toml") if path.name != "stager.toml")


def test_there_is_a_manifest_for_every_row() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_each_row_can_be_submitted(path: Path) -> None:
    config = tomllib.loads((PT1 / "stager.toml").read_text())
    manifest = read_manifest(path)
    hosts = {name: host["kind"] for name, host in config["hosts"].items()}
    assert problems(manifest, hosts, config["queues"]) == []
    assert manifest.name == path.stem
    assert manifest.lead


def test_the_failure_lists_are_those_of_the_page() -> None:
    counts = {name: len(read_exclusions(PT1 / f"{name}-failures.txt")) for name in ("psf", "wcs", "photocal")}
    assert counts == {"psf": 1, "wcs": 17, "photocal": 11}
    assert read_manifest(PT1 / "imsim-abe-restore.toml").notes == ()  # the counts of the headings agree


def test_the_failure_lists_are_the_pages_own_lines(shared: Path) -> None:
    page = (shared / "seeds/dc3b-pt1-integration-status.txt").read_text(encoding="utf-8")
    for name in ("psf", "wcs", "photocal"):
        source, _, lines = (PT1 / f"{name}-failures.txt").read_text(encoding="utf-8").partition("\n")
        assert source.startswith("# As on the DC3b PT1 Integration Status page")
        assert lines in page


def test_a_ccd_that_failed_is_excluded_with_its_reason() -> None:
    manifest = read_manifest(PT1 / "imsim-abe-restore.toml")
    found = manifest.exclusion("x.fits", {"visit": 85656362, "raft": "2,4", "sensor": "2,1"})
    assert found is not None
    assert found.reason == "Photocal failures on 11 ImSim CCDs of 110: insufficient data points for order"
    assert manifest.exclusion("x.fits", {"visit": 85656362, "raft": "0,1", "sensor": "2,1"}) is None
