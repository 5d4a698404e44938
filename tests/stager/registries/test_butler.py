"""The real Butler of lsst-daf-butler takes what `stager registry export` makes, by the page of our documents.

It stands in an environment of its own, .venv-butler, which `make butler` makes.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from stager.samples import Exposure, Visit, write_focal_plane, write_visit
from tests.stager.conftest import Stager
from tests.stager.site import Site

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "registries.md").read_text("utf-8")
FORMATTER = "lsst.daf.butler.formatters.json.JsonFormatter"

QUERY = """
import json, sys
from lsst.daf.butler import Butler
butler = Butler.from_config(sys.argv[1])
refs = butler.query_datasets("raw_amp", collections="*", find_first=False, limit=None, explain=False)
print(json.dumps(sorted([butler.getURI(ref).ospath, ref.run, dict(ref.dataId.required), str(ref.id)] for ref in refs)))
"""


class Butler:
    """A repository, made by the script of the documents."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        (script,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        (folder / "records.py").write_text(script)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.programs / words[0]), *words[1:]]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=600)

    def make(self, table: str, snaps: int) -> None:
        made = self.run("python", "records.py", "repo", table, "registry.sqlite3", str(snaps))
        assert made.returncode == 0, made.stderr

    def ingest(self, table: str, run: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("butler", "ingest-files", "--transfer", "direct", "--formatter", FORMATTER, *options,
                        "repo", "raw_amp", run, table)  # fmt: skip

    def datasets(self) -> list[tuple[str, str, dict[str, object], str]]:
        asked = self.run("python", "-c", QUERY, "repo")
        assert asked.returncode == 0, asked.stderr
        return [tuple(one) for one in json.loads(asked.stdout.splitlines()[-1])]


@pytest.fixture
def butler(sqlite_site: Site, require: Callable[[str], NoReturn]) -> Butler:
    programs = ROOT / ".venv-butler" / "bin"
    if not (programs / "butler").exists():
        require("there is no Butler in .venv-butler; `make butler` installs it")
    return Butler(sqlite_site.folder, programs)


@pytest.fixture
def site(sqlite_site: Site) -> Site:
    """The site that the fixture `stager` runs its commands in."""
    return sqlite_site


@pytest.mark.slow
def test_the_butler_ingests_a_chopped_focal_plane(site: Site, butler: Butler, stager: Stager) -> None:
    site.path("a:in").mkdir()
    write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(), rows=33)
    site.run(kind="chop", source="a:in/*.fits", destination="b:CFHT deep", camera="cfht_megacam")
    assert stager("registry", "build", "m data", "--output", "registry.sqlite3").code == 0
    assert stager("registry", "export", "m data", "--output", "raw.ecsv").code == 0
    butler.make("raw.ecsv", 1)
    first = butler.ingest("raw.ecsv", "MegaPrime/raw/all", "--id-generation-mode", "dataid_type_run")
    assert first.returncode == 0, first.stderr
    ingested = butler.datasets()
    paths = sorted(str(path) for path in (site.path("b:CFHT deep") / "D3").rglob("*.fits"))
    assert [path for path, *_ in ingested] == paths
    assert len(paths) == 72
    assert sorted(one[2]["detector"] for one in ingested) == list(range(72))  # type: ignore[type-var]
    assert {(one[2]["instrument"], one[2]["exposure"]) for one in ingested} == {("MegaPrime", 1038843)}

    # The same table again is refused as a whole, whatever ids are made of; nothing is changed by that.
    for mode in ("dataid_type_run", "unique"):
        again = butler.ingest("raw.ecsv", "MegaPrime/raw/all", "--id-generation-mode", mode)
        assert again.returncode == 1
        assert "ConflictingDefinitionError" in again.stderr
    assert butler.datasets() == ingested


@pytest.mark.slow
def test_the_butler_ingests_a_visit_of_two_snaps_one_table_for_each(site: Site, butler: Butler, stager: Stager) -> None:
    write_visit(site.path("a:"), Visit(sensors=("00", "21"), channels=("00", "17"), snaps=(0, 1)), shape=(2, 3))
    site.run(source="a:raw/**", destination="b:raw", camera="lsst_imsim")
    assert stager("registry", "build", "m data", "--output", "registry.sqlite3").code == 0
    assert stager("registry", "export", "m data", "--output", "all.ecsv", "--relative").code == 0
    butler.make("all.ecsv", 2)
    for snap in ("0", "1"):
        words = ["--output", f"{snap}.ecsv", "--relative", "--where", f"snap={snap}"]
        assert stager("registry", "export", "m data", *words).code == 0
        ingested = butler.ingest(f"{snap}.ecsv", f"raw/{snap}", "--prefix", str(site.path("b:")))
        assert ingested.returncode == 0, ingested.stderr
    found = butler.datasets()
    assert [path for path, *_ in found] == sorted(str(path) for path in site.path("b:raw").rglob("*.gz"))
    assert len(found) == 8
    assert {one[2]["exposure"] for one in found} == {2 * 85471048, 2 * 85471048 + 1}
    assert {one[2]["detector"] for one in found} == {
        13 * 160 + sensor * 16 + channel for sensor in (0, 7) for channel in (0, 15)
    }
