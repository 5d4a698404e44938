"""The command `stager registry rebuild`: what a store's own bundles tell, after a database or an index was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stager.commands.common import (
    ConfigOption,
    Exit,
    JsonOption,
    complain,
    opened,
    opened_hosts,
    print_json,
    say,
)
from stager.counts import counted

if TYPE_CHECKING:
    from stager.rebuilding.telling import Counts

MOST_LINES = 50  # of each kind; `--json` has all


def rebuild(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A mass store of the configuration.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte: digests of bundles and members, and of files of their own.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a store's bundles, the indexes beside them and the database agree: any one makes the others again.

    Nothing that the database knows is changed for what a store says. Exit status: 0 when all agree, if need be after
    mending; 1 when something could not be believed, read or mended; 2 for a name that is no store.
    """
    from dataclasses import asdict

    from stager.config import StoreHost
    from stager.rebuilding.rebuild import AT_ONCE, Rebuild
    from stager.rebuilding.telling import Told
    from transfers.bundles.store import BundledStore

    with opened(config) as (read, database), opened_hosts(read, database, marks=not dry_run) as hosts:
        described = read.hosts.get(store)
        if not isinstance(described, StoreHost):
            stores = ", ".join(sorted(name for name, kind in read.host_kinds.items() if kind == "store")) or "none"
            complain(f"there is no mass store {store}; the configuration has {stores}")
            raise typer.Exit(Exit.USAGE)
        opened_store = hosts[store]
        assert isinstance(opened_store, BundledStore)  # as every host of that kind
        at_once = min(AT_ONCE, described.recalls)
        pass_ = Rebuild(database, opened_store, deep, dry_run, at_once, described.recall_s)
        said: list[Told] = []
        lines: dict[str, int] = {}
        for told in pass_.run():
            lines[told.what] = lines.get(told.what, 0) + 1
            if as_json:
                said.append(told)
            elif lines[told.what] <= MOST_LINES:
                _say(store, told, dry_run)
    if as_json:
        print_json(_as_data(store, deep, dry_run, asdict(pass_.counts), said))
    else:
        _sum_up(pass_.counts, lines, dry_run)
    raise typer.Exit(Exit.FAILED if pass_.counts.troubles else Exit.DONE)


def _say(store: str, told: Any, dry_run: bool) -> None:
    from transfers.errors import shown

    line = shown(f"{'dry run: ' if dry_run else ''}{store}:{told.path}: {told.text}")
    if told.what == "trouble":
        complain(line)
    else:
        say(line)


def _as_data(store: str, deep: bool, dry_run: bool, counts: dict[str, int], said: list[Any]) -> dict[str, Any]:
    told = [{"path": one.path, "what": one.what, "text": one.text} for one in said]
    return {"store": store, "deep": deep, "dry_run": dry_run, "counts": counts, "told": told}


def _sum_up(counts: Counts, lines: dict[str, int], dry_run: bool) -> None:
    """The numbers, and how much was not said above."""
    for what, count in lines.items():
        if count > MOST_LINES:
            say(f"and {counted(count - MOST_LINES, 'more line')} like these ({what}); `--json` has all")
    they = "it" if counts.bundles == 1 else "they"
    were, was = ("would be", "would be") if dry_run else ("were", "was")
    indexes = counted(counts.indexes_written, f"index {was}", f"indexes {were}")
    say(
        f"{counted(counts.bundles, 'bundle')}, {counts.agree} as {they} should be, with "
        f"{counted(counts.members, 'member')}: {counted(counts.members_added, 'member')} and "
        f"{counted(counts.files_added, 'file')} {were} added, {indexes} written; "
        f"{counted(counts.files_known, 'file of its own is', 'files of their own are')} known, "
        f"{counts.files_unknown} not"
    )
    if counts.troubles:
        say(f"{counted(counts.troubles, 'time')} something could not be believed, read or mended: see above")
