"""Commands of Stager as processes of their own that need not wait for their imports.

A parent imports everything once and forks a child for each command; the child runs `stager.cli.main` as
`python -m stager` does, to the end of the process. That makes a hundred kills a matter of a minute. The tests
that are not counted in dozens start the real `python -m stager`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
PR_SET_PTRACER = 0x59616D61  # prctl(2): who may trace this process where only a parent may
ANYBODY = ctypes.c_ulong(-1)


class Preloaded:
    """The parent, from the side of the tests."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OPENBLAS_NUM_THREADS": "1"}
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._one_at_a_time = threading.Lock()
        self._codes: dict[int, int] = {}

    def start(
        self, arguments: Sequence[str], folder: Path, said: Path, environment: Mapping[str, str], *, waits: bool
    ) -> int:
        """Begin a command, whose output goes to `said`.out and .err; one that `waits` needs SIGUSR1 to go on."""
        request = {"arguments": [*arguments], "folder": str(folder), "said": str(said), "waits": waits}
        pid = int(self._ask({**request, "environment": dict(environment)}))
        self._codes.pop(pid, None)  # of another that had this number before: a long run comes round to it again
        return pid

    def wait(self, pid: int, timeout: float) -> int | None:
        """The exit code (negative: the signal that killed it); None when it still runs after the timeout."""
        end = time.monotonic() + timeout
        while pid not in self._codes:
            code = self._ask({"wait": pid})
            if code is not None:
                self._codes[pid] = int(code)
            elif time.monotonic() > end:
                return None
            else:
                time.sleep(0.005)
        return self._codes[pid]

    def close(self) -> None:
        self._parent.communicate(timeout=60)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._parent.stdin
        assert self._parent.stdout
        with self._one_at_a_time:
            self._parent.stdin.write(json.dumps(request) + "\n")
            self._parent.stdin.flush()
            return json.loads(self._parent.stdout.readline())


def serve() -> bool:
    """Answer requests until the input ends. True in a child, which then is the command."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                become(request)
                return True
        print(json.dumps(answer), flush=True)
    return False


def become(request: dict[str, Any]) -> None:
    """Make this child what the request asks for."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)
    for number, name in enumerate((os.devnull, request["said"] + ".out", request["said"] + ".err")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = os.open(name, flags, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["waits"]:
        signal.sigwait({signal.SIGUSR1})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    sys.argv = ["stager", *request["arguments"]]


if __name__ == "__main__":
    # Everything that a command may import, and nothing that begins a thread: a fork would lose it.
    import psycopg  # noqa: F401  as above

    import stager.cli
    import stager.daemon
    import stager.doctor
    import stager.logs

    if serve():
        stager.cli.main()
