"""PAF as it was written and read in 2010: what is written comes back, and what people wrote is understood."""

from __future__ import annotations

import math
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stager.queues import paf
from stager.queues.paf import PafError

NAMES = st.text(string.ascii_letters + "_", min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters='"') | st.just(" "), max_size=30)
QUOTED = TEXTS | TEXTS.map(lambda text: text.replace("'", "") + '"')
SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | QUOTED
POLICIES = st.recursive(
    st.dictionaries(NAMES, SCALARS, max_size=5),
    lambda inner: st.dictionaries(NAMES, SCALARS | inner | st.lists(SCALARS | inner, min_size=2, max_size=4)),
    max_leaves=12,
)


@given(POLICIES)
def test_what_is_written_is_read_back_with_its_types(policy: dict[str, Any]) -> None:
    found = paf.read(paf.write(policy))
    assert found == policy
    assert repr(found) == repr(policy)  # 1, 1.0 and true are equal to Python, and different to a job office


@pytest.mark.parametrize("value", ["a\nb", "both \" and '", "tab\t", "\x00", math.nan, math.inf, None, b"x"])
def test_what_no_policy_file_can_hold_is_refused(value: object) -> None:
    with pytest.raises(PafError, match="no policy file can hold"):
        paf.write({"ids": {"field": value}})


@pytest.mark.parametrize("name", ["", "a b", "a:", "1a", "a.", "#"])
def test_a_name_that_no_policy_can_have_is_refused(name: str) -> None:
    with pytest.raises(PafError, match="no name"):
        paf.write({name: 1})


WRITTEN_BY_PEOPLE = """#<?cfg paf policy ?>
# a job office
name: PT1Pipe   # without quotes
persist.dir: %(schedroot)s/%(name)s-joboffice
listen: {
    dataReadyEvent: RawAvailable
    initialWait: 100
    waits: 100 1 -3    # several
    factor: 1.5 2. .5 1e3
    good: true false
}
listen.brokerHostPort: 61616
files: "goob" "gurn" 'it''s'
schedule: { trigger: { datasetType: raw }
    trigger: { datasetType: "post ISR"
        id: { name: visit } } }
raft: "2,3"
bare: 2,3
include: @other.paf
long: "over
       two lines"
nothing:
empty: ""
"""


def test_what_people_write_is_understood() -> None:
    assert paf.read(WRITTEN_BY_PEOPLE) == {
        "name": "PT1Pipe",
        "persist": {"dir": "%(schedroot)s/%(name)s-joboffice"},
        "listen": {
            "dataReadyEvent": "RawAvailable", "initialWait": 100, "waits": [100, 1, -3],
            "factor": [1.5, 2.0, 0.5, 1000.0], "good": [True, False], "brokerHostPort": 61616,
        },
        "files": ["goob", "gurn", "it", "s"],
        "schedule": {"trigger": [{"datasetType": "raw"}, {"datasetType": "post ISR", "id": {"name": "visit"}}]},
        "raft": "2,3", "bare": "2,3", "include": "@other.paf", "long": "over two lines", "empty": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: {\nb: 1\n", 2), ("a: 1\n}\n", 2), ("a: 1\n\nnonsense\n", 3), ('a: "x\ny\n', 2), ("a.: 1", 1)],
)
def test_what_is_no_paf_is_said_with_its_line(text: str, line: int) -> None:
    with pytest.raises(PafError, match=f"line {line}: "):
        paf.read(text)
