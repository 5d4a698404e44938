"""Which files a pattern means, in the shell's notation and in that of the PT1 page."""

from __future__ import annotations

import pickle
import time

import pytest

from manifests.errors import PatternError
from manifests.patterns import Pattern, is_wild

MEANT = [
    (
        "D{1..4}/raw/**",
        "",
        ["D1/raw/a.fits", "D4/raw/v1/s00/a.fits"],
        ["D5/raw/a.fits", "D1/raw", "D1/rawx/a"],
    ),
    (
        "D{1-4}/raw",
        "",
        ["D1/raw/a.fits", "D2/raw", "D4/raw/v1/a.fits"],
        ["D5/raw/a", "D1/cal/a", "D1/rawx/a"],
    ),
    (
        "calib/{bias flat}",
        "calib",
        ["calib/bias/v1/a", "calib/flat/a"],
        ["calib/dark/a", "calib", "calibs/bias/a"],
    ),
    ("calib/{bias,flat}/**", "calib", ["calib/bias/v1/a"], ["calib/bias", "calib/dark/a"]),
    (
        "C/[bias, flat, fringe]/v06Am03*/**",
        "C",
        ["C/fringe/v06Am03n/a"],
        ["C/dark/v06Am03n/a", "C/bias/v06Am04/a"],
    ),
    (
        "p/s[01]/R23-S11-C*.fits",
        "p",
        ["p/s0/R23-S11-C00.fits"],
        ["p/s2/R23-S11-C00.fits", "p/s0/x/R23-S11-C0.fits"],
    ),
    ("p/s[01]", "p", ["p/s0/a", "p/s1/b/c"], ["p/s2/a"]),
    ("CFHTLS/D1/*o.fits", "CFHTLS/D1", ["CFHTLS/D1/1o.fits"], ["CFHTLS/D1/1p.fits", "CFHTLS/D1/x/1o.fits"]),
    ("raw/**", "raw", ["raw/a", "raw/v1/a b\n'c'.fits"], ["raw", "raws/a", "x/raw/a"]),
    ("raw", "raw", ["raw", "raw/a", "raw/v1/a"], ["raws", "ra", "x/raw"]),
    ("**", "", ["a", "a/b/c"], [".stager/marker", "a/.hidden/b", "a/.b.part"]),
    ("**/c*-a0.fits", "", ["c00-a0.fits", "x/y/c00-a0.fits"], ["x/c00-a1.fits", "x/.y/c00-a0.fits"]),
    ("a/**/z{1,2}", "a", ["a/z1", "a/b/c/z2", "a/b/z1/below"], ["a/z3", "b/z1"]),
    ("v{780000..780099}/?.fits", "", ["v780042/a.fits"], ["v780100/a.fits", "v780042/ab.fits"]),
    ("c{08..11}.fits", "", ["c08.fits", "c11.fits"], ["c8.fits", "c12.fits"]),
    ("{raw/v1,cal}/*.fits", "", ["raw/v1/a.fits", "cal/a.fits"], ["raw/a.fits"]),
    (r"odd\[1\]/*", "odd[1]", ["odd[1]/a"], ["odd1/a"]),
    ("odd[[]1[]]/*", "", ["odd[1]/a"], ["odd1/a"]),
]


@pytest.mark.parametrize(("text", "fixed", "meant", "others"), MEANT, ids=[one[0] for one in MEANT])
def test_a_pattern_means_what_the_page_meant(text: str, fixed: str, meant: list[str], others: list[str]) -> None:
    pattern = Pattern(text)
    assert pattern.fixed == fixed
    assert [path for path in meant if not pattern.matches(path)] == []
    assert [path for path in others if pattern.matches(path)] == []


@pytest.mark.parametrize(
    ("text", "path", "rest"),
    [
        ("raw/**", "raw/v1/a.fits", "v1/a.fits"),
        ("raw", "raw/v1/a.fits", "v1/a.fits"),
        ("raw/v1/a.fits", "raw/v1/a.fits", "a.fits"),
        ("a.fits", "a.fits", "a.fits"),
        ("D{1..4}/raw/**", "D2/raw/v1/a.fits", "D2/raw/v1/a.fits"),
        ("CFHT/D{1..4}/raw", "CFHT/D2/raw/v1/a.fits", "D2/raw/v1/a.fits"),
        ("raw/v*/a.fits", "raw/v1/a.fits", "v1/a.fits"),
        ("**", "raw/v1/a.fits", "raw/v1/a.fits"),
    ],
)
def test_the_fixed_part_is_cut_off_below_the_destination(text: str, path: str, rest: str) -> None:
    pattern = Pattern(text)
    assert pattern.matches(path)
    assert pattern.relative(path) == rest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("/usr/data/**", "absolute"),
        ("../raw/**", '".."'),
        ("raw/../*", '".."'),
        ("raw/./*", '"."'),
        ("raw//*", '"//"'),
        ("raw/*/", 'ends in "/"'),
        (".stager/*", "Stager's own"),
        ("raw/\0*", "NUL"),
        ("D{1..4/raw", "too many"),
        ("D1..4}/raw", "too many"),
        ("s[01/a", "too many"),
        ("v{visit}/a.fits", "one name"),
        ("s[z-a]/x", "can match nothing"),
        ("{1..100000}{1..100000}", "more than 1000 names"),
        ("a/**/b/**/c/**/d", 'too many "**"'),
        ("a**/b", "stands alone"),
        ("x" * 2000, "longer than 1024 bytes"),
        ("x" * 300 + "/*", "longer than 255 bytes"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused_with_what_to_do(text: str, said: str) -> None:
    with pytest.raises(PatternError) as error:
        Pattern(text)
    assert said in str(error.value)
    assert str(error.value).isprintable()


def test_a_wildcard_after_a_backslash_is_none() -> None:
    assert is_wild("a*")
    assert is_wild("a/{b,c}")
    assert is_wild("[ab]")
    assert is_wild("a?")
    assert not is_wild("a/b")
    assert not is_wild(r"a\*\{b\}")


def test_patterns_are_plain_values() -> None:
    pattern = Pattern("D{1..4}/raw/**")
    assert pattern == Pattern("D{1..4}/raw/**") != Pattern("D{1..3}/raw/**")
    assert pickle.loads(pickle.dumps(pattern)).matches("D1/raw/a")  # noqa: S301 - our own pickle
    assert Pattern("D{1..4}/raw").wild
    assert not Pattern("D1/raw").wild


def test_names_that_are_not_utf8_are_matched() -> None:
    assert Pattern("raw/*.fits").matches("raw/\udcff.fits")


@pytest.mark.parametrize("text", ["*a*a*a*a*a*a*b", "**/b/**/c/d", "**/*a*a*a/x"])
def test_no_path_takes_long_to_match(text: str) -> None:
    pattern = Pattern(text)
    start = time.process_time()
    for path in ("a" * 255, "/".join(["b", "c"] * 256), "/".join(["a" * 100] * 10)):
        assert not pattern.matches(path)
    assert time.process_time() - start < 0.5


def test_a_hundred_thousand_paths_take_a_moment() -> None:
    pattern = Pattern("D{1..4}/raw/**")
    paths = [f"D{i % 4 + 1}/raw/v{780000 + i}-fr/s00/c{i % 36:02d}-a{i % 2}.fits" for i in range(100_000)]
    start = time.process_time()
    assert sum(len(pattern.relative(path)) > 0 for path in paths if pattern.matches(path)) == len(paths)
    assert time.process_time() - start < 2  # 0.1 s where nothing else runs
