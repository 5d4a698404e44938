"""The servers that the tests of SSH start are real, are what they are asked to be, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sshd import Broken, Sshd
from tests.waiting import LATE_S, until

MakeSshd = Callable[..., Sshd]
OUR_KEY_IS_REFUSED = "Permission denied (publickey)"


def ssh(sshd: Sshd, command: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    told = ["ssh", "-F", sshd.config, *options, sshd.alias, command]
    return subprocess.run(told, capture_output=True, stdin=subprocess.DEVNULL, timeout=LATE_S, check=False)


def sftp(sshd: Sshd, *lines: str) -> subprocess.CompletedProcess[str]:
    told = ["sftp", "-F", sshd.config, "-b", "-", sshd.alias]
    return subprocess.run(told, input="\n".join(lines), capture_output=True, text=True, timeout=LATE_S, check=False)


def running(sshd: Sshd, command: str) -> subprocess.Popen[bytes]:
    """A command that is under way there: it has said `begun`."""
    told = ["ssh", "-F", sshd.config, sshd.alias, f"echo begun; {command}"]
    begun = subprocess.Popen(told, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert begun.stdout is not None
    assert begun.stdout.readline() == b"begun\n"
    return begun


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --------------------------------------------------------------------------------------- a plain one


def test_it_runs_a_command_with_a_home_of_its_own(sshd: Sshd) -> None:
    ended = ssh(sshd, 'echo "$HOME"; id -un; exit 7')
    assert (ended.returncode, ended.stdout.decode().split()) == (7, [str(sshd.home), sshd.user]), sshd.log()
    assert "Accepted publickey" in sshd.log()


def test_its_far_side_has_a_python(sshd: Sshd) -> None:
    assert ssh(sshd, "python3 -c 'print(40 + 2)'").stdout == b"42\n"


def test_it_speaks_sftp_too(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "raw.fits").write_bytes(b"pixels")
    ended = sftp(sshd, f"get {tmp_path}/raw.fits {tmp_path}/copied.fits")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "copied.fits").read_bytes() == b"pixels"


def test_its_fingerprint_is_what_ssh_keygen_says(sshd: Sshd) -> None:
    said = subprocess.run(["ssh-keygen", "-lf", sshd.known_hosts], capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == sshd.host_key_fingerprint


def test_a_login_has_all_that_a_client_needs_to_be_told(sshd: Sshd) -> None:
    login = sshd.login()
    told = ["ssh", "-F", "/dev/null", "-p", str(login.port), "-i", str(login.identity), "-o", "BatchMode=yes"]
    known = f"UserKnownHostsFile={login.known_hosts}"
    ended = subprocess.run([*told, "-o", known, f"{login.user}@{login.address}", "true"], check=False, timeout=LATE_S)
    assert ended.returncode == 0


def test_a_login_through_another_port_knows_the_host_key_there(sshd: Sshd) -> None:
    login = sshd.login(port=2222, connect_s=1.5)
    assert (login.port, login.connect_s) == (2222, 1.5)
    assert Path(str(login.known_hosts)).read_text().startswith("[127.0.0.1]:2222 ssh-ed25519 ")


def test_two_start_side_by_side(make_sshd: MakeSshd) -> None:
    one, other = make_sshd(), make_sshd()
    assert one.port != other.port
    assert one.host_key_fingerprint != other.host_key_fingerprint


# ------------------------------------------------------------------------------------------ variants


def test_sftp_only_runs_no_command(make_sshd: MakeSshd) -> None:
    sshd = make_sshd(sftp_only=True)
    ended = ssh(sshd, "echo ran")
    assert ended.returncode != 0
    assert b"ran" not in ended.stdout.splitlines()
    assert sftp(sshd, "pwd").returncode == 0


def test_sftp_read_only_gives_and_takes_nothing(make_sshd: MakeSshd, tmp_path: Path) -> None:
    sshd = make_sshd(sftp_read_only=True)
    (tmp_path / "raw.fits").write_bytes(b"pixels")
    assert sftp(sshd, f"get {tmp_path}/raw.fits {tmp_path}/copied.fits").returncode == 0
    refused = sftp(sshd, f"put {tmp_path}/raw.fits {tmp_path}/put.fits")
    assert refused.returncode != 0
    assert not (tmp_path / "put.fits").exists()


def test_max_startups_drops_what_is_too_many(make_sshd: MakeSshd) -> None:
    sshd = make_sshd(max_startups="2:100:2")
    told = ["ssh", "-F", sshd.config, sshd.alias, "true"]
    many = [subprocess.Popen(told, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) for _ in range(12)]
    said = [one.communicate(timeout=LATE_S)[1] for one in many]
    assert [one.returncode for one in many].count(255) > 0, said
    until(lambda: "MaxStartups" in sshd.log())
    assert ssh(sshd, "true").returncode == 0


def test_another_host_key_is_refused_until_it_is_trusted(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    before, port = sshd.host_key_fingerprint, sshd.port
    sshd.change_host_key()
    assert (sshd.host_key_fingerprint != before, sshd.port) == (True, port)
    refused = ssh(sshd, "true")
    assert refused.returncode == 255
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    sshd.trust_host_key()
    assert ssh(sshd, "true").returncode == 0


def test_a_forgotten_client_key_is_refused(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    sshd.forget_client_key()
    assert OUR_KEY_IS_REFUSED in ssh(sshd, "true").stderr.decode()
    sshd.remember_client_key()
    assert ssh(sshd, "true").returncode == 0


def test_a_forced_command_runs_in_place_of_ours(make_sshd: MakeSshd) -> None:
    sshd = make_sshd(forced_command='echo "forced, not $SSH_ORIGINAL_COMMAND"')
    assert ssh(sshd, "ours").stdout == b"forced, not ours\n"


def test_a_far_side_without_python_has_a_shell(make_sshd: MakeSshd) -> None:
    sshd = make_sshd(no_python=True)
    assert ssh(sshd, "python3 -c ''").returncode == 127
    assert ssh(sshd, "printf shell | cat").stdout == b"shell"


def test_another_python_is_the_far_sides(make_sshd: MakeSshd, tmp_path: Path) -> None:
    other = tmp_path / "other-python"
    other.write_text(f'#!/bin/sh\nOTHER=other exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    sshd = make_sshd(python=str(other))
    assert ssh(sshd, "python3 -c 'import os; print(os.environ[\"OTHER\"])'").stdout == b"other\n"


def test_noise_comes_before_the_command_and_takes_nothing_from_it(make_sshd: MakeSshd) -> None:
    noise = b"Welcome!\n\x00\xff\x1b[2J"
    sshd = make_sshd(noise=noise, garbage=100_000)
    ended = ssh(sshd, "echo it is; exit 3")
    assert ended.returncode == 3
    assert ended.stdout.startswith(noise)
    assert ended.stdout.endswith(b"it is\n")
    assert len(ended.stdout) == len(noise) + 100_000 + len(b"it is\n")


def test_noise_spoils_sftp_as_start_up_files_do(make_sshd: MakeSshd) -> None:
    assert sftp(make_sshd(noise=b"Welcome to the cluster!\n"), "pwd").returncode != 0


def test_a_hundred_megabytes_of_complaint_come_on_stderr(make_sshd: MakeSshd) -> None:
    sshd = make_sshd(err_bytes=100_000_000)
    ended = ssh(sshd, "echo done")
    assert (ended.stdout, len(ended.stderr)) == (b"done\n", 100_000_000)


def test_slow_start_up_files_take_their_time(make_sshd: MakeSshd) -> None:
    sshd = make_sshd(slow_s=0.4)
    begin = time.monotonic()
    assert ssh(sshd, "true").returncode == 0
    assert time.monotonic() - begin > 0.4


def test_a_banner_is_shown(make_sshd: MakeSshd) -> None:
    assert b"No admittance" in ssh(make_sshd(banner="No admittance\n"), "true").stderr


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_another_type_of_host_key(make_sshd: MakeSshd, kind: str) -> None:
    sshd = make_sshd(host_key=kind)
    assert kind in Path(sshd.known_hosts).read_text()
    assert ssh(sshd, "true").returncode == 0


def test_lines_of_configuration_win_over_ours(make_sshd: MakeSshd) -> None:
    sshd = make_sshd(lines=["PubkeyAuthentication no", "AuthenticationMethods any", "PasswordAuthentication yes"])
    assert ssh(sshd, "true").returncode == 255


def test_a_variant_that_there_is_not_is_an_error(make_sshd: MakeSshd) -> None:
    with pytest.raises(TypeError, match="colour"):
        make_sshd(colour="red")


def test_an_sshd_that_does_not_start_says_why(make_sshd: MakeSshd) -> None:
    with pytest.raises(Broken, match=r"does not listen.*NoSuchOption"):
        make_sshd(lines=["NoSuchOption yes"])


# ----------------------------------------------------------------------------------------- processes


def test_sessions_and_their_commands_can_be_killed(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    client = running(sshd, "sleep 600")
    assert (len(sshd.sessions()), len(sshd.commands()) >= 1) == (1, True)
    commands = sshd.commands()
    assert sshd.kill_sessions() == 1
    assert client.communicate(timeout=LATE_S)[0] == b""
    assert client.returncode == 255
    assert (sshd.sessions(), [pid for pid in commands if alive(pid)]) == ([], [])
    assert ssh(sshd, "true").returncode == 0


def test_the_far_program_alone_can_be_killed(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    client = running(sshd, "exec sleep 600")
    assert sshd.kill_commands() == 1
    client.communicate(timeout=LATE_S)
    assert client.returncode == 255
    assert ssh(sshd, "true").returncode == 0


def test_a_restart_ends_the_sessions_and_keeps_the_port(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    port, pid = sshd.port, sshd.pid
    client = running(sshd, "sleep 600")
    sshd.restart()
    client.communicate(timeout=LATE_S)
    assert (client.returncode, sshd.port, sshd.pid != pid) == (255, port, True)
    assert ssh(sshd, "true").returncode == 0


def test_stopped_it_leaves_no_process(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    client = running(sshd, "setsid sh -c 'echo $$; exec sleep 600' < /dev/null & sleep 600")
    assert client.stdout is not None
    stray = int(client.stdout.readline())
    pids = [sshd.pid, stray, *sshd.sessions(), *sshd.commands()]
    assert all(alive(pid) for pid in pids)
    sshd.stop()
    sshd.stop()
    client.communicate(timeout=LATE_S)
    assert [pid for pid in pids if alive(pid)] == []


def test_a_test_run_that_is_killed_leaves_no_server(tmp_path: Path, sshd_program: str) -> None:
    source = (
        "import pathlib, sys, time; from tests.sshd import Sshd\n"
        "print(Sshd.start(pathlib.Path(sys.argv[1]), program=sys.argv[2]).pid, flush=True); time.sleep(600)"
    )
    told = [sys.executable, "-c", source, str(tmp_path / "sshd"), sshd_program]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(told, cwd=root, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}) as run:
        assert run.stdout is not None
        server = int(run.stdout.readline())
        assert alive(server)
        run.send_signal(signal.SIGKILL)
    until(lambda: not alive(server))
    assert not alive(server)


def test_the_sshd_of_the_tests_is_found_where_only_root_looks(sshd: Sshd) -> None:
    assert Path(sshd.program).is_absolute()
    assert shutil.which("ssh") is not None
