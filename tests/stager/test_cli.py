"""Commands: what they print, and the exit code that says how it stands; no misuse ends in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stager.conftest import Said, Stager
from tests.stager.site import Site, done, failed
from tests.waiting import LATE_S
from transfers.errors import Refused

ROOT = Path(__file__).parents[2]


def process(site: Site, *words: str, timeout: float = LATE_S, **variables: str) -> Said:
    """The same as a real process."""
    environment = {key: value for key, value in os.environ.items() if key not in ("STAGER_CONFIG", "COLUMNS")}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    ran = subprocess.run(
        [sys.executable, "-m", "stager", *words],
        cwd=site.folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert "Traceback" not in ran.stderr, ran.stderr
    return Said(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def half(site: Site) -> Site:
    """A dataset of which one file is proven and one held."""
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    first, second = site.claim()
    site.finish(done(first), failed(second, Refused("permission denied", host="b", side="destination")))
    return site


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["status", "--bogus"], "--bogus"),
        (["nonsense"], "nonsense"),
        (["status", "nothing"], "no dataset or manifest nothing"),
        (["show", "nothing"], "no manifest nothing"),
        (["show", "m", "--state", "sideways"], "sideways"),
        (["retry", "nothing"], "no manifest nothing"),
        (["retry", "m", "--item", "no*such"], "no item that no*such names"),
        (["hosts", "pause", "nowhere"], "no host nowhere"),
        (["queue", "list", "nobody"], "no queue nobody"),
        (["queue", "ack", "pipeline", "no-such-id"], "has no trigger no-such-id"),
        (["verify", "nothing"], "no copy is known of nothing"),
        (["verify", "b:../x"], ".."),
        (["schema", "nonsense"], "no schema of nonsense"),
        (["wait", "m", "--timeout", "nan"], "nan is no number of seconds"),
        (["restore", "nowhere.toml", "--timeout", "nan"], "nan is no number of seconds"),
        (["restore", "nowhere.toml", "--trust-within", "NaN"], "nan is no number of seconds"),
        (["queue", "claim", "pipeline", "--lease", "nan"], "nan is no number of seconds"),
        (["queue", "claim", "pipeline", "--lease", "inf"], "range 1<=x<=2592000"),
        (["submit", "nowhere.toml"], "nowhere.toml"),
        (["-c", "nowhere.toml"], ""),
        (["status", "-c", "nowhere.toml"], "there is no nowhere.toml"),
        (["wait"], "datasets"),
        (["wait", "m", "--timeout", "soon"], "soon"),
    ],
)
def test_bad_usage_is_a_line_and_exit_code_2(half: Site, stager: Stager, words: list[str], text: str) -> None:
    said = stager(*words)
    assert said.code == 2
    assert text in said.err + said.out


@pytest.mark.parametrize("config", ["[stager\n", "[hosts.a]\nkind = 'local'\n", "[stager]\nbogus = 1\n"])
def test_a_bad_configuration_is_exit_code_2(sqlite_site: Site, config: str) -> None:
    (sqlite_site.folder / "stager.toml").write_text(config)
    assert process(sqlite_site, "submit", "m.toml").code == 2


@pytest.mark.parametrize("words", [["status"], ["doctor"]])
def test_a_database_that_cannot_be_used_is_a_line(sqlite_site: Site, words: list[str]) -> None:
    config = sqlite_site.folder / "stager.toml"
    (sqlite_site.folder / "broken.db").write_text("no database " * 100)
    config.write_text('[stager]\ndatabase = "sqlite:///broken.db"\n')
    said = process(sqlite_site, *words)
    assert (said.code, "not a database" in said.err) == (1, True)
    config.write_text('[stager]\ndatabase = "postgresql+psycopg://u:secret@127.0.0.1:1/none"\n')
    said = process(sqlite_site, *words)
    assert said.code == 1
    assert "127.0.0.1" in said.err
    assert "secret" not in said.err


def test_a_bad_manifest_is_refused_with_all_its_problems_and_nothing_changed(half: Site, stager: Stager) -> None:
    (half.folder / "bad.toml").write_text("name = 'x'\nkindd = 'copy'\nsource = 'nowhere'\n")
    said = stager("submit", "bad.toml", "m.toml")
    assert (said.code, said.out) == (2, "")
    assert "did you mean" in said.err
    assert "problems" in said.err


def test_submit_says_what_it_did_and_some_may_fail(site: Site, stager: Stager) -> None:
    site.files("a:raw/1")
    site.manifest("good")
    site.manifest("empty", source="a:nothing/**")
    said = stager("submit", "good.toml", "empty.toml", "--json")
    assert said.code == 1
    (good,) = json.loads(said.out)
    assert (good["name"], good["revision"], good["items"], good["dry_run"]) == ("good", 1, 1, False)
    assert "matches no file" in said.err
    assert "unchanged, revision 1 stands" in stager("submit", "good.toml").out
    assert stager("submit", "empty.toml").code == 2


def test_status_is_a_table_or_json_of_the_design(half: Site, stager: Stager) -> None:
    said = stager("status")
    assert (said.code, "m data" in said.out, "permission denied" in said.out) == (0, True, True)
    (row,) = json.loads(stager("status", "m", "--json").out)["datasets"]
    assert (row["state"], row["files"]["held"], row["percent"]) == ("held", 1, 50.0)


def test_status_before_anything_was_submitted_is_no_error(tmp_path: Path, sqlite_site: Site) -> None:
    (sqlite_site.folder / "stager.toml").write_text('[stager]\ndatabase = "sqlite:///not-yet.db"\n')
    said = process(sqlite_site, "status")
    assert (said.code, "nothing has been submitted yet" in said.out) == (0, True)
    assert json.loads(process(sqlite_site, "status", "--json").out)["datasets"] == []


def test_show_says_why_items_are_held_and_what_was_tried(half: Site, stager: Stager) -> None:
    said = stager("show", "m", "--attempts")
    assert said.code == 0
    for word in ("held", "raw/2", "permission denied", "destination", "refused"):
        assert word in said.out
    shown = json.loads(stager("show", "m", "--state", "held", "--json").out)
    assert [item["source"] for item in shown["items"]] == ["raw/2"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_a_failure_told_in_a_line(half: Site, unbuffered: str) -> None:
    command = [sys.executable, "-m", "stager", "status"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            command, cwd=half.folder, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert "No space left on device" in ran.stderr
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as gone:  # a reader that leaves
        gone.wait()
        ran = subprocess.run(
            command, cwd=half.folder, env=environment, stdout=gone.stdin, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, "")


def test_show_says_how_what_is_done_was_proven(site: Site, stager: Stager) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run(proof="stream")
    site.file("a:raw/3")
    site.submit(proof="stream")
    shown = json.loads(stager("show", "m", "--json").out)
    assert {item["source"]: item["proof"] for item in shown["items"]} == {
        "raw/1": "stream",
        "raw/2": "stream",
        "raw/3": None,
    }


def test_wait_ends_when_whole_when_stuck_and_when_time_is_up(half: Site, stager: Stager) -> None:
    assert stager("wait", "m").code == 1
    half.change("UPDATE items SET state = 'waiting' WHERE state = 'held'")
    assert stager("wait", "m", "--timeout", "0").code == 3
    half.finish(*(done(item) for item in half.claim()))
    assert stager("wait", "m data").code == 0
    half.change("UPDATE items SET state = 'excluded', kind = 'evicted' WHERE source = (SELECT max(source) FROM items)")
    assert stager("wait", "m data").code == 0
    half.change("UPDATE items SET state = 'excluded', kind = 'evicted'")
    said = stager("wait", "m data")
    assert (said.code, "m was evicted as a whole; `stager retry m`" in said.err) == (1, True)
    half.change("UPDATE items SET state = 'done', kind = NULL")
    assert stager("wait", "m", "another", "--timeout", "0").code == 3


def test_operators_intents_take_effect(half: Site, stager: Stager) -> None:
    def intent() -> Any:
        return half.value("SELECT intent FROM manifests")

    for command, intended in (("hold", "held"), ("release", "active"), ("cancel", "cancelled"), ("release", "active")):
        assert stager(command, "m").code == 0
        assert intent() == intended
    assert "1 item will be tried now" in stager("retry", "m", "--item", "2").out
    assert stager("hosts", "pause", "a", "--reason", "disks").code == 0
    assert "paused" in stager("hosts").out
    assert stager("hosts", "resume", "a").code == 0


def test_a_pipeline_claims_and_acknowledges_by_the_command_line(half: Site, stager: Stager) -> None:
    assert stager("queue", "claim", "pipeline").code == 3
    stager("cancel", "m", "--item", "2")
    half.path("b:new").mkdir()
    half.work()
    event = json.loads(stager("queue", "claim", "pipeline", "--json").out)
    assert event["specversion"] == "1.0"
    assert event["id"] in stager("queue", "list", "pipeline").out
    for word, code in (("fail", 0), ("ack", 2), ("replay", 0), ("ack", 2)):
        assert stager("queue", word, "pipeline", event["id"]).code == code
    assert json.loads(stager("queue", "claim", "pipeline", "--json").out)["id"] == event["id"]
    assert stager("queue", "ack", "pipeline", event["id"]).code == 0


def test_verify_and_doctor_say_by_their_exit_codes_what_they_found(site: Site, stager: Stager) -> None:
    site.files("a:raw/1")
    site.run()
    assert stager("verify", "m").code == stager("verify", "b:new").code == stager("doctor", "--deep").code == 0
    site.path("b:new/1").write_text("rotten")
    said = stager("verify", "m data", "--json")
    assert said.code == 1
    assert json.loads(said.out)["troubles"] == [{"location": "b:new/1", "trouble": "corrupt"}]
    assert stager("doctor").code == 1
    assert stager("hosts", "--check").code == 0
    site.path("b:").rename(site.folder / "away")
    assert stager("hosts", "--check").code == 1


def test_verify_says_once_why_no_copy_of_a_host_can_be_read(site: Site, stager: Stager) -> None:
    site.files("a:raw/1", "a:raw/2", "c:raw/3")
    site.run()
    site.run("n", dataset="m data", source="c:raw/**", destination="a:new", trigger=None)
    site.path("a:new/3").write_text("rotten")
    site.path("b:").rename(site.folder / "away")
    said = stager("verify", "m data")
    assert said.code == 1
    words = " ".join(said.out.split())  # rows of a narrow table are folded
    assert words.count("host down") == 1
    assert "b: 2 copies the root " in words
    assert "a:new/3 corrupt 0 of 3 copies proven, 0 B `stager retry" in words
    assert "stager retry" not in stager("verify", "m").out
    assert len(json.loads(stager("verify", "m", "--json").out)["troubles"]) == 2


def test_schemas_are_json(stager: Stager) -> None:
    assert "dataset" in json.loads(stager("schema", "manifest").out)["properties"]
    assert "hosts" in json.loads(stager("schema", "config").out)["properties"]


def test_init_writes_once(tmp_path: Path, stager: Stager) -> None:
    assert stager("init", "new").code == 0
    assert (stager("init", "new").code, (tmp_path / "new" / "stager.toml").exists()) == (2, True)


def test_run_carries_out_and_its_exit_code_says_how_it_went(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.manifest()
    said = process(site, "run", "m.toml")
    assert (said.code, "complete" in said.out) == (0, True), said
    assert site.path("b:new/2").is_file()
    assert site.triggers() == [("m data", 1, "", "ready")]
    site.file("a:raw/3")
    site.file("b:new/3", "another file of that name")
    said = process(site, "run", "m.toml")
    assert (said.code, "conflict" in said.out) == (1, True), said


def test_run_says_what_it_leaves_out(site: Site) -> None:
    site.files("a:raw/1")
    site.path("a:raw/link").symlink_to("1")
    site.manifest()
    said = process(site, "run", "m.toml")
    assert (said.code, "left out raw/link: a symbolic link" in said.err) == (0, True), said


def test_a_reader_that_leaves_the_pipe_gets_no_traceback(half: Site) -> None:
    command = f"{sys.executable} -m stager schema manifest | head -c 1 >/dev/null"
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=half.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert ran.stderr == b""


def test_every_command_ends_its_help_with_its_exit_codes(stager: Stager) -> None:
    groups = {"queue": ["list", "claim", "ack", "fail", "replay"], "hosts": ["pause", "resume"], "registry": ["check"]}
    for word in ("submit", "run", "daemon", "status", "show", "wait", "restore", "verify", "doctor", "init"):
        said = stager(word, "--help")
        assert said.code == 0
        assert "exit status" in " ".join(said.out.lower().split()), word
    for group, words in groups.items():
        for word in words:
            assert stager(group, word, "--help").code == 0
