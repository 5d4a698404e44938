"""Bundles: many small files as one on a mass store, which is a plain tar to everybody else.

A bundle is named `<label>.<12 hex digits>.stager.tar`, the digits telling paths, sizes and times of its members. It is
a POSIX tar (`headers`): the members as plain files, mode 0644, sorted by the bytes of their paths, which are
those they have below the store's root, so that `tar -xf` there puts all in place; times to the nanosecond. The same
members make the same bytes. The last member is `.stager/index/<name>.index` (`index`), and the file
`<name>.index` beside the bundle is the same with a line more, for size and digest of the bundle itself.

Each of these, and the database, makes up for the others: the index is found from the bundle's end by two reads; where
it is damaged, the headers still say all but the digests. `reading` trusts none of it.
"""

from __future__ import annotations

from transfers.bundles.frames import Packing
from transfers.bundles.headers import Laid, header_of
from transfers.bundles.index import (
    BUNDLE,
    ENDING_BYTES,
    INDEX,
    Beside,
    Entry,
    Index,
    Layout,
    beside_bytes,
    label_of,
    layout_of,
    member_size,
    name_of,
    packed_size,
    parse_beside,
    parse_index,
)
from transfers.bundles.reading import Recovered, hashed, read_beside, read_index, recovered, verify, walk

__all__ = [
    "BUNDLE",
    "ENDING_BYTES",
    "INDEX",
    "Beside",
    "Entry",
    "Index",
    "Laid",
    "Layout",
    "Packing",
    "Recovered",
    "beside_bytes",
    "hashed",
    "header_of",
    "label_of",
    "layout_of",
    "member_size",
    "name_of",
    "packed_size",
    "parse_beside",
    "parse_index",
    "read_beside",
    "read_index",
    "recovered",
    "verify",
    "walk",
]
