"""The documents are complete: every command, option and key is in them, links lead somewhere, examples are read."""

from __future__ import annotations

import re
import subprocess
import textwrap
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from pydantic import BaseModel

from manifests import camera_files, manifest, parts
from manifests.camera_files import CameraFile
from manifests.camera_reading import read_camera
from manifests.reading import read_manifest
from stager import config
from stager.cli import app
from stager.config import parse_config
from tests.waiting import LATE_S
from transfers import agent
from transfers.ssh import openssh
from transfers.ssh.conversations import BOOT

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
EVERYWHERE = {"--help", "--config"}  # options that each section may leave to the page's beginning


# ---------------------------------------------------------------------------------------- commands


class Command(NamedTuple):
    name: str
    options: list[str]
    help: str


def commands(group: Any, name: str = "stager") -> Iterator[Command]:
    """Every command that can be typed, with its long options."""
    for word, command in sorted(getattr(group, "commands", {}).items()):
        yield from commands(command, f"{name} {word}")
    if name != "stager" and (not hasattr(group, "commands") or group.invoke_without_command):
        options = [one for parameter in group.params for one in parameter.opts if one.startswith("--")]
        yield Command(name, options, group.help or "")


COMMANDS = list(commands(typer.main.get_command(app)))


def command_sections() -> dict[str, str]:
    """What commands.md says under the heading of each command."""
    pieces = re.split(r"^### `(stager [^`]+)`$", (DOCS / "commands.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    heads = [" ".join(word for word in head.split() if word.islower()) for head in pieces[::2]]
    return dict(zip(heads, pieces[1::2], strict=True))


def test_there_are_commands_to_look_for() -> None:
    assert {"stager submit", "stager queue claim", "stager hosts", "stager hosts pause"} <= {c.name for c in COMMANDS}


def test_every_command_has_its_section_and_no_other_has_one() -> None:
    assert set(command_sections()) == {command.name for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_is_in_its_commands_section(command: Command) -> None:
    section = command_sections()[command.name]
    assert [one for one in command.options if one not in EVERYWHERE and f"`{one}" not in section] == []
    said = set(re.findall(r"`(--[a-z-]+)", section))
    assert said <= {*command.options, "--config"}
    assert "Exit status" in section


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_every_command_ends_in_its_exit_status(command: Command) -> None:
    assert "Exit status: 0" in " ".join(command.help.split())


# -------------------------------------------------------------------------------------------- keys


def keys_of(model: type[BaseModel]) -> set[str]:
    return {part.alias or name for name, part in model.model_fields.items()}


def table_keys(page: str, heading: str) -> set[str]:
    """The keys in the first column of the table below a heading."""
    text = (DOCS / page).read_text("utf-8")
    section = re.split(r"^#+ ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return set(re.findall(r"^\| `([a-z0-9_]+)` \|", section, re.MULTILINE))


KEYS = [
    ("manifests.md", "## Keys", manifest.Document),
    ("manifests.md", "### [trigger]", parts.Trigger),
    ("manifests.md", "### [accept]", manifest.Accept),
    ("manifests.md", "### [chop]", parts.Chop),
    ("manifests.md", "### [bundle]", parts.Bundling),
    ("configuration.md", "## [stager]", config.Stager),
    ("configuration.md", "## [hosts.NAME]", config.StoreHost),
    ("configuration.md", "### [hosts.NAME.commands]", config.Commands),
    ("configuration.md", "### [hosts.NAME.s3]", config.Bucket),
    ("configuration.md", '## [routes."SOURCE > DESTINATION"]', config.Route),
    ("configuration.md", "## [queues.NAME]", config.TableQueue),
    ("configuration.md", "### Queues that are folders", config.ListQueue),
]


@pytest.mark.parametrize(("page", "heading", "model"), KEYS, ids=lambda value: getattr(value, "__name__", None))
def test_every_key_has_its_row_and_every_row_its_key(page: str, heading: str, model: type[BaseModel]) -> None:
    assert table_keys(page, heading) == keys_of(model)


def test_every_table_of_the_configuration_has_its_heading() -> None:
    text = (DOCS / "configuration.md").read_text("utf-8")
    assert {re.split(r"[.\]]", head)[0] for head in re.findall(r"^## \[(.+)", text, re.MULTILINE)} == keys_of(
        config.Config
    ) - {"path"}
    assert keys_of(config.LocalHost) <= keys_of(config.StoreHost)
    assert keys_of(config.JobOfficeQueue) <= keys_of(config.ListQueue)


def test_defaults_are_as_the_tables_say() -> None:
    text = (DOCS / "configuration.md").read_text("utf-8")
    section = text.split("## [stager]", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| `([^`]+)` \|", section, re.MULTILINE))
    for key, written in rows.items():
        assert tomllib.loads(f"x = {written}")["x"] == config.Stager.model_fields[key].default, key


def test_every_key_of_a_camera_is_on_its_page() -> None:
    text = (DOCS / "cameras.md").read_text("utf-8")
    models = [one for one in vars(camera_files).values() if isinstance(one, type) and issubclass(one, BaseModel)]
    tables = keys_of(CameraFile)
    assert {key for key in tables if f"`{key}`" not in text and f"[{key}" not in text} == set()
    parts_ = {key for model in models if model is not CameraFile for key in keys_of(model)} - {"amps"}
    assert {key for key in parts_ if f"`{key}`" not in text and f"chop.{key}" not in text} == set()


def test_every_variable_of_the_environment_is_documented() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "stager").rglob("*.py"))
    text = (DOCS / "configuration.md").read_text("utf-8")
    assert {name for name in re.findall(r"\bSTAGER_[A-Z_]+", sources) if f"`{name}`" not in text} == set()


# ------------------------------------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get, as the usual viewers make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    names = {command.name.split()[1] for command in COMMANDS}
    named = set(re.findall(r"(?:^|`|&& |\$ )stager ([a-z]+)\b", page.read_text("utf-8"), re.MULTILINE))
    assert named <= names


# ---------------------------------------------------------------------------------------- examples


class Example(NamedTuple):
    page: str
    kind: str
    text: str


def examples(language: str) -> list[Example]:
    found = []
    for page in PAGES:
        for _, kind, text in re.findall(
            rf"^( *)```{language} ?(\S*)\n(.*?)^\1```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
        ):
            found.append(Example(page.name, kind, textwrap.dedent(text)))
    return found


@pytest.mark.parametrize("example", examples("toml"), ids=lambda example: f"{example.page}-{example.kind}")
def test_every_example_is_read_without_a_problem(example: Example, tmp_path: Path) -> None:
    if example.kind == "config":
        parse_config(tomllib.loads(example.text), tmp_path / "stager.toml")
    elif example.kind == "camera":
        read_camera(example.text.encode(), "camera.toml")
    else:
        assert example.kind == "manifest", "say what the example is: ```toml manifest, config or camera"
        for listed in (one for one in examples("text") if one.kind):
            (tmp_path / listed.kind).write_text(listed.text)
        (tmp_path / "m.toml").write_text(example.text)
        read_manifest(tmp_path / "m.toml")


def test_there_are_examples_of_each_kind() -> None:
    kinds = [example.kind for example in examples("toml")]
    assert kinds.count("manifest") >= 6
    assert kinds.count("config") >= 3
    assert kinds.count("camera") >= 1


# --------------------------------------------------------------------------------------- far hosts

FAR_HOSTS = (DOCS / "far-hosts.md").read_text("utf-8")


def forced_commands() -> list[str]:
    """The commands in the page's lines for authorized_keys, as sshd understands them."""
    quoted = re.findall(r'^restrict,command="((?:[^"\\]|\\.)*)" ssh-ed25519 ', FAR_HOSTS, re.MULTILINE)
    return [command.replace('\\"', '"') for command in quoted]


def test_forced_commands_are_what_stager_runs_and_the_agent_as_it_is_installed() -> None:
    assert forced_commands() == [
        f'exec python3 -c "{BOOT}"',
        "exec python3 /usr/local/lib/stager/agent.py serve /data/root",
    ]


@pytest.mark.parametrize("command", forced_commands(), ids=["boot", "pinned"])
def test_forced_command_lets_the_agent_answer(command: str, tmp_path: Path) -> None:
    """sshd hands it to the user's shell; what Stager sends first is the agent's source and a nonce."""
    installed = command.replace("/usr/local/lib/stager/agent.py", agent.__file__).replace("/data/root", str(tmp_path))
    source, nonce = zlib.compress(Path(agent.__file__).read_bytes()), b"n" * agent.NONCE_BYTES
    said = subprocess.run(
        ["sh", "-c", installed],
        input=b"%08x" % len(source) + source + nonce,
        capture_output=True,
        timeout=LATE_S,
        check=True,
        cwd=tmp_path,
    )
    assert said.stdout.startswith(agent.GREETING + nonce + b"\n")
    assert (str(tmp_path).encode() in said.stdout) == (installed != command)


@pytest.mark.parametrize("sentence", [openssh.UNKNOWN_KEY, openssh.CHANGED_KEY, openssh.LOGIN_REFUSED])
def test_sentences_about_keys_are_on_the_page_as_they_are_shown(sentence: str) -> None:
    assert sentence in " ".join(FAR_HOSTS.split())
