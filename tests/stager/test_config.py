"""stager.toml: strict, with defaults, and all its problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.reading import read_manifest
from stager.config import Config, ConfigError, FolderQueue, TableQueue, parse_config, read_config, schema
from stager.opening import login_of
from stager.templates import write_templates
from transfers.ssh.channels import Login

LOCAL = {"kind": "local", "root": "/usr/data"}
FAR = {"kind": "ssh", "root": "/cfs", "address": "abe.example.edu"}
STORE = {"kind": "store", "root": "/mss"}
OFFICE: dict[str, Any] = {"kind": "joboffice", "folder": "/lsst/joboffices_1/PT1Pipe-joboffice"}


def parsed(**said: Any) -> Config:
    return parse_config(said, Path("/etc/stager/stager.toml"))


def problems(**said: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(**said)
    return str(caught.value)


def test_an_empty_configuration_has_defaults_beside_itself() -> None:
    config = parsed()
    assert config.database_url == "sqlite:////etc/stager/stager.db"
    assert (config.spool, config.scratch) == (Path("/etc/stager/incoming"), Path("/etc/stager/scratch"))
    assert config.camera_folders == (Path("/etc/stager/cameras"),)
    assert (config.stager.lease_s, config.stager.tries, config.streams("a", "b")) == (60.0, 8, (2, 2))


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("sqlite:///x.db", "sqlite:////etc/stager/x.db"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("postgresql+psycopg://u@h/n", "postgresql+psycopg://u@h/n"),
    ],
)
def test_a_relative_database_is_beside_the_configuration(url: str, meant: str) -> None:
    assert parsed(stager={"database": url}).database_url == meant


def test_hosts_routes_and_queues_are_read() -> None:
    config = parsed(
        hosts={"a": LOCAL, "mss": {"kind": "store", "driver": "directory", "root": "/mss"}},
        routes={"a > mss": {"streams": 7}},
        queues={"pipeline": {"kind": "table", "lease_s": 5}},
    )
    assert config.host_kinds == {"a": "local", "mss": "store"}
    assert (config.streams("a", "mss"), config.streams("mss", "a")) == ((7, 7), (2, 2))
    assert config.queues["pipeline"] == TableQueue(kind="table", lease_s=5)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"hosts": {"a": LOCAL | {"rot": 1}}}, "unknown key `rot`, did you mean"),
        ({"host": {}}, "unknown key `host`, did you mean"),
        ({"hosts": {"a": {"kind": "local"}}}, "root: missing"),
        ({"hosts": {"a": {"kind": "lokal", "root": "/x"}}}, "lokal"),
        ({"hosts": {"a": LOCAL | {"root": "relative"}}}, "absolute path"),
        ({"hosts": {"a/b": LOCAL}}, "cannot be named"),
        ({"hosts": {"a": {"kind": "ssh", "root": "/x"}}}, "hosts.a.address: missing"),
        ({"hosts": {"a": FAR | {"address": "-oProxyCommand=reboot"}}}, "none of .%- first"),
        ({"hosts": {"a": FAR | {"address": "abe;reboot"}}}, "letters, digits"),
        ({"hosts": {"a": FAR | {"address": "abe\n-oX=y"}}}, "letters, digits"),
        ({"hosts": {"a": FAR | {"address": ""}}}, "letters, digits"),
        ({"hosts": {"a": FAR | {"user": "-l"}}}, "user name"),
        ({"hosts": {"a": FAR | {"port": 0}}}, "1 to 65535"),
        ({"hosts": {"a": FAR | {"port": "22"}}}, "1 to 65535"),
        ({"hosts": {"a": FAR | {"root": "~/data"}}}, "absolute path"),
        ({"hosts": {"a": FAR | {"identity": "id_ed25519"}}}, "private key"),
        ({"hosts": {"a": FAR | {"known_hosts": "~/a\nb"}}}, "host's key"),
        ({"hosts": {"a": FAR | {"client": "telnet"}}}, "paramiko"),
        ({"hosts": {"a": FAR | {"python": "python3 -c x"}}}, "without blanks"),
        ({"hosts": {"a": FAR | {"python": "$(reboot)"}}}, "without blanks"),
        ({"hosts": {"a": FAR | {"python": "-V"}}}, "without blanks"),
        ({"hosts": {"a": FAR | {"streams": 0}}}, "1 to 32"),
        ({"hosts": {"a": FAR | {"adress": "x"}}}, "did you mean"),
        ({"hosts": {"a": LOCAL | {"address": "x"}}}, "unknown key `address`"),
        ({"hosts": {"m": STORE | {"driver": "ssh"}}}, "hosts.m.address: missing"),
        ({"hosts": {"m": STORE | {"driver": "directory", "user": "x"}}}, 'of the driver "ssh"'),
        ({"hosts": {"m": STORE | {"driver": "tape"}}}, '"command" or "s3"'),
        ({"hosts": {"a": LOCAL}, "routes": {"a > a": {"streams": [3, 1]}}}, "the least and the most"),
        ({"hosts": {"a": LOCAL}, "routes": {"a > a": {"streams": [1, 2, 3]}}}, "the least and the most"),
        ({"hosts": {"a": LOCAL}, "routes": {"a > a": {"streams": 33}}}, "1 to 32"),
        ({"hosts": {"a": LOCAL}, "routes": {"a > a": {"streams": True}}}, "1 to 32"),
        ({"hosts": {"a": LOCAL}, "routes": {"a > a": {"streams": "4"}}}, "1 to 32"),
        ({"hosts": {"a": LOCAL | {"file_mode": "0999"}}}, "0644"),
        ({"hosts": {"a": LOCAL}, "routes": {"a > b": {}}}, "two hosts above"),
        ({"hosts": {"a": LOCAL}, "routes": {"a": {}}}, "SOURCE > DESTINATION"),
        ({"stager": {"serves": ["nobody"]}}, "nobody"),
        ({"stager": {"database": "mysql://x"}}, "postgresql"),
        ({"stager": {"lease_s": 0}}, "seconds"),
        ({"stager": {"lease_s": "60"}}, "seconds"),
        ({"stager": {"tries": True}}, "1 to 1000"),
        ({"queues": {"q": {"kind": "kafka"}}}, '"table", "joboffice" or "lists"'),
        ({"queues": {"q": {}}}, "queues.q.kind: missing"),
        ({"queues": {"q": {"kind": "joboffice"}}}, "queues.q.folder: missing"),
        ({"queues": {"q": OFFICE | {"folder": "lsst/jo"}}}, "absolute path on this machine"),
        ({"queues": {"q": OFFICE | {"folder": "/lsst\n"}}}, "absolute path on this machine"),
        ({"queues": {"q": OFFICE | {"type": "raw visit=1"}}}, "a type of datasets"),
        ({"queues": {"q": OFFICE | {"datasets": "file"}}}, '"files" (a dataset for each file'),
        ({"queues": {"q": OFFICE | {"ids": []}}}, "the ids of a dataset in their order"),
        ({"queues": {"q": OFFICE | {"ids": ["visit", "visit"]}}}, "the ids of a dataset in their order"),
        ({"queues": {"q": OFFICE | {"ids": {"visit": "v", "ccd": "v"}}}}, "the ids of a dataset in their order"),
        ({"queues": {"q": OFFICE | {"ids": {"visit": "a b"}}}}, "the ids of a dataset in their order"),
        ({"queues": {"q": OFFICE | {"ids": "visit"}}}, "the ids of a dataset in their order"),
        ({"queues": {"q": OFFICE | {"lease_s": 5}}}, "unknown key `lease_s`"),
        ({"queues": {"q": OFFICE | {"flush": 5}}}, "unknown key `flush`"),
        ({"queues": {"q": OFFICE | {"kind": "lists", "flush": 1001}}}, "0 to 1000"),
        ({"queues": {"q": {"kind": "table", "folder": "/x"}}}, "unknown key `folder`"),
        ({"path": "/etc/passwd", "stager": {"tries": 0}}, "1 to 1000"),
    ],
)
def test_each_mistake_is_said_with_what_was_expected(said: dict[str, Any], text: str) -> None:
    assert text in problems(**said)


def test_the_ids_of_a_queue_are_a_list_or_have_other_names() -> None:
    listed = parsed(queues={"q": OFFICE | {"ids": ["visit", "ccd"]}}).queues["q"]
    renamed = parsed(queues={"q": OFFICE | {"ids": {"visit": "visit", "sensor": "ccd"}}}).queues["q"]
    assert isinstance(listed, FolderQueue)
    assert isinstance(renamed, FolderQueue)
    assert list((listed.ids or {}).items()) == [("visit", "visit"), ("ccd", "ccd")]
    assert list((renamed.ids or {}).items()) == [("visit", "visit"), ("sensor", "ccd")]


def test_a_host_over_ssh_leaves_to_the_site_what_is_not_said() -> None:
    config = parsed(
        hosts={"abe": FAR, "mss": STORE | {"driver": "ssh", "address": "mss-login", "user": "stager", "port": 2222}}
    )
    assert config.host_kinds == {"abe": "ssh", "mss": "store"}
    assert all(host.by_ssh for host in config.hosts.values())
    assert login_of(config.hosts["abe"]) == Login("abe.example.edu")  # type: ignore[arg-type]
    assert login_of(config.hosts["mss"]) == Login("mss-login", "stager", 2222)  # type: ignore[arg-type]


def test_a_key_file_may_be_in_the_home_of_who_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/dm")
    host = parsed(hosts={"abe": FAR | {"identity": "~/.ssh/stager", "known_hosts": "/etc/known"}}).hosts["abe"]
    login = login_of(host)  # type: ignore[arg-type]
    assert (login.identity, login.known_hosts) == ("/home/dm/.ssh/stager", "/etc/known")


@pytest.mark.parametrize(
    ("route", "bounds"),
    [
        (("a", "b"), (2, 2)),
        (("a", "abe"), (1, 8)),
        (("abe", "few"), (1, 3)),
        (("b", "abe"), (4, 4)),
        (("abe", "b"), (2, 8)),
        (("few", "b"), (3, 3)),
    ],
)
def test_streams_are_bounded_by_route_and_ends(route: tuple[str, str], bounds: tuple[int, int]) -> None:
    config = parsed(
        hosts={"a": LOCAL, "b": LOCAL, "abe": FAR, "few": FAR | {"streams": 3}},
        routes={"b > abe": {"streams": 4}, "abe > b": {"streams": [2, 16]}, "few > b": {"streams": 12}},
    )
    assert config.streams(*route) == bounds


def test_all_problems_are_said_at_once() -> None:
    said = problems(
        stager={"tries": 0, "databse": "x"},
        hosts={"a": {"kind": "local", "root": "relative"}, "b": LOCAL | {"links": "yes"}},
        queues={"q": {"kind": "table", "lease_s": -1}},
    )
    assert "5 problems" in said
    for place in ("stager.tries", "stager.databse", "root", "links", "lease_s"):
        assert place in said


def test_all_names_that_do_not_agree_are_said_at_once() -> None:
    said = problems(
        hosts={"a": LOCAL, "b b": LOCAL}, routes={"a > c": {}, "x": {}}, queues={"q/": {"kind": "table"}},
        stager={"serves": ["nobody", "a"]},
    )  # fmt: skip
    for name in ('"b b"', '"a > c"', '"x"', '"q/"', '"nobody"'):
        assert name in said


@pytest.mark.parametrize("text", ["[stager", "[stager]\ntries = 1\ntries = 2\n", "\ufffe", "x" * (1 << 21)])
def test_what_is_not_toml_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "stager.toml").write_text(text, encoding="utf-16" if text == "\ufffe" else "utf-8")
    with pytest.raises(ConfigError, match=r"stager\.toml"):
        read_config(str(tmp_path / "stager.toml"))


def test_the_file_is_the_one_given_then_the_environments_then_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGER_CONFIG", raising=False)
    for name, tries in (("given.toml", 1), ("named.toml", 2), ("stager.toml", 3)):
        (tmp_path / name).write_text(f"[stager]\ntries = {tries}\n")
    assert read_config().stager.tries == 3
    monkeypatch.setenv("STAGER_CONFIG", "named.toml")
    assert read_config().stager.tries == 2
    assert read_config("given.toml").stager.tries == 1
    with pytest.raises(ConfigError, match=r"there is no nowhere\.toml; `stager init` writes one"):
        read_config("nowhere.toml")


def test_what_init_writes_can_be_read_and_is_never_overwritten(tmp_path: Path) -> None:
    written = write_templates(tmp_path / "new")
    assert [path.name for path in written] == ["stager.toml", "first-archive.toml"]
    config = read_config(str(written[0]))
    assert config.spool is not None
    assert config.spool.is_dir()
    assert read_manifest(written[1]).destination.host in config.hosts
    written[0].write_text("mine")
    assert write_templates(tmp_path / "new") == []
    assert written[0].read_text() == "mine"


def test_the_schema_describes_every_key_but_the_files_own_place() -> None:
    said = schema()
    assert set(said["properties"]) == {"stager", "hosts", "routes", "queues"}
    for part in ("Stager", "LocalHost", "SshHost", "StoreHost", "Route", "TableQueue", "JobOfficeQueue", "ListQueue"):
        assert all("description" in field for field in said["$defs"][part]["properties"].values())
    streams = said["$defs"]["Route"]["properties"]["streams"]["anyOf"]
    assert {one["type"] for one in streams} == {"integer", "array", "null"}
