"""All of it by its commands, on three file systems that are mounted for it: nothing here is pretended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
STORY = """
import os, sys
from pathlib import Path
import stager.daemon, stager.doctor, stager.evicting.purging, stager.logs, stager.submitting  # once for all commands
from stager import cli

def stager(*words, code=0):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sys.argv = ["stager", *words]
        try:
            cli.main()
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == code, (words, ended)

def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))

def manifest(name, kind, destination, more=""):
    Path(name + ".toml").write_text(
        f'name = "{name}"\\nkind = "{kind}"\\ndataset = "{name}"\\nsource = "lsst10:raw/**"\\n'
        f'destination = "{destination}"\\n{more}')

hosts = {"lsst10": "local", "abe": "local", "mss": "store"}
Path("stager.toml").write_text('[stager]\\ndatabase = "sqlite:///stager.db"\\n' + "".join(
    f'[hosts.{name}]\\nkind = "{kind}"\\nroot = "{os.getcwd()}/{name}"\\n'
    + ('driver = "directory"\\n' if kind == "store" else "")
    for name, kind in hosts.items()))
for number in range(4):
    file = Path(f"lsst10/raw/{number}")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(os.urandom(100_000))
    Path("data").joinpath(str(number)).write_bytes(file.read_bytes())
manifest("first", "copy", "lsst10:new")
manifest("second", "copy", "abe:new")
manifest("third", "archive", "mss:new", "[bundle]\\nage_s = 0.0\\n")
stager("run", "first.toml", "second.toml", "third.toml")
stager("evict", "lsst10:new", "--to-free", "150k", "--yes")
assert len(names("lsst10/new")) == 2
stager("evict", "abe:new", "--to-free", "400k", "--yes", code=1)  # of two of them lsst10 has a second other still
print("abe", names("abe/new"))
assert len(names("abe/new")) == 2
stager("doctor", "--deep")
stager("retry", "first")
stager("daemon", "--once")
assert len(names("lsst10/new")) == 4
stager("evict", "lsst10:raw", "--to-free", "1", "--yes", code=1)
stager("evict", "lsst10:new", "--to-free", "1G", "--copies", "1", "--grace", "0", "--yes", code=1)
assert names("lsst10/new") == []
stager("evict", "abe:", "--put-back")
assert len(names("abe/new")) == 4
for number in range(4):
    assert Path(f"abe/new/{number}").read_bytes() == Path(f"data/{number}").read_bytes()
stager("doctor", "--deep")
print("told to its end")
"""


@pytest.mark.slow
def test_the_story_of_copies_on_three_file_systems(tmp_path: Path, require: Callable[[str], NoReturn]) -> None:
    alone = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*alone, "mount", "-t", "tmpfs", "none", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        require("nothing can be mounted here, in a namespace of its own")
    for folder in ("lsst10", "abe", "mss", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "story.py").write_text(STORY)
    mounts = "mount -t tmpfs none abe && mount -t tmpfs none mss && exec "
    said = subprocess.run(
        [*alone, "sh", "-c", f'{mounts} "$0" story.py', sys.executable],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.endswith("told to its end\n")
