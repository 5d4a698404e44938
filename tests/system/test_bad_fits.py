"""A folder with bad FITS files among good ones: the bad ones are held with a sentence, the good ones are done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.system.checker import check
from tests.system.sites import Site
from tests.transfers import crafted

BAD = ("truncated", "no_end", "naxis_999", "empty", "text")


def cards(*texts: str, end: bool = True) -> bytes:
    """One header: cards, END where asked for, blanks to a whole block."""
    body = b"".join(text.ljust(80).encode() for text in (*texts, *(["END"] if end else [])))
    return body + b" " * (-len(body) % 2880)


def image(side: int = 40, **changes: str) -> bytes:
    """A small image of 16-bit integers."""
    said = {"SIMPLE": "T", "BITPIX": "16", "NAXIS": "2", "NAXIS1": str(side), "NAXIS2": str(side), **changes}
    data = bytes(range(256)) * (2 * side * side // 256 + 1)
    data = data[: 2 * side * side]
    return cards(*(f"{key:<8}= {value:>20}" for key, value in said.items())) + data + b"\0" * (-len(data) % 2880)


def bad_files() -> dict[str, bytes]:
    good = image()
    return {
        "truncated": good[:4000],
        "no_end": cards("SIMPLE  =                    T", "BITPIX  =                   16", end=False) * 3,
        "naxis_999": image(NAXIS="999"),
        "empty": b"",
        "text": b"Not Found: the archive says so in 200 OK\n" * 100,
    }


def prepare(site: Site) -> dict[str, str]:
    """Five bad ones and four good ones, submitted and carried out; why each bad one is held, by its stem."""
    for number in range(4):
        site.write("lsst10", f"raw/good{number}.fits", image(40 + number))
    for stem, data in bad_files().items():
        site.write("lsst10", f"raw/{stem}.fits", data)
    job(site)
    assert site.run("submit", "job.toml").code == 0
    ended = site.start("daemon", "--once").end()
    assert ended.code == 1, ended.err
    held = site.run("show", "job", "--state", "held", "--json").json()["items"]
    return {item["source"].removeprefix("raw/").removesuffix(".fits"): item["reason"] for item in held}


def job(site: Site, **more: object) -> None:
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"}, **more)


def triggers(site: Site) -> list[dict[str, object]]:
    found = site.run("queue", "list", "pipeline", "--json")
    assert found.code == 0, found.err
    return list(json.loads(found.out))


def test_bad_files_are_held_with_a_sentence_and_good_ones_are_done(site: Site) -> None:
    reasons = prepare(site)
    assert set(reasons) == set(BAD)
    for stem, reason in reasons.items():
        assert f"{stem}.fits" in reason
        assert "source corrupt at the source" in reason
    assert "declares 3200 bytes of data, the file has 1120" in reasons["truncated"]
    assert "END" in reasons["no_end"]
    assert "NAXIS" in reasons["naxis_999"]
    assert "empty" in reasons["empty"]
    assert "SIMPLE" in reasons["text"]
    row = site.status("job")
    assert (row["files"]["done"], row["files"]["held"], row["state"]) == (4, 5, "held")
    assert row["last_error"]
    check(site, code=1)
    assert triggers(site) == []


def test_excluding_the_bad_ones_gives_one_trigger(site: Site) -> None:
    prepare(site)
    lines = "".join(f"{stem}.fits  # {stem}: not delivered by the archive\n" for stem in BAD)
    (site.folder / "bad.txt").write_text(lines)
    job(site, accept={"except": "bad.txt"})
    assert site.run("submit", "job.toml").code == 0
    check(site)
    assert len(triggers(site)) == 1
    event = site.run("queue", "claim", "pipeline", "--json").json()
    assert event["data"]["files"] == 4
    assert {one["reason"].partition(":")[0] for one in event["data"]["excluded"]} == set(BAD)
    assert site.status("job")["percent"] == 100.0


def test_mending_the_bad_ones_gives_one_trigger(site: Site) -> None:
    prepare(site)
    for number, stem in enumerate(BAD):
        site.write("lsst10", f"raw/{stem}.fits", image(60 + number))
    assert site.run("release", "job").code == 0
    check(site)
    assert len(triggers(site)) == 1
    assert site.run("submit", "job.toml").code == 0
    check(site)
    assert len(triggers(site)) == 1


LARGEST = 64 << 20  # bytes of a file here: the checker hashes all of them


def write_crafted(site: Site, made: Path) -> tuple[set[str], set[str]]:
    """Every crafted file of a size that can be hashed: the names of those to be held, and of those to be done."""
    there = set()
    for name, make in {**crafted.BAD, **crafted.ODD, **crafted.PLAIN}.items():
        make(made)
        if made.stat().st_size <= LARGEST:
            site.write("lsst10", f"raw/{name}", made.read_bytes())
            there.add(name)
    failing = {"junk-behind.fits", "short-block.fits", "short-block.fits.gz", "wrong-sum.fits", "out-of-order.fits"}
    held = there & {*crafted.BAD, *failing} - {"packed.fits"}  # gzip data by another name: told of, and brought over
    return held, there - held


@pytest.mark.slow
def test_crafted_files_harm_neither_the_daemon_nor_the_files_beside_them(site: Site, tmp_path: Path) -> None:
    held, done = write_crafted(site, tmp_path / "made")
    assert len(held) > 50
    for number in range(3):
        site.write("lsst10", f"raw/good{number}.fits", image(40 + number))
        done.add(f"good{number}.fits")
    os.mkfifo(site.root("lsst10") / "raw/fifo.fits")
    (site.root("lsst10") / "raw/folder.fits").mkdir()
    job(site)
    assert site.run("submit", "job.toml").code == 0
    ended = site.start("daemon", "--once").end()
    assert ended.code == 1, ended.err
    shown = {
        state: site.run("show", "job", "--state", state, "--most", "999", "--json").json()["items"]
        for state in ("held", "done")
    }
    reasons = {item["source"].removeprefix("raw/"): item["reason"] for item in shown["held"]}
    assert set(reasons) == held
    assert {item["source"].removeprefix("raw/") for item in shown["done"]} == done
    for name, reason in reasons.items():
        assert name in reason
        assert reason.isprintable(), name
        assert "source corrupt at the source" in reason or "unsound at the source" in reason
    page = site.run("show", "job", "--most", "999")
    assert "\x1b" not in page.out
    check(site, code=1)


def test_a_damaged_sum_is_held_and_a_manifest_may_let_it_through(site: Site) -> None:
    site.write("lsst10", "raw/a.fits", crafted.primary("DATASUM = '1'"))
    site.write("lsst10", "raw/b.fits", crafted.primary("DATASUM = '0'"))
    job(site)
    assert site.run("submit", "job.toml").code == 0
    assert site.start("daemon", "--once").end().code == 1
    (item,) = site.run("show", "job", "--state", "held", "--json").json()["items"]
    assert item["source"] == "raw/a.fits"
    assert "DATASUM" in item["reason"]
    job(site, hold="none")
    assert site.run("submit", "job.toml").code == 0
    assert site.run("release", "job").code == 0
    check(site)
