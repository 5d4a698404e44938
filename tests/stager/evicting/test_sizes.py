"""Sizes are read as people write them, exactly, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import InputError
from stager.evicting.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500000", 500_000),
        ("500G", 500 * 10**9),
        ("500g", 500 * 10**9),
        ("1.5T", 1_500_000_000_000),
        ("1.1T", 1_100_000_000_000),
        ("10GB", 10**10),
        ("10 GB", 10**10),
        ("1GiB", 2**30),
        ("1Gi", 2**30),
        ("2kb", 2000),
        ("2KiB", 2048),
        ("7B", 7),
        ("0.0001k", 1),  # of less than a byte one is needed
        (" 3M ", 3_000_000),
        ("1P", 10**15),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "0", "0G", "-1", "1e9", "nan", "G", "1iB", "1X", "1.G", ".5G", "1,5T", "1 000", "9E9E", "100E", "1\x1b"],
)
def test_what_is_no_size_is_refused_with_what_one_is(text: str) -> None:
    with pytest.raises(InputError, match="expected bytes such as 500000000000, 500G") as error:
        parse_size(text)
    assert "\x1b" not in str(error.value)


@given(st.integers(1, 2**63 - 1))
def test_plain_bytes_are_themselves(size: int) -> None:
    assert parse_size(str(size)) == parse_size(f"{size}B") == size
