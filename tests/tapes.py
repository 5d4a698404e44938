"""The simulator of a tape store, answered for by this process: hundreds of commands in the time of a few.

What the driver runs is a program all the same, a few lines of bash that hand its words over and print what comes back.
Tests of what becomes of a command that is killed run the simulator itself.
"""

from __future__ import annotations

import io
import os
import socketserver
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stager.demo import tape

CLIENT = r"""
exec 3<>"/dev/tcp/127.0.0.1/$0" || exit 75
printf '%s\0' "$@" "" >&3
IFS= read -r status <&3
while IFS= read -r line <&3; do
  case $line in 1*) printf '%s\n' "${line:1}" ;; *) printf '%s\n' "${line:1}" >&2 ;; esac
done
exit "$status"
"""


class Answering(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        words: list[str] = []
        data = b""
        while not data.endswith(b"\0\0"):
            more = self.request.recv(1 << 16)
            if not more:
                return
            data += more
        words = [os.fsdecode(word) for word in data[:-2].split(b"\0")]
        out, err = io.StringIO(), io.StringIO()
        try:
            status = tape.main(words, out, err)
        except Exception as error:  # noqa: BLE001  as the program would end
            status = 1
            err.write(f"{type(error).__name__}: {error}\n")
        lines = [f"1{line}" for line in out.getvalue().split("\n")[:-1]]
        lines += [f"2{line}" for line in err.getvalue().split("\n")[:-1]]
        self.wfile.write(os.fsencode("\n".join([str(status), *lines, ""])))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


class Tapes:
    """Simulators by their folders, for as long as a `with`."""

    def __init__(self) -> None:
        self.server = Server(("127.0.0.1", 0), Answering)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def commands(self, state: Path) -> dict[str, Any]:
        """The table of commands that drives the simulator in a folder: see `tape.commands`."""
        program = tape.commands(state)["put"]
        program = program[: program.index("put")]
        client = ["bash", "-c", CLIENT, str(self.server.server_address[1]), "--state", str(state)]
        return {
            key: [*client, *value[len(program) :]] if isinstance(value, list) and value[:1] == program[:1] else value
            for key, value in tape.commands(state).items()
        }
