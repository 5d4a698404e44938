"""Mass stores. The directory driver: a store that is mounted here, its files as they are."""

from __future__ import annotations

from transfers.local import LocalHost


class DirectoryStore(LocalHost):
    """A mass store behind a folder. What lands there is proven as on any host: read back from the folder.

    All of it counts as online. Where the folder is a mounted HSM's, a file that has migrated to tape is a stub that has
    a size and no blocks; so have sparse files, and small ones that are kept in their inode, and none can be told from
    another. Reading a stub brings the file back by itself, and waits.
    """

    kind = "store"
    side = "store"
