"""Manifests narrowed to some of their files: which these are, and where they come to lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.errors import ManifestError, PatternError
from stager.restoring.asked import Asked, Choice, NothingChosen, narrow, read
from stager.submitting import submit
from tests.stager.site import Site

SAID: dict[str, Any] = {"kind": "restore", "source": "mss:raw/**", "destination": "b:back"}
ODD = ("#first", "-dash", "a" * 32 + "  like a digest", "sp ace ", "MD5 (x) = 0123", "caf\udce9", "back\\slash", "*")


def narrowed(site: Site, choice: Choice, **said: Any) -> Asked:
    (made,) = chosen(site, choice, Asked(site.manifest("m", **SAID | said), "m.toml"))
    return made


def chosen(site: Site, choice: Choice, *whole: Asked) -> list[Asked]:
    return narrow(site.database, site.config, site.hosts, whole, choice, site.folder)


def brought(site: Site, asked: Asked) -> set[str]:
    """What lies at the destination once the narrowed manifest was carried out."""
    submit(site.database, site.config, asked.manifest, hosts=site.hosts)
    site.work()
    root = site.path("b:")
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and ".stager" not in path.parts}


@pytest.mark.parametrize(
    ("source", "globs", "expected"),
    [
        ("mss:raw/**", ("a",), {"back/v1/a", "back/v2/a"}),
        ("mss:raw/**", ("v1/*",), {"back/v1/a", "back/v1/b"}),
        ("mss:raw", ("v2/a", "b"), {"back/v1/b", "back/v2/a"}),
        ("mss:raw/v{1,2}", ("a",), {"back/v1/a", "back/v2/a"}),
        ("mss:raw/v1/a", ("a",), {"back/a"}),
        ("mss:**", ("raw/v2/*",), {"back/raw/v2/a"}),
    ],
)
def test_each_file_comes_to_the_place_that_it_has_by_the_whole_manifest(
    sqlite_site: Site, source: str, globs: tuple[str, ...], expected: set[str]
) -> None:
    sqlite_site.files("mss:raw/v1/a", "mss:raw/v1/b", "mss:raw/v2/a")
    assert brought(sqlite_site, narrowed(sqlite_site, Choice(globs), source=source)) == expected


def test_a_list_is_narrowed_too_and_what_it_has_and_the_store_has_not_is_missing(sqlite_site: Site) -> None:
    sqlite_site.files("mss:raw/v1/a", "mss:raw/v1/b")
    (sqlite_site.folder / "list.txt").write_text("v1/a\nv1/b\nv2/a\n")
    asked = narrowed(sqlite_site, Choice(("a",)), source="mss:raw", files="list.txt")
    assert brought(sqlite_site, asked) == {"back/v1/a"}
    assert sqlite_site.states(asked.manifest.name) == {"raw/v1/a": "done", "raw/v2/a": "missing"}


def test_names_that_look_like_something_else_in_a_list_are_chosen_as_they_are(sqlite_site: Site) -> None:
    sqlite_site.files(*(f"mss:raw/{name}" for name in ODD))
    assert brought(sqlite_site, narrowed(sqlite_site, Choice(("*",)))) == {f"back/{name}" for name in ODD}


def test_a_name_with_a_line_break_cannot_be_chosen_and_is_told(sqlite_site: Site) -> None:
    sqlite_site.files("mss:raw/one\ntwo", "mss:raw/three")
    with pytest.raises(ManifestError, match=r'"one\\ntwo" has a line break'):
        narrowed(sqlite_site, Choice(("*",)))
    assert brought(sqlite_site, narrowed(sqlite_site, Choice(("three",)))) == {"back/three"}


def test_the_same_choice_has_the_same_name_and_another_one_another(sqlite_site: Site) -> None:
    sqlite_site.files("mss:raw/a", "mss:raw/b")
    names = {narrowed(sqlite_site, Choice(globs)).manifest.name for globs in (("a", "b"), ("b", "a"), ("a",))}
    assert len(names) == 2
    assert all(name.startswith("m+only-") for name in names)
    first, again = narrowed(sqlite_site, Choice(("a",))), narrowed(sqlite_site, Choice(("a",)))
    assert first.manifest.digest() == again.manifest.digest()


def test_the_name_of_a_narrowed_manifest_is_never_too_long(sqlite_site: Site) -> None:
    sqlite_site.files("mss:raw/a")
    asked = Asked(sqlite_site.manifest("n" * 100, **SAID), "n.toml")
    (made,) = chosen(sqlite_site, Choice(("a",)), asked)
    assert len(made.manifest.name) <= 100


def test_what_the_accept_list_leaves_out_cannot_be_chosen(sqlite_site: Site) -> None:
    sqlite_site.files("mss:raw/a")
    (sqlite_site.folder / "bad.txt").write_text("a*  # bad\n")
    with pytest.raises(NothingChosen, match="--only a chooses none of the files"):
        narrowed(sqlite_site, Choice(("a",)), accept={"except": "bad.txt"})


def test_a_part_of_a_choice_that_chooses_nothing_is_told(sqlite_site: Site) -> None:
    sqlite_site.files("mss:raw/a", "mss:raw/b")
    with pytest.raises(NothingChosen, match="--only c chooses none of the files that mss:raw/"):
        narrowed(sqlite_site, Choice(("a", "c")))


def test_of_several_manifests_those_are_narrowed_that_have_what_was_chosen(sqlite_site: Site) -> None:
    sqlite_site.files("mss:raw/a", "mss:new/b", "mss:new/c")
    first = Asked(sqlite_site.manifest("m", **SAID), "m.toml")
    second = Asked(sqlite_site.manifest("n", **SAID | {"source": "mss:new/**"}), "n.toml")
    made = chosen(sqlite_site, Choice(("b",)), first, second)
    assert [one.manifest.name.partition("+")[0] for one in made] == ["n"]
    assert len(chosen(sqlite_site, Choice(("a", "b")), first, second)) == 2
    with pytest.raises(NothingChosen, match=r"m\.toml, n\.toml.*--only d chooses none"):
        chosen(sqlite_site, Choice(("a", "d")), first, second)


def test_what_the_store_had_and_has_no_more_is_missing_of_a_choice_too(sqlite_site: Site) -> None:
    sqlite_site.files("a:raw/v1/a", "a:raw/v1/b", "a:raw/v2/a")
    sqlite_site.run("in", kind="archive", source="a:raw/**", destination="mss:raw", trigger=None)
    sqlite_site.path("mss:raw/v1/a").unlink()
    asked = narrowed(sqlite_site, Choice(("v1/*",)))
    assert brought(sqlite_site, asked) == {"back/v1/b"}
    assert sqlite_site.states(asked.manifest.name) == {"raw/v1/a": "missing", "raw/v1/b": "done"}


def test_a_choice_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(PatternError):
        Choice(("[",)).parts()
    assert not Choice()
    assert Choice(("*.fits", "b"), ("7",)).words() == ["--only *.fits", "--only b", "--visit 7"]


def test_only_restores_are_read_each_under_a_name_of_its_own(sqlite_site: Site) -> None:
    sqlite_site.manifest("m", **SAID)
    sqlite_site.manifest("copy")
    files = {name: Path(sqlite_site.folder / f"{name}.toml") for name in ("m", "copy")}
    assert [one.manifest.name for one in read([files["m"]])] == ["m"]
    with pytest.raises(ManifestError, match='takes manifests of kind "restore"'):
        read([files["copy"]])
    with pytest.raises(ManifestError, match="give each manifest its own"):
        read([files["m"], files["m"]])
