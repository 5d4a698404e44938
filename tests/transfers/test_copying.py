"""Batches between two hosts: adoption, streams, and hosts that fail in the middle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.transfers.contract import files_in, wants_of
from transfers.agent import Frame
from transfers.copying import copy
from transfers.errors import (
    Conflict,
    HostDown,
    NoSpace,
    Refused,
    SourceChanged,
    SourceMissing,
    TransferError,
    Transient,
)
from transfers.hosts import Cut, Piece, Receipt, Want
from transfers.local import LocalHost

H = TypeVar("H", bound=LocalHost)


class Breaking(LocalHost):
    """A host whose frames break off after so many."""

    frames = 0

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        for number, frame in enumerate(super().read(wants)):
            if number == self.frames:
                raise HostDown("the line went dead", host=self.name, side="source")
            yield frame


class Counting(LocalHost):
    """A host that counts its conversations."""

    calls = 0

    def digest(self, *arguments: object, **options: object) -> Iterator[tuple[str, int, str] | TransferError]:
        self.calls += 1
        return super().digest(*arguments, **options)  # type: ignore[arg-type] # handed on as they came


@pytest.fixture
def source(tmp_path: Path) -> LocalHost:
    return made(LocalHost, tmp_path, "source")


@pytest.fixture
def target(tmp_path: Path) -> LocalHost:
    return made(LocalHost, tmp_path, "target")


def made(kind: type[H], folder: Path, name: str) -> H:
    (folder / name).mkdir()
    host = kind(name, str(folder / name))
    host.open(None)
    return host


def fill(host: LocalHost, files: int, size: int = 1000) -> None:
    for number in range(files):
        (Path(host.root) / f"f{number:03}").write_bytes(os.urandom(size))


@pytest.mark.parametrize("frames", [0, 1, 2, 5, 8, 29])
def test_source_that_dies_ends_only_what_it_had_not_sent(tmp_path: Path, target: LocalHost, frames: int) -> None:
    source = made(Breaking, tmp_path, "source")
    fill(source, 10)
    source.frames = frames
    results = list(copy(source, target, wants_of(source, "", "d")))
    whole = frames // 3
    landed = [want.destination for want, result in results if isinstance(result, Receipt)]
    errors = [result for _, result in results if isinstance(result, HostDown)]
    assert (len(landed), len(errors)) == (whole, 10 - whole)
    assert {(error.side, error.host) for error in errors} == {("source", "source")}
    assert sorted(files_in(Path(target.root))) == landed
    source.frames = -1
    assert all(isinstance(result, Receipt) for _, result in copy(source, target, wants_of(source, "", "d", 2)))


def test_destination_that_is_down_is_said_for_every_want(source: LocalHost, target: LocalHost) -> None:
    fill(source, 5)
    wants = wants_of(source, "", "d")
    (Path(target.root) / ".stager/marker").unlink()
    results = list(copy(source, target, wants, streams=3))
    assert sorted(want.item for want, _ in results) == [1, 2, 3, 4, 5]
    for _, error in results:
        assert isinstance(error, HostDown)
        assert error.host == "target"


def test_source_that_is_down_is_said_for_every_want(source: LocalHost, target: LocalHost) -> None:
    fill(source, 5)
    wants = wants_of(source, "", "d")
    (Path(source.root) / ".stager/marker").unlink()
    for streams in (1, 3):
        results = list(copy(source, target, wants, streams=streams))
        assert {type(result) for _, result in results} == {HostDown}
        assert {result.host for _, result in results if isinstance(result, HostDown)} == {"source"}
    assert files_in(Path(target.root)) == {}


def test_errors_name_the_side_and_host_they_came_from(source: LocalHost, target: LocalHost) -> None:
    fill(source, 1)
    wants = [Want(1, 1, "none", "d/a"), Want(2, 1, "f000", "../b")]
    results = {want.item: result for want, result in copy(source, target, wants)}
    missing, refused = results[1], results[2]
    assert isinstance(missing, SourceMissing)
    assert (missing.side, missing.host, missing.path) == ("source", "source", "none")
    assert isinstance(refused, Refused)
    assert (refused.side, refused.host) == ("destination", "target")


def test_many_files_there_already_cost_few_conversations(tmp_path: Path) -> None:
    source, target = made(Counting, tmp_path, "source"), made(Counting, tmp_path, "target")
    fill(source, 50)
    wants = wants_of(source, "", "d")
    assert len(list(copy(source, target, wants))) == 50
    source.calls = target.calls = 0
    again = [result for _, result in copy(source, target, [want._replace(epoch=2) for want in wants])]
    assert all(isinstance(result, Receipt) and result.adopted for result in again)
    assert (source.calls, target.calls) == (1, 1)


def test_file_proven_by_its_known_digest_needs_no_source(source: LocalHost, target: LocalHost) -> None:
    (Path(target.root) / "a").write_bytes(b"data")
    digest = "sha256:" + hashlib.sha256(b"data").hexdigest().upper()
    ((_, receipt),) = copy(source, target, [Want(1, 1, "gone", "a", 4, None, digest)])
    assert isinstance(receipt, Receipt)
    ((_, missing),) = copy(source, target, [Want(1, 1, "gone", "a", 4)])
    assert isinstance(missing, SourceMissing)


def test_file_there_is_not_adopted_for_a_source_that_changed(source: LocalHost, target: LocalHost) -> None:
    (Path(source.root) / "a").write_bytes(b"data")
    (Path(target.root) / "a").write_bytes(b"data")
    ((_, changed),) = copy(source, target, [Want(1, 1, "a", "a", 5)])
    assert isinstance(changed, SourceChanged)


def test_two_wants_of_one_name_get_a_result_each(source: LocalHost, target: LocalHost) -> None:
    (Path(source.root) / "a").write_bytes(b"same")
    (Path(source.root) / "b").write_bytes(b"same")
    (Path(source.root) / "c").write_bytes(b"other")
    wants = [Want(n, 1, name, "d") for n, name in enumerate("abc")]
    for streams in (1, 3):
        results = list(
            copy(source, target, [want._replace(destination=f"d{streams}") for want in wants], streams=streams)
        )
        kinds = sorted(type(result).__name__ for _, result in results)
        assert kinds in (["Conflict", "Receipt", "Receipt"], ["Conflict", "Conflict", "Receipt"])


def test_units_stay_together_over_streams(source: LocalHost, target: LocalHost) -> None:
    (Path(source.root) / "plane").write_bytes(os.urandom(100_000))
    wants = [
        Want(item, 1, "plane", f"v{item}/{n}", piece=Piece(b"END".ljust(2880), (Cut(n * 10, 10, 100, 1000),), 80))
        for item in range(6)
        for n in range(8)
    ]
    (Path(target.root) / "v3").mkdir()
    (Path(target.root) / "v3/5").write_bytes(b"another")
    results = list(copy(source, target, wants, streams=4))
    assert len(results) == 48
    failed = {(want.item, type(result)) for want, result in results if isinstance(result, TransferError)}
    assert failed == {(3, Conflict)}
    assert len(files_in(Path(target.root))) == 41


def test_stop_before_the_start_gives_every_want_its_result(source: LocalHost, target: LocalHost) -> None:
    fill(source, 5)
    for streams in (1, 2):
        results = list(copy(source, target, wants_of(source, "", "d"), streams=streams, stop=lambda: True))
        assert len(results) == 5
        assert {(type(result), getattr(result, "phase", "")) for _, result in results} == {(Transient, "stopped")}


def test_nothing_wanted_is_nothing_done(source: LocalHost, target: LocalHost) -> None:
    assert list(copy(source, target, [])) == []


def test_errors_read_as_a_sentence() -> None:
    error = NoSpace("the disk\x1b[31m is full", host="abe", side="destination", path="a\nb", phase="write", errno=28)
    assert str(error) == (
        "abe:a\\nb: the disk\\x1b[31m is full (write) - no space at the destination; make room there; "
        "it goes on by itself then"
    )
    assert error.as_dict()["errno"] == 28
