"""Paths in the database: readable text that carries any name of a file there and back."""

from __future__ import annotations

import os

import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stager.database import Database
from stager.models import Copy, decode_path, encode_path

copies = Copy.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type
NAMES = st.binary(min_size=1, max_size=60).filter(lambda name: b"\0" not in name).map(os.fsdecode)


@given(NAMES | st.text(alphabet="\\x0f\udc80\udcff/ü\n", min_size=1))
@example("\\")
@example("\\x41")
@example("\\\\x41\udcff\\")
@example("\udc80\\\udcff")
def test_every_path_comes_back_from_its_text(path: str) -> None:
    text = encode_path(path)
    text.encode("utf-8")  # what a database can hold
    assert decode_path(text) == path


@given(NAMES, NAMES)
def test_different_paths_have_different_texts(one: str, other: str) -> None:
    assert (encode_path(one) == encode_path(other)) == (one == other)


def test_plain_paths_are_kept_as_they_are() -> None:
    assert encode_path("D1/raw/v1-fr/s00/c00-a0.fits") == "D1/raw/v1-fr/s00/c00-a0.fits"
    assert encode_path("latin-\udce9") == "latin-\\xe9"
    assert encode_path("a\\b") == "a\\\\b"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(path=NAMES)
def test_a_column_of_paths_gives_back_what_it_was_given(database: Database, path: str) -> None:
    with database.write() as connection:
        connection.execute(sa.delete(copies))
        connection.execute(sa.insert(copies).values(host="a", path=path, size=1, digest="d", proof="reread"))
        assert connection.execute(sa.select(copies.c.path).where(copies.c.path == path)).scalar_one() == path
