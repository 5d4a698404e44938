"""The commands of a store are checked when the configuration is read, all problems at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stager.demo import tape
from tests.transfers.command.test_store import templates_of
from transfers.command.templates import Templates, filled

HSI = Templates(
    put=("hsi", "-q", "put {local} : {path}"),
    get=("hsi", "-q", "get {local} : {path}"),
    list=("hsi", "-q", "ls -lR {path}"),
    remove=("hsi", "-q", "rm {path}"),
    stage=None,
    digest=("hsi", "-q", "hashlist {path}"),
    rename=("hsi", "-q", "mkdir -p {folder}; mv {path} {to}"),
    listed=r"(?P<folder>/.*):|-[rwx-]{9} +\d+ +\S+ +\S+ +(?P<size>\d+) +\S+ +\d+ +\S+ (?P<path>.+)",
    digested=r"(?P<digest>[0-9a-f]{32}) md5 .*",
    algorithm="md5",
    online=(),
    staging=(),
    lost=(),
    timeout_s=3600.0,
    keep_bytes=1 << 30,
    absent="HPSS_ENOENT",
    ignored=r"d.*|total.*",
)


def test_sound_commands_have_no_problems(tmp_path: pytest.TempPathFactory) -> None:
    assert HSI.problems() == []
    assert templates_of(tmp_path).problems() == []  # type: ignore[arg-type] # a path


@pytest.mark.parametrize(
    ("changed", "key", "words"),
    [
        ({"put": ()}, "put", "names no program"),
        ({"put": ("", "{local}", "{path}")}, "put", "names no program"),
        ({"put": ("{path}", "{local}")}, "put", "is the program"),
        ({"put": ("hsi", "{local}")}, "put", "lacks {path}"),
        ({"put": ("hsi", "{path}")}, "put", "lacks {local}"),
        ({"get": ("hsi", "{path}", "{local}", "{to}")}, "get", "{to} is no placeholder of it"),
        ({"get": ("hsi", "{path}", "{local}", "{}")}, "get", "{} is no placeholder"),
        ({"remove": ("hsi", "{Path}")}, "remove", "{Path} is no placeholder"),
        ({"remove": ("hsi", "rm {path} {path1}")}, "remove", "{path1} is no placeholder"),
        ({"remove": ("hsi", "{ path }")}, "remove", "{ path } is no placeholder"),
        ({"remove": ("hsi", "{path:s}")}, "remove", "{path:s} is no placeholder"),
        ({"remove": ("hsi", "{path}", "{the-path}")}, "remove", "{the-path} is no placeholder"),
        ({"remove": ("sh", "-c", "rm ${path}")}, "remove", "lacks {path}"),
        ({"remove": ("./hsi", "{path}")}, "remove", "must be an absolute path"),
        ({"remove": ("~/bin/hsi", "{path}")}, "remove", "must be an absolute path"),
        ({"remove": ("hsi", "{paths}")}, "remove", "{paths} is no placeholder"),
        ({"list": ("hsi", "{path}", "{paths}")}, "list", "takes one"),
        ({"list": ("hsi", "ls {paths}")}, "list", "a word of its own"),
        ({"list": ("hsi", "{paths}", "{paths}")}, "list", "a word of its own"),
        ({"rename": ("hsi", "{path}")}, "rename", "lacks {to}"),
        ({"remove": ("hsi", "{path}\0")}, "remove", "NUL"),
        ({"listed": "("}, "listed", "no regular expression"),
        ({"listed": "(?P<path>.+)"}, "listed", "lacks the group size"),
        ({"listed": r"(?P<path>\S+) (?P<size>\d+) (?P<positon>\d+)"}, "listed", "the group positon says nothing"),
        ({"listed": r"(?P<path>.*)(?P<size>\d*)"}, "listed", "says nothing"),
        ({"listed": r"(?P<path>(a+)+) (?P<size>\d+)"}, "listed", "without bound"),
        ({"listed": r"(?P<path>(?:[^)]*\))*) (?P<size>\d+)"}, "listed", "without bound"),
        ({"digested": "[0-9a-f]+"}, "digested", "lacks the group digest"),
        ({"digested": None}, "digested", "missing"),
        ({"digest": None}, "digest", "missing"),
        ({"algorithm": None}, "algorithm", "missing"),
        ({"algorithm": "sha3"}, "algorithm", "is none of"),
        ({"online": ("DISK",)}, "online", "no group state"),
        ({"stage": ("hsi", "stage {path}")}, "stage", "nothing would say"),
        ({"absent": ".*"}, "absent", "says nothing"),
        ({"absent": "(?P<file>x)"}, "absent", "the group file says nothing"),
        ({"ignored": "x*"}, "ignored", "says nothing"),
        ({"full": "("}, "full", "no regular expression"),
        ({"full": ".*"}, "full", "says nothing"),
        ({"full": "(?P<path>x)"}, "full", "the group path says nothing"),
        ({"full": "(x+)+"}, "full", "without bound"),
        ({"timeout_s": 0.0}, "timeout_s", "more than 0"),
        ({"keep_bytes": -1}, "keep_bytes", "0 bytes or more"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(changed: dict[str, object], key: str, words: str) -> None:
    found = replace(HSI, **changed).problems()  # type: ignore[arg-type] # the changes differ by case
    assert [text for where, text in found if where == key and words in text], found


def test_states_must_be_told_apart() -> None:
    listed = tape.LISTED
    assert "online" in dict(replace(HSI, listed=listed).problems())
    found = replace(HSI, listed=listed, online=("resident", "x"), lost=("x",)).problems()
    assert "'x' stands in more than one of" in dict(found)["online"]


def test_all_problems_are_told_at_once() -> None:
    found = replace(HSI, put=(), remove=("rm",), listed="(", algorithm="none").problems()
    assert {key for key, _ in found} == {"put", "remove", "listed", "algorithm"}


def test_placeholders_become_words_and_nothing_else() -> None:
    values = {"path": "/a b/$(x)/{local}", "local": "/x/1"}
    assert filled(("tape", "{path}", "--to={local}"), values) == ["tape", "/a b/$(x)/{local}", "--to=/x/1"]
    assert filled(("sh", "-c", "rm ${1:-x}", "{path}"), values) == ["sh", "-c", "rm ${1:-x}", "/a b/$(x)/{local}"]
    assert filled(("tape", "ls", "{paths}", "-R"), {}, ["/a b", "-rf"]) == ["tape", "ls", "/a b", "-rf", "-R"]


@pytest.mark.parametrize("name", ["/a b", "/a;rm", "/a'b", '/a"', "/a\\", "/a|b", "/a*", "/a\u00e4", "/a{b}", "/a$b"])
def test_name_that_would_be_torn_apart_within_a_word_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="torn apart"):
        filled(HSI.remove, {"path": name})
    assert filled(("rm", "{path}"), {"path": name}) == ["rm", name]


@pytest.mark.parametrize("program", ["hsi", "/usr/bin/ssh"])
@pytest.mark.parametrize("name", ["/a b", "/a;rm x", "/$(rm x)", "/a*"])
def test_name_that_a_program_would_tear_apart_after_joining_its_words_is_refused(program: str, name: str) -> None:
    with pytest.raises(ValueError, match="torn apart"):
        filled((program, "mss", "rm", "{path}"), {"path": name})
    with pytest.raises(ValueError, match="torn apart"):
        filled((program, "mss", "ls", "{paths}"), {}, ["/a", name])
    with pytest.raises(ValueError, match="torn apart"):
        filled(("timeout", "60", program, "rm", "{path}"), {"path": name})
    assert filled((program, "rm", "{path}", "{paths}"), {"path": "/a"}, ["/b", "/c"]) == [
        program,
        "rm",
        "/a",
        "/b",
        "/c",
    ]
