"""Commands that look: status, show, wait, verify, hosts, doctor."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stager.commands.common import (
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
    from stager.scrubbing import Checked

MOST_LINES = 50  # of a report of what is wrong; `--json` has all

hosts_app = typer.Typer(invoke_without_command=True)


def status(
    dataset: Annotated[str | None, typer.Argument(help="A dataset or a manifest; without it, all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Draw again every second until Ctrl-C.")] = False,
    why: Annotated[
        bool, typer.Option("--why", help="Say below the table why each route goes as it goes: streams, limits, pauses.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """The percent-complete table: what of each dataset is proven at its place.

    Exit status: 0 when drawn; 2 for a bad configuration or a dataset that nobody submitted.
    """
    # Imports are kept to what this one command needs: it must answer at once.
    from stager.finding import database_url, find_config, read_toml
    from stager.status import reading, snapshot

    path = find_config(config)
    url = database_url(path, read_toml(path))

    def look() -> Any:
        with reading(url) as connection:
            return snapshot(connection, dataset)

    found = look()
    if dataset is not None and not found.datasets:
        complain(f"there is no dataset or manifest {dataset}; `stager status` lists them")
        raise typer.Exit(Exit.USAGE)
    if as_json:
        print_json(found.as_dict())
        return
    draw_status(found, why=why)
    if watch:
        _watch(look, why)


def draw_status(found: Any, *, why: bool = False) -> None:
    """The table and the remarks below it."""
    out = console()
    out.print(_status_lines(found, out.width, why))


def _status_lines(found: Any, width: int, why: bool) -> Any:
    from rich.console import Group

    from stager import drawing

    if not found.datasets and not found.refused:
        return drawing.cell("nothing has been submitted yet; `stager submit FILE` does")
    return Group(drawing.status(found, width), *drawing.remarks(found), *(drawing.whys(found) if why else ()))


def _watch(look: Any, why: bool) -> None:
    from rich.live import Live

    out = console()
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        try:
            while True:
                live.update(_status_lines(look(), out.width, why), refresh=True)
                time.sleep(1)
        except KeyboardInterrupt:
            return


def show(
    manifest: Annotated[str, typer.Argument(help="A manifest's name.")],
    state: Annotated[
        str | None,
        typer.Option("--state", help="Only items in this state: waiting, running, done, held, excluded, missing."),
    ] = None,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Every try of these items, with its cause and side.")
    ] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="How many items to show at the most.")] = 50,
    as_map: Annotated[
        bool,
        typer.Option("--map", help="The focal plane, a sign for each CCD: of visits that are not whole, or --visit."),
    ] = False,
    where: Annotated[
        bool, typer.Option("--where", help="At which hosts its files lie, in which bundles, on tape or not.")
    ] = False,
    visit: Annotated[
        str | None, typer.Option("--visit", metavar="VISIT", help="Of this visit, with --map or --where.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """A manifest's items, and why they wait or are held; or where its files lie; or how its visits stand on the focal
    plane.

    Exit status: 0 when drawn; 2 for an unknown manifest, state or visit, or a camera without a map.
    """
    from stager import drawing, showing

    if where:
        if as_map or attempts or state is not None:
            complain("--where shows no items and no map, so no --state, no --attempts and no --map")
            raise typer.Exit(Exit.USAGE)
        _show_where(manifest, visit, most, as_json, config)
        return
    if as_map or visit is not None:
        _show_map(manifest, visit, as_map, state is not None or attempts, as_json, config)
        return
    from stager.status import STATES

    if state is not None and state not in STATES:
        complain(f"there is no state {state}; there are {', '.join(STATES)}")
        raise typer.Exit(Exit.USAGE)
    with opened(config) as (_, database):
        found = showing.show(database, manifest, state, most, attempts)
    if as_json:
        print_json(found.as_dict())
        return
    out = console()
    out.print(drawing.cell(found.heading))
    rows = [(item.state, item.source, item.destination or "-", item.why) for item in found.items]
    out.print(drawing.table(["State", "Source", "Destination", "Why"], rows))
    if found.more:
        say(f"and {found.more} more; `--state`, `--most` and `--json` choose")
    for recall in found.recalls:
        out.print(drawing.cell(recall.sentence))
    if attempts:
        columns: list[Any] = ["Item", ("Epoch", "right"), "Ended", "Outcome", "Kind", "Side", "Phase", "What"]
        tried = [
            (a.source, a.epoch, a.ended, a.outcome, a.kind or "", a.side or "", a.phase or "", a.text or "")
            for a in found.attempts
        ]
        out.print(drawing.table(columns, tried, "Attempts"))


def _show_where(manifest: str, visit: str | None, most: int, as_json: bool, config: str | None) -> None:
    from stager import drawing, locating

    with opened(config) as (read, database), opened_hosts(read, database, marks=False) as hosts:
        found = locating.locate(database, hosts, manifest, visit)
    if as_json:
        print_json(found.as_dict())
        return
    out = console()
    out.print(drawing.cell(found.heading))
    out.print(drawing.cell(found.sentence))
    rows = [
        (one.host, f"{one.files}/{found.files}", "bundle" if one.bundle else "files", one.path, one.stands)
        for one in found.places[:most]
    ]
    out.print(drawing.table(["Host", ("Files", "right"), "As", "Lies in", "Stands"], rows))
    if len(found.places) > most:
        say(f"and {len(found.places) - most} more; `--visit`, `--most` and `--json` choose")
    if found.back:
        out.print(drawing.cell(found.back))


def _show_map(
    manifest: str, visit: str | None, as_map: bool, of_items: bool, as_json: bool, config: str | None
) -> None:
    from stager.completeness import drawing_maps, mapping

    if of_items or not as_map:
        complain(
            "--visit goes with --map or --where"
            if not as_map
            else "--map shows no items, so no --state and no --attempts"
        )
        raise typer.Exit(Exit.USAGE)
    with opened(config) as (read, database):
        found = mapping.maps(database, manifest, visit, read.camera_folders)
    if as_json:
        print_json(found.as_dict())
        return
    out = console()
    for drawn in drawing_maps.maps(found, drawing_maps.signs(out.encoding), out.width):
        out.print(drawn)


def wait(
    datasets: Annotated[list[str], typer.Argument(help="Datasets or manifests.")],
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, callback=a_number, metavar="SECONDS", help="How long; else for ever."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Wait until the datasets are whole.

    Exit status: 0 when all are; 1 when one is held, cancelled or evicted as a whole, so that waiting will not help; 3
    when the time ran out.
    """
    from stager.finding import database_url, find_config, read_toml
    from stager.status import reading, snapshot

    path = find_config(config)
    url = database_url(path, read_toml(path))
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        with reading(url) as connection:
            found = [(name, snapshot(connection, name).datasets) for name in datasets]
        rows = [row for _, rows in found for row in rows]
        stuck = [row for row in rows if row.state in ("held", "cancelled")]
        if stuck:
            complain(f"{stuck[0].manifest} is {stuck[0].state}: {stuck[0].last_error or 'an operator asked for it'}")
            raise typer.Exit(Exit.FAILED)
        if all(rows and all(row.state == "complete" for row in rows) for _, rows in found):
            if evicted := [row.manifest for row in rows if row.is_evicted]:
                complain(
                    f"{evicted[0]} was evicted as a whole; `stager retry {evicted[0]}` or a restore brings it again"
                )
                raise typer.Exit(Exit.FAILED)
            return
        if end is not None and time.monotonic() >= end:
            late = next((name for name, rows in found if not rows), None) or next(
                r.manifest for r in rows if r.state != "complete"
            )
            complain(f"{late} is not whole after {timeout:g} s")
            raise typer.Exit(Exit.INCOMPLETE)
        time.sleep(0.5)


