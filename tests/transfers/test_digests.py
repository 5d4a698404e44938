"""Digests as text, and the lists that sha256sum and md5sum write and read."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from itertools import islice, repeat
from pathlib import Path

import pytest

from tests.transfers.contract import ODD_NAMES
from transfers.digests import ALGORITHMS, Digest, Listed, ListError, list_line, listed, parse, read_list

SHA = hashlib.sha256(b"").hexdigest()
MD5 = hashlib.md5(b"", usedforsecurity=False).hexdigest()


def test_text_goes_both_ways() -> None:
    for algorithm, length in ALGORITHMS.items():
        text = f"{algorithm}:{'0a' * (length // 2)}"
        assert str(parse(text)) == text
    assert parse("MD5:".lower() + MD5.upper()) == Digest("md5", MD5)


@pytest.mark.parametrize(
    "text", ["", SHA, "sha256:", "sha256:" + MD5, "rot13:00", "md5:" + "g" * 32, f"sha256:{SHA}\n"]
)
def test_what_is_no_digest_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"digest|algorithm"):
        parse(text)


def test_lists_of_either_form_are_read() -> None:
    lines = [
        f"{SHA}  plain.fits\n",
        f"{SHA} *binary.fits\n",
        f"{MD5}  ./with  spaces \n",
        f"\\{SHA}  new\\nline\\\\and back\n",
        f"SHA256 (bsd (1).fits) = {SHA}\n",
        "# a comment\n",
        "\n",
        f"{SHA.upper()}  upper\r\n",
    ]
    assert list(listed(line.encode() for line in lines)) == [
        Listed("plain.fits", f"sha256:{SHA}"),
        Listed("binary.fits", f"sha256:{SHA}"),
        Listed("with  spaces ", f"md5:{MD5}"),
        Listed("new\nline\\and back", f"sha256:{SHA}"),
        Listed("bsd (1).fits", f"sha256:{SHA}"),
        Listed("upper", f"sha256:{SHA}"),
    ]
    assert list(listed([b"0400019b  f\n"], "adler32")) == [Listed("f", "adler32:0400019b")]


def test_bare_paths_are_a_list_too() -> None:
    assert list(listed([b"a/b.fits\n", b"./c d\n", b"\n"])) == [Listed("a/b.fits", None), Listed("c d", None)]


@pytest.mark.parametrize("line", ["just a path", f"{SHA[:-1]}  short", f"{SHA} one-space", f"\\{SHA}  bad\\x"])
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(ListError) as caught:
        list(listed([f"{SHA}  good\n".encode(), line.encode()]))
    assert caught.value.line == 2


def test_lists_are_read_lazily() -> None:
    assert len(list(islice(listed(repeat(f"{SHA}  f\n".encode())), 100_000))) == 100_000


def test_an_endless_line_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"x" * (1 << 20))
    with pytest.raises(ListError, match="longer"):
        list(read_list(str(tmp_path / "list")))


def test_sha256sum_reads_what_we_write_and_we_read_what_it_writes(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    sha256sum = program("sha256sum")
    for name in ODD_NAMES:
        (tmp_path / name).write_bytes(os.fsencode(name))
    digests = {name: "sha256:" + hashlib.sha256(os.fsencode(name)).hexdigest() for name in ODD_NAMES}
    (tmp_path / "ours").write_bytes(b"".join(list_line(digest, name) for name, digest in digests.items()))
    subprocess.run([sha256sum, "--strict", "--quiet", "-c", "ours"], cwd=tmp_path, check=True)
    theirs = subprocess.check_output([sha256sum, "--", *ODD_NAMES], cwd=tmp_path)
    assert {entry.path: entry.digest for entry in listed(theirs.splitlines(keepends=True))} == digests
