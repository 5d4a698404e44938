"""From TOML to a manifest: everything that is wrong at once, each with its place and what to do."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from manifests.errors import ManifestError
from manifests.manifest import Kind, Location, Manifest
from manifests.reading import read_exclusions, read_manifest, read_text, schema

GOOD = """
name = "cfht-d1-chop"
kind = "chop"
dataset = "CFHTLS D1 raw"
lead = "DG"
camera = "cfht_megacam"
source = "lsst10:CFHTLS/D1/*o.fits"
destination = "lsst10:CFHTDeep"
[trigger]
queue = "pipeline"
per = ["visit"]
"""
PLAIN = 'name = "a"\nkind = "copy"\ndataset = "d"\nsource = "a:raw/**"\ndestination = "b:new"\n'


def wrong(text: str, folder: Path | None = None) -> dict[str, str]:
    """What is said of a text that must not be read: sentence by place."""
    with pytest.raises(ManifestError) as error:
        read_text(text, "m.toml", folder)
    assert str(error.value).startswith("m.toml: ")
    said = {problem.place: problem.text for problem in error.value.problems}
    assert len(said) == len(error.value.problems)
    assert all(text.isprintable() for text in said.values())
    assert all(str(problem) in str(error.value) for problem in error.value.problems)
    return said


def test_a_manifest_is_read_with_its_defaults() -> None:
    manifest = read_text(GOOD)
    assert manifest.kind is Kind.CHOP
    assert manifest.source == Location("lsst10", "CFHTLS/D1/*o.fits")
    assert str(manifest.destination) == "lsst10:CFHTDeep"
    assert manifest.trigger is not None
    assert manifest.trigger.per == ("visit",)
    assert (manifest.proof, manifest.priority, manifest.replace, manifest.check) == (
        "reread",
        0,
        False,
        "fits",
    )
    assert manifest.chop.crpix == "exact"
    assert manifest.files is None
    assert manifest.exclusions == ()


def test_all_problems_are_said_at_once_each_with_its_place() -> None:
    text = """
