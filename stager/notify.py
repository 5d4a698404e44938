"""Tell systemd how the daemon stands: the sd_notify(3) protocol, one datagram a message.

Without NOTIFY_SOCKET in the environment (run by hand, or by another supervisor) nothing is sent. No
function here raises for a supervisor that does not listen: each answers whether the message was handed
over, and a daemon whose supervisor is gone goes on with its work.
"""

from __future__ import annotations

import os
import socket
import time

STATUS_LIMIT = 1000
"""Characters of a status line that are sent; systemd shows one line, and a datagram has an end."""


def ready(line: str = "") -> bool:
    """The daemon works, now for the first time or again after `reloading`; `line` is its first status."""
    return _send("READY=1", *_status(line))


def status(line: str) -> bool:
    """Show `line` in `systemctl status`: one line, control characters blanked, cut at STATUS_LIMIT."""
    return _send(*_status(line))


def reloading() -> bool:
    """The configuration is being read again; `ready` must follow, whether it could be used or not."""
    return _send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(line: str = "") -> bool:
    """The daemon drains: it claims nothing more, finishes or releases what it holds, and ends."""
    return _send("STOPPING=1", *_status(line))


def watchdog() -> bool:
    """The daemon made progress. To be called every `watchdog_interval()` seconds, and only then."""
    return _send("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Seconds between two calls of `watchdog`: half of what the unit allows (sd_watchdog_enabled(3)).

    None where no watchdog was asked for, or one was for another process.
    """
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) == 0:
        return None
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


def _status(line: str) -> tuple[str, ...]:
    """A line break would begin another assignment, systemd drops what is not UTF-8: both become blanks."""
    shown = "".join(c if c.isprintable() else " " for c in line[:STATUS_LIMIT]).strip()
    return (f"STATUS={shown}",) if shown else ()


def _send(*assignments: str) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not assignments or not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # Linux's abstract namespace: no file, a leading NUL
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(1)  # a full queue at the other end must not stop the scheduler
        try:
            channel.sendto("\n".join(assignments).encode(), address)
        except OSError:
            return False
    return True
