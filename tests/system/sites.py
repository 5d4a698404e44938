"""A place with hosts, a configuration and a database, where real commands run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.system.preloaded import CHECKOUT, Preloaded
from tests.waiting import LATE_S, until

if TYPE_CHECKING:
    from tests.proxies import Proxy
    from tests.sshd import Sshd

HOSTS = {"lsst10": "local", "abe": "local", "mss": "store"}


@dataclass(frozen=True)
class Ended:
    """A command that ran to its end."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Running:
    """A command under way; its output is in two files."""

    pid: int
    said: Path
    waiting: Callable[[float], int | None]

    @property
    def err(self) -> str:
        file = self.said.with_name(self.said.name + ".err")
        return file.read_text() if file.exists() else ""  # not yet, in a child that was just forked

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def end(self, timeout: float = LATE_S) -> Ended:
        """Wait for its end, and say how it ended."""
        code = self.waiting(timeout)
        if code is None:
            self.kill()
            raise AssertionError(f"the command did not end in {timeout} s\n{self.err}")
        return Ended(code, self.said.with_name(self.said.name + ".out").read_text(), self.err)


@dataclass
class Site:
    """Hosts below `folder`/hosts, all of them with roots of their own; `outside` must never change."""

    folder: Path
    preloaded: Preloaded
    database: str = "sqlite:///stager.db"
    settings: dict[str, Any] = field(default_factory=dict)
    more: str = ""  # of stager.toml
    hosts: dict[str, str] = field(default_factory=lambda: dict(HOSTS))
    logins: dict[str, dict[str, Any]] = field(default_factory=dict)  # keys of the hosts that are reached over SSH
    sources: dict[Path, tuple[str, int]] = field(default_factory=dict)  # digest and mtime of what must stay
    running: list[Running] = field(default_factory=list)
    views: dict[str, Path] = field(default_factory=dict)  # while it is checked: roots, with what bundles hold

    def __post_init__(self) -> None:
        for name in self.hosts:
            self.root(name).mkdir(parents=True)
        outside = self.folder / "outside"
        outside.mkdir()
        (outside / "witness").write_bytes(b"nobody may touch this\n")
        self.sources[outside / "witness"] = facts(outside / "witness")
        self.configure()

    def root(self, host: str) -> Path:
        return self.folder / "hosts" / host

    def configure(self, **settings: Any) -> None:
        """Write stager.toml; settings are keys of [stager], kept for the next time."""
        self.settings |= settings
        stager = {"database": self.database, "walk_s": 2.0, **self.settings}
        text = "[stager]\n" + keys(stager)
        for name, kind in self.hosts.items():
            login = self.logins.get(name, {})
            driver = {"driver": "ssh" if login else "directory"} if kind == "store" else {}
            said = {
                "kind": "ssh" if login and kind == "local" else kind,
                **driver,
                "root": str(self.root(name)),
                **login,
            }
            text += f"[hosts.{name}]\n{keys(said)}"
        (self.folder / "stager.toml").write_text(text + '[queues.pipeline]\nkind = "table"\n' + self.more)

    def over_ssh(self, server: Sshd, *names: str, proxy: Proxy | None = None, **more: Any) -> None:
        """Have these hosts reached through the server from now on, at the same roots; through a proxy to it, if one
        is given. `more`: keys of their tables."""
        login = server.login(port=proxy.port) if proxy else server.login()
        reach = {key: getattr(login, key) for key in ("address", "user", "port", "identity", "known_hosts")}
        for name in names:
            self.logins[name] = reach | more
        self.configure()

    def write(self, host: str, path: str, data: bytes) -> Path:
        """A file at a host, one of those that must still be there, unchanged, at the end."""
        file = self.root(host) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self.remember(file)
        return file

    def remember(self, *files: Path) -> None:
        """That these files must stay as they are now."""
        self.sources |= {file: facts(file) for file in files}

    def manifest(self, name: str, folder: str = "", **said: Any) -> Path:
        """Write a manifest beside stager.toml, or in a folder below it."""
        path = self.folder / folder / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(manifest_text(name, **said))
        return path

    def run(self, *arguments: str, timeout: float = LATE_S, **environment: str) -> Ended:
        """A command from begin to end, in a process forked from one that has its imports."""
        return self.start(*arguments, **environment).end(timeout)

    def start(self, *arguments: str, waits: bool = False, **environment: str) -> Running:
        said = self._said()
        for ending in (".out", ".err"):  # there even when the command is killed before it opens them
            said.with_name(said.name + ending).touch()
        pid = self.preloaded.start(arguments, self.folder, said, environment, waits=waits)
        self.running.append(Running(pid, said, lambda timeout: self.preloaded.wait(pid, timeout)))
        return self.running[-1]

    def start_real(self, *arguments: str, under: tuple[str, ...] = (), **environment: str) -> Running:
        """The same as `python -m stager`, from nothing."""
        said = self._said()
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
        with open(f"{said}.out", "wb") as out, open(f"{said}.err", "wb") as err:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", "stager", *arguments],
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

        def waiting(timeout: float) -> int | None:
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                return None

        self.running.append(Running(process.pid, said, waiting))
        return self.running[-1]

    def _said(self) -> Path:
        folder = self.folder.with_name(self.folder.name + ".said")  # outside of what is saved and restored
        folder.mkdir(exist_ok=True)
        return folder / str(len(self.running))

    def save(self) -> None:
        """Keep everything as it is, for `restore`."""
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self.folder, self._saved, symlinks=True)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._saved, self.folder, symlinks=True)

    @property
    def _saved(self) -> Path:
        return self.folder.with_name(self.folder.name + ".saved")

    def status(self, name: str | None = None) -> Any:
        """`stager status --json`, or its row of one manifest (None while there is none)."""
        ended = self.run("status", "--json")
        assert ended.code == 0, ended.err
        found = ended.json()
        if name is None:
            return found
        return next((row for row in found["datasets"] if row["manifest"] == name), None)

    def show(self, name: str) -> Any:
        """`stager show --attempts --json` of all of a manifest."""
        return self.run("show", name, "--attempts", "--json", "--most", "100000").json()

    def until(self, holds: Callable[[], Any], timeout: float = LATE_S) -> Any:
        """What `holds` gives once it is true; fails, with what the commands said, when it never is."""

        def stands() -> str:
            said = "\n".join(filter(None, (one.err for one in self.running)))
            return f"{said}\n{self.status()}"

        return until(holds, stands, timeout, pause_s=0.05)

    def close(self) -> None:
        """End what still runs."""
        for one in self.running:
            if one.waiting(0) is None:
                one.kill()
                one.waiting(10)


def manifest_text(name: str, **said: Any) -> str:
    """A manifest; tables come last, as TOML wants them."""
    plain = {key: value for key, value in said.items() if not isinstance(value, dict)}
    text = keys({"name": name, "kind": "copy", "dataset": name, **plain})
    for key, value in said.items():
        if isinstance(value, dict):
            text += f"[{key}]\n{keys(value)}"
    return text


def keys(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def facts(file: Path) -> tuple[str, int]:
    """What must not change of a file: its digest and its time."""
    return sha256(file), file.stat().st_mtime_ns


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