def verify(
    what: Annotated[str, typer.Argument(help="A location or pattern (host:path), a dataset, or a manifest.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Read copies again where they lie, and compare them with what was proven.

    Exit status: 0 when every copy is as it was; 1 when one is missing, corrupt or cannot be read; 2 when
    nothing is known there.
    """
    from manifests.manifest import Location
    from stager import drawing, scrubbing

    with opened(config) as (read, database):
        host = what.partition(":")[0]
        at = ":" in what and host in read.hosts
        copies = (
            scrubbing.copies_at(database, Location.parse(what)) if at else scrubbing.copies_of_dataset(database, what)
        )
        if not copies:
            complain(f"no copy is known of {what}; `stager status` lists what is")
            raise typer.Exit(Exit.USAGE)
        with opened_hosts(read, database) as hosts:
            checked = list(scrubbing.check(database, hosts, copies))
    bad = [one for one in checked if one.trouble]
    if as_json:
        troubles = [{"location": f"{one.copy.host}:{one.copy.path}", "trouble": one.trouble} for one in bad]
        print_json({"checked": len(checked), "bytes": sum(one.copy.size for one in checked), "troubles": troubles})
    else:
        if bad:
            rows = _troubles(bad)
            console().print(drawing.table(["Copy", "Trouble"], rows[:MOST_LINES]))
            if len(rows) > MOST_LINES:
                say(f"and {len(rows) - MOST_LINES} more; `--json` has them all")
        proven = len(checked) - len(bad)
        say(
            f"{proven} of {counted(len(checked), 'copy', 'copies')} proven, "
            f"{drawing.size(sum(one.copy.size for one in checked if not one.trouble))}"
        )
        if not all(one.of_host for one in bad):
            say("`stager retry MANIFEST` brings missing ones again; move corrupt ones away first")
    raise typer.Exit(Exit.FAILED if bad else Exit.DONE)


def _troubles(bad: Sequence[Checked]) -> list[tuple[str, str]]:
    """A row for each copy that is not as it was proven; one for all of a host where none there could be read."""
    down = Counter((one.copy.host, one.trouble or "") for one in bad if one.of_host)
    rows = [
        (f"{host}: {counted(count, 'copy', 'copies')}", trouble.removeprefix(f"{host}: "))
        for (host, trouble), count in down.items()
    ]
    return rows + [(f"{one.copy.host}:{one.copy.path}", one.trouble or "") for one in bad if not one.of_host]


@hosts_app.callback()
def hosts(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Look at each: key, root, marker, space, clock, and what a small transfer achieves."
        ),
    ] = False,
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="HOST", help="Only this one; may be given several times.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """The hosts of the configuration, and what trouble the daemon has with them.

    Exit status: 0 when all that was asked for is well; 1 with `--check` when a host cannot be used; 2 for bad usage.
    """
    if context.invoked_subcommand:
        return
    from stager import drawing, showing

    with opened(config) as (read, database), opened_hosts(read, database) as hosts:
        for name in host or ():
            _known_host(name, read)
        found = showing.hosts(database, hosts, host or (), check=check)
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        out = console()
        out.print(drawing.hosts(found))
        for line in drawing.about_hosts(found):
            out.print(line)
    raise typer.Exit(Exit.FAILED if check and any(one.problem for one in found) else Exit.DONE)


@hosts_app.command("pause")
def hosts_pause(
    host: Annotated[str, typer.Argument(help="A host's name.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for those who ask.")] = None,
    config: ConfigOption = None,
) -> None:
    """Begin nothing more from or to a host until it is resumed, whatever is restarted.

    Exit status: 0; 2 for an unknown host.
    """
    from stager import intents

    with opened(config) as (read, database):
        _known_host(host, read)
        intents.pause(database, host, reason)
    say(f"{host} is paused: what is under way there ends, nothing more begins")


@hosts_app.command("resume")
def hosts_resume(host: Annotated[str, typer.Argument(help="A host's name.")], config: ConfigOption = None) -> None:
    """Let a paused host work again, and have one in trouble tried at once.

    Exit status: 0; 2 for an unknown host.
    """
    from stager import intents

    with opened(config) as (read, database):
        _known_host(host, read)
        intents.resume(database, host)
    say(f"{host} works again")


def _known_host(host: str, read: Any) -> None:
    if host not in read.hosts:
        complain(f"there is no host {host}; the configuration has {', '.join(sorted(read.hosts)) or 'none'}")
        raise typer.Exit(Exit.USAGE)


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Read every copy again too.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Check every invariant against the database and the hosts.

    Exit status: 0 when all hold; 1 when one does not.
    """
    from dataclasses import asdict

    from stager import doctor as checks
    from stager import drawing

    with opened(config) as (read, database), opened_hosts(read, database) as hosts:
        found = list(checks.examine(database, hosts, deep=deep))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        rows = [("ok" if one.sound else "BROKEN", one.invariant, one.detail) for one in found]
        console().print(drawing.table(["", "Invariant", "Detail"], rows))
    raise typer.Exit(Exit.DONE if all(one.sound for one in found) else Exit.FAILED)
