"""The unit files as systemd itself reads them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.waiting import LATE_S

UNITS = Path(__file__).resolve().parent.parent.parent / "systemd"
THRESHOLD = "15"
"""Exposure times ten that the hardened unit must not exceed."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"SYSTEMD_LOG_COLOR": "0", "SYSTEMD_PAGER": ""}
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LATE_S,
        check=False,
        env=environ,
    )


@pytest.fixture
def analyze(program: Callable[[str], str], require: Callable[[str], NoReturn]) -> str:
    """systemd-analyze, one that knows `security --offline` (systemd 250)."""
    path = program("systemd-analyze")
    version = int(run(path, "--version").stdout.split()[1])
    return path if version >= 250 else require(f"systemd {version} cannot judge a unit offline")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit beside its drop-in, with a program that exists: verify minds that /opt/stager does not."""
    text = (UNITS / "stager.service").read_text()
    (tmp_path / "stager.service.d").mkdir()
    example = UNITS / "stager.service.d" / "roots.conf.example"
    (tmp_path / "stager.service.d" / "roots.conf").write_text(example.read_text())
    path = tmp_path / "stager.service"
    path.write_text(text.replace("/opt/stager/bin/stager", "/bin/true"))
    return path


def test_the_unit_and_its_drop_in_are_what_systemd_expects(analyze: str, unit: Path) -> None:
    ended = run(analyze, "verify", "--man=no", unit)
    # Other units of the machine are loaded too and may have faults of their own.
    assert [line for line in ended.stdout.splitlines() if "stager" in line or str(unit.parent) in line] == []


def test_verify_would_tell_of_a_misspelt_setting(analyze: str, unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in run(analyze, "verify", "--man=no", unit).stdout


def test_the_unit_is_as_closed_as_promised(analyze: str) -> None:
    ended = run(analyze, "security", "--offline=true", f"--threshold={THRESHOLD}", UNITS / "stager.service")
    assert ended.returncode == 0, ended.stdout


def test_the_drop_in_opens_nothing_else(analyze: str, unit: Path) -> None:
    ended = run(analyze, "security", "--offline=true", f"--threshold={THRESHOLD}", unit)
    assert ended.returncode == 0, ended.stdout


def test_an_open_unit_would_not_pass(analyze: str, unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "").replace("SystemCallFilter=", "#"))
    ended = run(analyze, "security", "--offline=true", f"--threshold={THRESHOLD}", unit)
    assert ended.returncode != 0


def test_every_option_of_the_drop_in_that_is_commented_out_is_known(analyze: str, unit: Path) -> None:
    path = unit.parent / "stager.service.d" / "roots.conf"
    lines = [line.removeprefix("#") if "=" in line else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(line for line in lines if not line.startswith(("# ", " "))))
    told = [line for line in run(analyze, "verify", "--man=no", unit).stdout.splitlines() if "roots.conf" in line]
    assert told == []


def make_user(program: Callable[[str], str], root: Path) -> None:
    (root / "etc").mkdir()
    ended = run(program("systemd-sysusers"), f"--root={root}", UNITS / "stager.sysusers")
    assert ended.returncode == 0, ended.stdout


def test_the_user_is_made_as_the_unit_needs_it(program: Callable[[str], str], tmp_path: Path) -> None:
    make_user(program, tmp_path)
    (line,) = (tmp_path / "etc" / "passwd").read_text().splitlines()
    assert line.startswith("stager:")
    assert line.endswith(":/var/lib/stager:/usr/sbin/nologin")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving folders to another user needs root")
def test_the_folders_are_made_for_that_user(program: Callable[[str], str], tmp_path: Path) -> None:
    make_user(program, tmp_path)
    ended = run(program("systemd-tmpfiles"), "--create", f"--root={tmp_path}", UNITS / "stager.tmpfiles")
    assert ended.returncode == 0, ended.stdout
    uid, gid = (int(n) for n in (tmp_path / "etc" / "passwd").read_text().split(":")[2:4])
    made = {name: (tmp_path / name).stat() for name in ("etc/stager", "var/lib/stager", "var/lib/stager/incoming")}
    assert {name: (oct(s.st_mode & 0o7777), s.st_uid, s.st_gid) for name, s in made.items()} == {
        "etc/stager": ("0o750", 0, gid),
        "var/lib/stager": ("0o750", uid, gid),
        "var/lib/stager/incoming": ("0o2770", uid, gid),
    }


RESTORE = UNITS / "stager-restore@.service"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The restore's unit with the daemon's drop-in, and a production that requires it; programs that exist."""
    text = RESTORE.read_text()
    (tmp_path / "stager.service.d").mkdir()
    example = UNITS / "stager.service.d" / "roots.conf.example"
    (tmp_path / "stager.service.d" / "roots.conf").write_text(example.read_text())
    (tmp_path / "stager-restore@.service.d").mkdir()
    (tmp_path / "stager-restore@.service.d" / "roots.conf").symlink_to("../stager.service.d/roots.conf")
    path = tmp_path / "stager-restore@.service"
    path.write_text(text.replace("/opt/stager/bin/stager", "/bin/true"))
    instance = "stager-restore@cfht-abe-restore.service"
    production = f"[Unit]\nRequires={instance}\nAfter={instance}\n[Service]\nExecStart=/bin/true\n"
    (tmp_path / "production.service").write_text(production)
    return path


def test_the_restore_and_what_requires_it_are_what_systemd_expects(analyze: str, gate: Path) -> None:
    ended = run(analyze, "verify", "--man=no", gate, gate.parent / "production.service")
    told = [line for line in ended.stdout.splitlines() if "stager" in line or str(gate.parent) in line]
    assert (told, ended.returncode) == ([], 0), ended.stdout


def test_the_drop_in_that_both_units_read_starts_nothing() -> None:
    example = (UNITS / "stager.service.d" / "roots.conf.example").read_text()
    assert not re.search(r"^#?Exec", example, re.MULTILINE)
    assert "/stager.service.d/roots.conf" in (UNITS.parent / "docs" / "restore.md").read_text()


def test_verify_would_tell_of_a_misspelt_setting_of_the_restore(analyze: str, gate: Path) -> None:
    gate.write_text(gate.read_text().replace("TimeoutStartSec=", "TimeoutStartsSec="))
    assert "TimeoutStartsSec" in run(analyze, "verify", "--man=no", gate).stdout


def test_the_restore_is_as_closed_as_the_daemon_with_its_drop_in_too(analyze: str, gate: Path) -> None:
    for path in (RESTORE, gate):
        ended = run(analyze, "security", "--offline=true", f"--threshold={THRESHOLD}", path)
        assert ended.returncode == 0, ended.stdout
    gate.write_text(gate.read_text().replace("ProtectSystem=strict", "").replace("SystemCallFilter=", "#"))
    assert run(analyze, "security", "--offline=true", f"--threshold={THRESHOLD}", gate).returncode != 0


def test_the_restore_is_waited_for_as_long_as_it_takes_and_made_anew_each_time() -> None:
    lines = RESTORE.read_text().splitlines()
    assert {"Type=oneshot", "RemainAfterExit=no", "TimeoutStartSec=infinity"} <= set(lines)
    (start,) = (line for line in lines if line.startswith("ExecStart="))
    assert start.endswith("/etc/stager/restore/%i.toml")  # %I would make slashes of the dashes in a name
    assert not any(line.startswith(("SuccessExitStatus", "Restart")) for line in lines)  # 1 and 3 are failures
