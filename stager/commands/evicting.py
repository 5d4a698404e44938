"""Making room: evict, and what becomes of quarantine."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from stager.commands.common import (
    LONGEST_S,
    ConfigOption,
    Exit,
    JsonOption,
    a_number,
    complain,
    console,
    opened,
    opened_hosts,
    print_json,
    say,
)
from stager.counts import counted

if TYPE_CHECKING:
    from stager.config import Config
    from stager.database import Database
    from stager.evicting.evicting import Report, Request
    from stager.evicting.purging import Emptied


def evict(
    what: Annotated[
        str | None,
        typer.Argument(metavar="LOCATION|DATASET", help="Whose copies may go: host:path, a pattern, or a dataset."),
    ] = None,
    need: Annotated[
        str | None,
        typer.Option("--need", metavar="BYTES", help="So that this much is free on the host: 500G, 1.5T, 1GiB."),
    ] = None,
    to_free: Annotated[
        str | None, typer.Option("--to-free", metavar="BYTES", help="So that this much more is free there.")
    ] = None,
    copies: Annotated[
        int | None,
        typer.Option("--copies", min=1, help="Others of a copy that must be proven, one at a mass store; else 2."),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="At which host, of a dataset that is at several.")
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace",
            min=0,
            max=LONGEST_S,
            callback=a_number,
            metavar="SECONDS",
            help="How long it lies in quarantine, 30 days at the most; 0 removes it now.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Instead: remove what was in quarantine for its time, of a host or of all.")
    ] = False,
    put_back: Annotated[
        bool, typer.Option("--put-back", help="Instead: return what is in quarantine of a location to its place.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make room at a host: move copies into quarantine, as many as are needed and no more, later to be removed.

    Only those of which enough independent others are read again and proven at that moment: two, one of them at a mass
    store. Never what a manifest pins, nor what an item that is not done needs. `stager retry` brings them back. Exit
    status: 0 when enough was evicted, or all was removed or put back; 1 when not, with why; 2 for bad usage.
    """
    from stager.logs import log_to_stderr

    log_to_stderr(least=logging.ERROR)  # what the log would say of each file is told below
    given = {"--need": need, "--to-free": to_free, "--purge": purge or None, "--put-back": put_back or None}
    modes = [name for name, value in given.items() if value is not None]
    if len(modes) != 1:
        _misused("say one of --need BYTES, --to-free BYTES, --purge and --put-back")
    if purge or put_back:
        of_evictions = {"--copies": copies, "--grace": grace, "--dry-run": dry_run or None, "--yes": yes or None}
        if wrong := [name for name, value in of_evictions.items() if value is not None]:
            _misused(f"{wrong[0]} goes with --need and --to-free, not with {modes[0]}")
        _purge(what, host, as_json, config) if purge else _put_back(what, host, as_json, config)
    if what is None:
        _misused(f"{modes[0]} needs a location, such as HOST:PATH, or a dataset")
    _evict(what, host, need, to_free, copies, grace, as_json, config, dry_run=dry_run, yes=yes)


def _evict(
    what: str,
    host: str | None,
    need: str | None,
    to_free: str | None,
    copies: int | None,
    grace: float | None,
    as_json: bool,
    config: str | None,
    *,
    dry_run: bool,
    yes: bool,
) -> NoReturn:
    from stager.evicting import candidates, evicting, purging
    from stager.evicting.sizes import parse_size

    needed = parse_size(need if need is not None else to_free or "")
    with opened(config) as (read, database), opened_hosts(read, database, marks=not dry_run) as hosts:
        named = candidates.name(database, read, what, host)
        grace_s = read.hosts[named.host].grace_s if grace is None else grace
        request = evicting.Request(named, needed, need is None, copies or evicting.LEAST, grace_s)
        if not dry_run and not yes:
            _ask(read, database, request)
        report = evicting.evict(database, hosts, request, dry_run=dry_run)
        at_once = bool(report.evicted) and grace_s == 0 and not dry_run
        emptied = purging.purge(database, hosts, [named.host]) if at_once else None
    if as_json:
        print_json(report.as_dict() | ({"purged": emptied.as_dict()} if emptied else {}))
    else:
        _tell(report)
    sound = emptied is None or _tell_quarantine(emptied, quiet=as_json)
    raise typer.Exit(Exit.DONE if report.enough and sound else Exit.FAILED)


def _ask(read: Config, database: Database, request: Request) -> None:
    """Have a person agree; without one nothing is evicted."""
    from stager.drawing import size
    from stager.evicting import evicting

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        _misused("nobody is here to be asked: give --yes, or --dry-run to see what would go")
    with opened_hosts(read, database, marks=False) as hosts:
        plan = evicting.evict(database, hosts, request, dry_run=True)
    if not plan.evicted:
        return
    files = f"{counted(len(plan.evicted), 'file')} ({size(plan.bytes)})"
    if not typer.confirm(f"evict {files} from {plan.host}, each once its others are proven?"):
        complain("nothing was evicted")
        raise typer.Exit(Exit.FAILED)


def _tell(report: Report) -> None:
    from stager import drawing
    from stager.evicting import telling

    for line in telling.lines(report):
        say(line)
    if rows := telling.rows(report):
        console().print(drawing.table(telling.COLUMNS, rows))
    if sentence := telling.shortage(report):
        complain(sentence)


def _tell_quarantine(emptied: Emptied, *, quiet: bool = False, put_back: bool = False) -> bool:
    """Tell what left quarantine and what did not; whether all did that was to."""
    from stager.evicting import telling

    for line in () if quiet else telling.of_quarantine(emptied, put_back=put_back):
        say(line)
    for line in telling.trouble_of_quarantine(emptied):
        complain(line)
    return not (emptied.waiting or emptied.put_back)


def _purge(what: str | None, host: str | None, as_json: bool, config: str | None) -> NoReturn:
    from stager.evicting import purging

    names = sorted({name.removesuffix(":") for name in (what, host) if name})
    with opened(config) as (read, database), opened_hosts(read, database) as hosts:
        if unknown := [name for name in names if name not in read.hosts]:
            _misused(f"there is no host {unknown[0]}: --purge is of a host, or without one of all")
        emptied = purging.purge(database, hosts, names or None)
    _end(emptied, as_json)


def _put_back(what: str | None, host: str | None, as_json: bool, config: str | None) -> NoReturn:
    from stager.evicting import candidates, purging

    if what is None or ":" not in what or host is not None:
        _misused("--put-back needs a location: HOST: for all of a host, HOST:PATH for a part of it")
    with opened(config) as (read, database), opened_hosts(read, database) as hosts:
        emptied = purging.put_back(database, hosts, candidates.name(database, read, what))
    _end(emptied, as_json, put_back=True)


def _end(emptied: Emptied, as_json: bool, *, put_back: bool = False) -> NoReturn:
    if as_json:
        print_json(emptied.as_dict())
    sound = _tell_quarantine(emptied, quiet=as_json, put_back=put_back)
    raise typer.Exit(Exit.DONE if sound else Exit.FAILED)


def _misused(text: str) -> NoReturn:
    complain(text)
    raise typer.Exit(Exit.USAGE)
