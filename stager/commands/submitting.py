"""Commands that say what should be: init, submit, retry, hold, release, cancel, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stager.commands.common import ConfigOption, Exit, JsonOption, complain, opened, opened_hosts, print_json, say
from stager.counts import counted

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Manifests.")]
Name = Annotated[str, typer.Argument(metavar="MANIFEST", help="A manifest's name.")]
ItemOption = Annotated[
    str | None,
    typer.Option("--item", metavar="GLOB", help="Only items whose path, or the end of it, this names."),
]
MOST_REMARKS = 10


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.")] = Path(),
) -> None:
    """Write a commented stager.toml and a first manifest; files that are there are left alone.

    Exit status: 0 when written; 2 when there is a stager.toml already.
    """
    from stager.templates import write_templates

    written = write_templates(folder)
    if not written:
        complain(f"{folder / 'stager.toml'} is there already; nothing was written")
        raise typer.Exit(Exit.USAGE)
    for path in written:
        say(f"wrote {path}")
    say("next: set the hosts in stager.toml, then `stager submit first-archive.toml --dry-run`")


def submit(
    files: Files,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Read manifests, check them, plan them into items. What was submitted before and did not change stays.

    Exit status: 0 when all are submitted; 1 when some are not; 2 when none is, and nothing was changed.
    """
    with opened(config) as (read, database), opened_hosts(read, database, marks=not dry_run) as hosts:
        results, wrong = submit_files(files, read, database, hosts, dry_run=dry_run)
    if as_json:
        print_json([_as_dict(one, dry_run) for one in results])
    else:
        for one in results:
            say(_sentence(one, dry_run))
    for problem in wrong:
        complain(problem)
    if wrong:
        raise typer.Exit(Exit.FAILED if results else Exit.USAGE)


def submit_files(
    files: list[Path], config: Any, database: Any, hosts: Any, *, dry_run: bool = False
) -> tuple[list[Any], list[str]]:
    """Submit the files one after the other; (what came of them, what was wrong with the others).

    Where one of them cannot even be read, none is submitted.
    """
    from manifests.errors import ManifestError
    from manifests.reading import read_manifest
    from stager.submitting import submit as submit_one
    from transfers.errors import TransferError

    manifests, wrong = [], list[str]()
    for path in files:
        try:
            manifests.append((path, read_manifest(path)))
        except ManifestError as error:
            wrong.append(str(error))
    if wrong:
        return [], wrong
    results = []
    for path, manifest in manifests:
        try:
            results.append(submit_one(database, config, manifest, str(path), dry_run=dry_run, hosts=hosts))
        except ManifestError as error:
            wrong.append(str(error))
        except TransferError as error:
            wrong.append(f"{path}: {error}")
    return results, wrong


def _as_dict(one: Any, dry_run: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "dry_run": dry_run}


def _sentence(one: Any, dry_run: bool) -> str:
    from stager.drawing import size

    if not one.changed:
        return f"{one.name}: unchanged, revision {one.revision} stands"
    would = "would be " if dry_run else ""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(one.states.items()))
    carried = f", {one.carried} of them proven already" if one.carried else ""
    lines = [
        (
            f"{one.name}: {would}revision {one.revision}, {counted(one.items, 'item')} ({counts}{carried}), "
            f"{counted(one.files, 'file')}, {size(one.bytes)} at the source"
        )
    ]
    return "\n".join([*lines, *remarks(one)])


def remarks(one: Any) -> list[str]:
    """What is worth saying of a submission, as what was left out; a line each."""
    left = len(one.notes) - MOST_REMARKS
    more = [f"  and {counted(left, 'more remark')}"] if left > 0 else []
    return [f"  {note}" for note in one.notes[:MOST_REMARKS]] + more


def retry(manifest: Name, item: ItemOption = None, config: ConfigOption = None) -> None:
    """Try held and waiting items again now, and bring back copies that `verify` found missing.

    Exit status: 0; 2 for an unknown manifest, or when --item names nothing that can be tried.
    """
    _intend("retry", manifest, item, config, "{items} will be tried now")


def hold(manifest: Name, item: ItemOption = None, config: ConfigOption = None) -> None:
    """Stop a manifest, or some of its items, until they are released. What is under way ends.

    Exit status: 0; 2 for an unknown manifest, or when --item names nothing that waits.
    """
    _intend("hold", manifest, item, config, "{items_are} held")


def release(manifest: Name, item: ItemOption = None, config: ConfigOption = None) -> None:
    """Let what is held, by an operator or by an error, go on; a cancelled manifest too.

    Exit status: 0; 2 for an unknown manifest, or when --item names nothing that is held.
    """
    _intend("release", manifest, item, config, "released; {items_are} tried again")


def cancel(manifest: Name, item: ItemOption = None, config: ConfigOption = None) -> None:
    """Give a manifest up, or exclude some of its items. What is proven stays where it is.

    Exit status: 0; 2 for an unknown manifest, or when --item names nothing that waits or is held.
    """
    _intend("cancel", manifest, item, config, "{items_are} given up")


def _intend(what: str, manifest: str, item: str | None, config: str | None, said: str) -> None:
    from stager import intents

    with opened(config) as (read, database):
        options = {"folders": read.camera_folders} if what in ("release", "cancel") else {}
        count = getattr(intents, what)(database, manifest, item, **options)
    if item is not None and count == 0:
        complain(f"{manifest}: no item that {item} names can be changed so; `stager show {manifest}` lists them")
        raise typer.Exit(Exit.USAGE)
    items, items_are = counted(count, "item"), counted(count, "item is", "items are")
    say(f"{manifest}: {said.format(items=items, items_are=items_are)}")


def schema(
    what: Annotated[str, typer.Argument(metavar="manifest|config", help="Of which document.")],
) -> None:
    """Print the JSON Schema of manifests or of stager.toml, for editors.

    Exit status: 0; 2 for another word.
    """
    from manifests.reading import schema as manifest_schema
    from stager.config import schema as config_schema

    if what not in ("manifest", "config"):
        complain(f"there is no schema of {what}; there are manifest and config")
        raise typer.Exit(Exit.USAGE)
    print_json(manifest_schema() if what == "manifest" else config_schema())
