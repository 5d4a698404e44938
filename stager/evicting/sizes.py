"""Numbers of bytes as people write them."""

from __future__ import annotations

import re

from manifests.errors import InputError, shown

MOST = 2**63 - 1
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(?:([kmgtpe])(i?))?(b?)", re.IGNORECASE)
_POWERS = "kmgtpe"
EXPECTED = "expected bytes such as 500000000000, 500G, 1.5T, 10GB (powers of 1000) or 1GiB (of 1024), more than none"


def parse_size(text: str) -> int:
    """The bytes that a text means; raises InputError for one that means none."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InputError(f'found "{shown(text, 40)}"; {EXPECTED}')
    number, power, binary, _ = found.groups()
    exponent = _POWERS.index(power.lower()) + 1 if power else 0
    base = 1024 if binary else 1000
    whole, _, fraction = number.partition(".")
    # Exact: 1.1T is no float's neighbour of it. What is left of a byte is one more, for room is asked for.
    scaled: int = int(whole + fraction) * base**exponent
    size: int = -(-scaled // 10 ** len(fraction))
    if not 0 < size <= MOST:
        raise InputError(f'found "{shown(text, 40)}"; {EXPECTED}')
    return size
