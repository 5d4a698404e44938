"""What the tests of recalls share: a site whose store is on tape."""

from __future__ import annotations

import pytest

from tests.stager.recalls.tapes import Tapes
from tests.stager.site import Site


@pytest.fixture
def tapes(site: Site) -> Tapes:
    """The site's store is a tape store, with a database of each kind in turn."""
    return Tapes(site)


@pytest.fixture
def sqlite_tapes(sqlite_site: Site) -> Tapes:
    """The same on SQLite alone, for what does not depend on the database."""
    return Tapes(sqlite_site)
