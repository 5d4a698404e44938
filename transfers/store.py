"""Mass stores. The directory driver: a store that is mounted here, its files as they are."""

from __future__ import annotations

from transfers.local import LocalHost


class DirectoryStore(LocalHost):
    """A mass store behind a folder. What lands there is proven as on any host: read back from the folder."""

    kind = "store"
    side = "store"
