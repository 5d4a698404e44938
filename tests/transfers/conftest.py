"""What the tests of transfers share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "tests.transfers.contract", "tests.transfers.contract_members", "tests.transfers.contract_moves"
)
