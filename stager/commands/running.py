"""Commands that work: daemon, run, demo."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stager.commands.common import ConfigOption, Exit, complain, console, opened, opened_hosts, say
from stager.commands.looking import draw_status
from stager.commands.submitting import Files, remarks, submit_files


def daemon(
    once: Annotated[
        bool, typer.Option("--once", help="Work until nothing is left that can be done now, then end.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """The service: submit what is spooled, carry out what is due, put triggers on their queues.

    Exit status: 0 when told to stop; with --once 0 all done, 1 something is held or refused or a host cannot be
    used, 3 not complete yet; 2 for a bad configuration, or when another daemon has the database.
    """
    from stager.config import read_config
    from stager.daemon import Daemon, standing
    from stager.database import DaemonLock
    from stager.logs import log_to_stderr

    log_to_stderr()
    with opened(config) as (read, database):
        lock = DaemonLock(database)
        if not lock.acquire():
            complain(
                f"another daemon (process {lock.holder()}) works on {database.url.render_as_string()}; one is enough"
            )
            raise typer.Exit(Exit.USAGE)
        worker = Daemon(database, read, read_again=lambda: read_config(str(read.path)))
        worker.on_signals()
        worker.run(once=once)
        code = standing(database) if once else Exit.DONE
        _leave_if_hung(worker)
        lock.release()
    raise typer.Exit(code)


def _leave_if_hung(worker: Any) -> None:
    """End the process where a thread of it hangs in the kernel: an ordinary exit would wait for it for ever."""
    if worker.hung:
        sys.stderr.flush()
        os._exit(Exit.FAILED)


def run(files: Files, config: ConfigOption = None) -> None:
    """Submit manifests and carry them out here, with a progress bar. Beside a daemon, watch it do so.

    Exit status: 0 all done; 1 some items failed or are held; 2 bad manifest; 3 not complete yet.
    """
    with opened(config) as (read, database), opened_hosts(read, database) as hosts:
        results, wrong = submit_files(files, read, database, hosts)
        for problem in wrong:
            complain(problem)
        if not results:
            raise typer.Exit(Exit.USAGE)
        for one in results:
            if one.notes:
                complain("\n".join([f"{one.name}:", *remarks(one)]))
        code = carry_out(database, read, hosts, [one.name for one in results])
    raise typer.Exit(max(code, Exit.FAILED) if wrong and code != Exit.INCOMPLETE else code)


def carry_out(database: Any, config: Any, hosts: Any, names: Sequence[str]) -> int:
    """Carry out the newest revisions of these manifests, or watch the daemon do it; the exit code of how they stand."""
    from stager.daemon import Daemon, standing
    from stager.database import DaemonLock
    from stager.logs import log_to_stderr
    from stager.revising import latest

    lock = DaemonLock(database)
    if lock.acquire():
        log_to_stderr(least=logging.WARNING)  # the bar and the table tell the rest
        ids = [found.id for name in names if (found := latest(database, name))]
        worker = Daemon(database, config, only=ids, spool=False, hosts=hosts)
        worker.on_signals()
        thread = threading.Thread(target=worker.run, kwargs={"once": True}, name="daemon")
        thread.start()
        _draw(database, names, lambda: worker.progress.bytes, thread.is_alive)
        thread.join()
        _leave_if_hung(worker)
        lock.release()
    else:
        say(f"the daemon (process {lock.holder()}) does it; Ctrl-C ends the watching only")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            _draw(database, names, None, lambda: _moves(database, names))
        except KeyboardInterrupt:
            complain("stopped watching; the daemon goes on")
    draw_status(_chosen(database, names))
    return standing(database, names)


def _snapshot(database: Any) -> Any:
    from stager.status import snapshot

    connection = database.engine.raw_connection()
    try:
        return snapshot(connection.driver_connection)
    finally:
        connection.close()


def _chosen(database: Any, names: Sequence[str]) -> Any:
    from dataclasses import replace

    found = _snapshot(database)
    return replace(found, datasets=[row for row in found.datasets if row.manifest in names], refused=[])


def _moves(database: Any, names: Sequence[str]) -> bool:
    """Whether something is still running or waiting for its turn."""
    rows = _chosen(database, names).datasets
    return any(
        row.files["running"] or row.files["waiting"] for row in rows if row.state not in ("cancelled", "paused", "held")
    )


def _draw(database: Any, names: Sequence[str], moved: Any, alive: Any) -> None:
    """A bar of files proven, and bytes with rate; on a terminal only, for a log needs no bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from stager.drawing import size

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    ]
    out = console()
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as bar:
        task = bar.add_task(", ".join(names)[:40], total=None, said="")
        begun, before = time.monotonic(), 0
        while alive():
            rows = _chosen(database, names).datasets
            done, total = sum(row.files["done"] for row in rows), sum(row.files["total"] for row in rows)
            now = moved() if moved else sum(row.bytes["done"] for row in rows)
            rate = (now - before) / max(0.1, time.monotonic() - begun)
            bar.update(task, completed=done, total=total, said=f"{size(now)}, {size(rate)}/s")
            time.sleep(0.2)


def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A new folder for it; else a temporary one.")
    ] = None,
) -> None:
    """A guided first run: four hosts, two cameras, the real daemon; chop, copy, archive, restore, trigger.

    Exit status: 0 only when everything it shows was verified.
    """
    from stager.demo import run_demo

    raise typer.Exit(run_demo(folder))