naem = "x"
kind = "kopy"
dataset = 3
source = "lsst10:/usr/data"
destination = "abe:../x"
priority = "5"
replace = 1
lead = 2010-06-21
expect = [1, -5, "x", {visit = "../x"}]
[trigger]
queu = "pipeline"
per = "visit"
[accept]
except = 5
[chop]
crpix = "exactt"
"""
    said = wrong(text)
    assert said["name"].startswith("missing")
    assert 'did you mean "name"?' in said["naem"]
    assert 'found "kopy"; expected "copy", "chop", "archive" or "restore"' in said["kind"]
    assert "found 3 (a whole number)" in said["dataset"]
    assert "absolute" in said["source"]
    assert '".."' in said["destination"]
    assert 'found "5"; expected a whole number' in said["priority"]
    assert "expected true or false" in said["replace"]
    assert "2010-06-21 (a date or time)" in said["lead"]
    assert {"expect[1].visit", "expect[2]", "expect[3].visit"} <= said.keys()
    assert 'did you mean "queue"?' in said["trigger.queu"]
    assert "missing" in said["trigger.queue"]
    assert '["visit"]' in said["trigger.per"]
    assert "found 5" in said["accept.except"]
    assert 'found "exactt"' in said["chop.crpix"]


def test_rules_between_keys_are_tried_although_other_keys_are_bad() -> None:
    said = wrong('name = 5\nkind = "chop"\ndataset = "d"\nsource = "a:"\ndestination = "b:x*"\nexpect = [1, 1]\n')
    assert said.keys() == {"name", "source", "destination", "camera", "expect", "expect[1]"}
    assert "listed twice" in said["expect[1]"]


@pytest.mark.parametrize(
    ("line", "place", "sentence"),
    [
        ('source = "a:/raw"', "source", "absolute"),
        ('source = "a:"', "source", "empty path"),
        ('source = ""', "source", "no host"),
        ('source = "raw/**"', "source", "no host"),
        ('source = "a b:raw"', "source", "no name of a host"),
        ('source = "a:raw/../../x"', "source", '".."'),
        ('source = "a:raw//x"', "source", '"//"'),
        ('source = "a:./raw"', "source", '"."'),
        ('source = "a:D{1..4/raw"', "source", "too many"),
        ('source = "a:raw\\u0000x"', "source", "NUL"),
        ('source = "a:.stager/x"', "source", "Stager's own"),
        ('source = ["a:raw"]', "source", "a list of 1"),
        (f'source = "a:{"x/" * 600}x"', "source", "longer than 1024 bytes"),
        ('destination = "b:"', "destination", "empty path"),
        ('destination = "b:../x"', "destination", '".."'),
        ('destination = "b:/x"', "destination", "absolute"),
        ('destination = "b:x/{a,b}"', "destination", "one folder"),
        ('destination = "a:raw/x"', "destination", "within the source"),
        ('destination = "a:raw"', "destination", "within the source"),
        ('name = "a b"', "name", "letters, digits"),
        ('name = "../a"', "name", "letters, digits"),
        (f'name = "{"x" * 101}"', "name", "at most 100"),
        ('dataset = ""', "dataset", "empty text"),
        ('dataset = "a\\u001b[31m"', "dataset", "control characters"),
        ('dataset = " a"', "dataset", "blanks around"),
        ('kind = "move"', "kind", '"archive"'),
        ('kind = "chop"', "camera", "cfht_megacam"),
        ('camera = "../../x"', "camera", "name of a camera"),
        ('proof = "rereed"', "proof", '"stream"'),
        ("priority = true", "priority", "whole number"),
        ("priority = 1.0", "priority", "whole number"),
        ("priority = 1001", "priority", "-1000 to 1000"),
        ('replace = "yes"', "replace", "true or false"),
        ('check = "all"', "check", '"none"'),
        ("ids = 5", "ids", "a table of ids"),
        ("ids = {visit = true}", "ids.visit", "whole number"),
        ('ids = {field = "a/../b"}', "ids.field", "letters, digits"),
        ('ids = {Field = "D1"}', "ids", "small letters"),
        ("expect = [1]", "expect", "`camera`"),
        ('expect = [{}]\ncamera = "cfht_megacam"', "expect[0]", "empty table"),
        ("expect = 7", "expect", "a list of visits"),
        ('trigger = {queue = "p", per = ["visit"]}', "trigger.per", "`camera`"),
        ('trigger = {queue = "p", per = ["visit", "visit"]}\ncamera = "x"', "trigger.per", "twice"),
        ('trigger = "pipeline"', "trigger", "a table with `queue`"),
        ('trigger = {queue = ""}', "trigger.queue", "name of a queue"),
        ('chop = {crpix = "historic"}', "chop", 'kind = "chop"'),
        ("accept = {}", "accept.except", "missing"),
        ('files = "../list"', "files", '".."'),
        ('files = "/etc/passwd"', "files", "absolute"),
        ('files = ""', "files", "empty"),
        ('files = "none.txt"', "files", "no such file"),
        ('files = "."', "files", '"."'),
        ('accept = {except = "../bad"}', "accept.except", '".."'),
        ('accept = {except = "none.txt"}', "accept.except", "no such file"),
        ("accepts = {}", "accepts", 'did you mean "accept"?'),
        ('"a\\u001bb" = 1', "a\\x1bb", "unknown key"),
    ],
)
def test_one_bad_line_gives_one_sentence_at_its_place(tmp_path: Path, line: str, place: str, sentence: str) -> None:
    key = line.partition(" =")[0]
    kept = "".join(one + "\n" for one in PLAIN.splitlines() if not one.startswith(f"{key} ="))
    said = wrong(kept + line, tmp_path)
    if key == "files":
        said.pop("source", None)  # a list goes with a plain source
    assert said.keys() == {place}
    assert sentence in said[place]


def test_a_key_below_a_table_is_explained() -> None:
    assert "above all [tables]" in wrong(PLAIN + '[trigger]\nqueue = "p"\nlead = "DG"\n')["trigger.lead"]


@pytest.mark.parametrize(
    ("text", "place", "sentence"),
    [
        ('name = "a\nkind', "line 1, column 10", "not TOML"),
        ("x = [1,\n2,,]", "line 2, column 3", "not TOML"),
        ('name = "a"\nname = "b"\nkind = "copy"', "line 2, column 11", "given twice"),
        ("[trigger]\n[trigger]\n", "line 2", "twice"),
        ("a = " + "[" * 100_000, "", "too deeply"),
        ("a = " + "1" * 5000, "", "too many digits"),
        ("# " + "x" * (1 << 20), "", "larger than 1048576 bytes"),
    ],
)
def test_what_is_no_toml_is_said_with_its_line(text: str, place: str, sentence: str) -> None:
    said = wrong(text)
    [(found, text)] = said.items()
    assert found.startswith(place)
    assert sentence in text


def test_a_file_that_is_no_text_or_too_large_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(b'name = "a"\ndataset = "\xff"\n')
    with pytest.raises(ManifestError, match=r"m\.toml: line 2: not UTF-8"):
        read_manifest(path)
    path.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ManifestError, match="more than the 1048576 allowed"):
        read_manifest(path)
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "pipe": "not a plain file",
        "none": "no such file",
        ".": "plain file|directory",
    }.items():
        with pytest.raises(ManifestError, match=said):
            read_manifest(tmp_path / name)


def test_a_hostile_text_is_refused_soon() -> None:
    start = time.process_time()
    for text in ("x" * 1000 + ".x" * 1000 + " = 1", "expect = [" + "1," * 200_000 + "]", "[a]\n" * 100_000):
        with pytest.raises(ManifestError):
            read_text(text)
    assert time.process_time() - start < 10


def test_a_hundred_thousand_visits_are_read() -> None:
    visits = ",".join(str(n) for n in range(100_000))
    manifest = read_text(PLAIN + f'camera = "lsst_imsim"\nexpect = [{visits}]')
    assert len(manifest.expect) == 100_000
    assert manifest.expect[-1] == {"visit": 99_999}


def test_a_list_of_files_is_held_by_path_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "lists" / "d1.sha256"
    path.parent.mkdir()
    path.write_text("ab *v1/a.fits\n")
    text = PLAIN.replace("a:raw/**", "a:raw/") + 'files = "lists/d1.sha256"\n'
    manifest = read_text(text, folder=tmp_path)
    assert manifest.files is not None
    assert manifest.files.path == str(path)
    assert manifest.files.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.source == Location("a", "raw")
    path.write_text("ab *v1/b.fits\n")
    assert read_text(text, folder=tmp_path).digest() != manifest.digest()


def test_a_list_may_start_from_the_root_of_a_host_and_a_pattern_may_not(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a.fits\n")
    whole = read_text(PLAIN.replace("a:raw/**", "a:") + 'files = "list"\n', folder=tmp_path)
    assert whole.source == Location("a", "")
    assert "is a pattern, but `files`" in wrong(PLAIN + 'files = "list"\n', tmp_path)["source"]
    said = wrong(PLAIN.replace("a:raw/**", "a:raw") + 'files = "list"\ncamera = "x"\nexpect = [1]\n', tmp_path)
    assert "one of `files` and `expect`" in said["expect"]


def test_lists_need_a_folder() -> None:
    assert "save it to" in wrong(PLAIN.replace("a:raw/**", "a:raw") + 'files = "list"\n')["files"]


def test_exclusions_are_read_with_their_reasons(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(
        "# PSF failures\n\nvisit=85770111 raft=4,2 sensor=1,2  # PSF   failure\n"
        "*c05-a?.fits # amp dead\nD1/raw/v1-fr/**\nvisit=5 c0#-a1.fits\n"
    )
    first, second, third, fourth = read_exclusions(path)
    assert first.ids == {"visit": "85770111", "raft": "4,2", "sensor": "1,2"}
    assert first.reason == "PSF failure"
    assert second.glob == "*c05-a?.fits"
    assert second.reason == "amp dead"
    assert second.ids == {}
    assert third.glob == "D1/raw/v1-fr/**"
    assert third.reason == ""
    assert fourth.glob == "c0#-a1.fits"
    assert fourth.ids == {"visit": "5"}


def test_bad_exclusions_are_all_said_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"visit=1\nvisit= # x\na.fits b.fits\nvisit=1 visit=2\n\xff\n../x\ns[01\n")
    with pytest.raises(ManifestError) as error:
        read_exclusions(path)
    assert [one.place for one in error.value.problems] == [f"line {n}" for n in range(2, 8)]
    path.write_text("visit=\n" * 1000)
    with pytest.raises(ManifestError, match="and 980 more"):
        read_exclusions(path)
    with pytest.raises(ManifestError, match="more than the 10 allowed"):
        read_exclusions(path, cap=10)
    with pytest.raises(ManifestError, match="no such file"):
        read_exclusions(tmp_path / "none")


def test_bad_exclusions_are_said_among_the_manifests_other_problems(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("visit=1\nvisit=\n")
    said = wrong(PLAIN + 'proof = "x"\n[accept]\nexcept = "bad.txt"\n', tmp_path)
    assert said.keys() == {"proof", "accept.except, bad.txt line 2"}


def test_several_exclusion_lists_are_one(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(PLAIN + '[accept]\nexcept = ["one.txt", "two.txt"]\n')
    (tmp_path / "one.txt").write_text("a.fits # one\n")
    (tmp_path / "two.txt").write_text("b.fits # two\n")
    manifest = read_manifest(tmp_path / "m.toml")
    assert [one.reason for one in manifest.exclusions] == ["one", "two"]
    assert [Path(one.path).name for one in manifest.accept] == ["one.txt", "two.txt"]


def test_the_canonical_form_is_the_whole_document_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(GOOD + '[accept]\nexcept = "bad.txt"\n[ids]\nfield = "D3"\n')
    (tmp_path / "bad.txt").write_text("visit=1 # gone\n")
    manifest = read_manifest(tmp_path / "m.toml")
    text = manifest.canonical()
    again = Manifest.from_canonical(text)
    assert again == manifest
    assert again.canonical() == text
    assert again.digest() == manifest.digest()
    document = json.loads(text)
    assert document["proof"] == "reread"
    assert document["ids"] == {"field": "D3"}
    assert document["exclusions"] == [{"glob": None, "ids": {"visit": "1"}, "reason": "gone"}]


def test_writing_a_default_out_changes_nothing_and_a_changed_list_does(tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("visit=1\n")
    one = read_text('[accept]\nexcept = "bad.txt"\n'.join((GOOD, "")), folder=tmp_path)
    two = read_text(f'priority = 0\n{GOOD}\n[accept]\nexcept = "bad.txt"\n# a comment\n', folder=tmp_path)
    assert one.canonical() == two.canonical()
    bad.write_text("visit=2\n")
    assert read_text(f'{GOOD}[accept]\nexcept = "bad.txt"\n', folder=tmp_path).canonical() != one.canonical()


def test_the_digest_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    digests, documents = set(), set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bad.txt").write_text("visit=1\n")
        manifest = read_text(f'{GOOD}[accept]\nexcept = "bad.txt"\n', folder=tmp_path / name)
        digests.add(manifest.digest())
        documents.add(manifest.canonical())
    assert len(digests) == 1
    assert len(documents) == 2


def test_the_schema_has_every_key_and_no_other() -> None:
    properties = schema()["properties"]
    assert {"name", "kind", "source", "files", "accept", "expect", "trigger", "chop"} <= properties.keys()
    assert "exclusions" not in properties
    assert schema()["additionalProperties"] is False
    assert all("description" in one for one in properties.values())
    assert json.loads(json.dumps(schema())) == schema()
