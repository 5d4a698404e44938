"""The commands of `stager registry`: what landed, by its header; what is missing; what has bad headers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stager.commands.common import ConfigOption, Exit, JsonOption, complain, console, opened, print_json

app = typer.Typer(no_args_is_help=True, help="What landed, by its header; what is missing; what has bad headers.")


@app.command("check")
def registry_check(
    dataset: Annotated[str | None, typer.Argument(help="A dataset or a manifest; without it, all.")] = None,
    registry: Annotated[
        Path | None,
        typer.Option("--registry", metavar="FILE", help="Hold this registry.sqlite3 against what is proven."),
    ] = None,
    camera: Annotated[
        str | None, typer.Option("--camera", metavar="NAME", help="Whose registry it is; else by its columns.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """How complete each visit is, and what was found in headers; with --registry, what a registry lacks of it.

    A registry alone, without a dataset, is held against its camera where nothing of it is known here. Exit status: 0
    when every visit is whole, none is a stray and nothing worse than a note was found in headers; 1 when not; 2 for a
    name that nobody submitted, or a file that is no registry; 3 when nothing is known at all.
    """
    from stager import drawing_maps, registry_checks

    if camera is not None and registry is None:
        complain("--camera says whose --registry it is: give that too")
        raise typer.Exit(Exit.USAGE)
    with opened(config) as (read, database):
        found = registry_checks.check(database, dataset, registry, camera, read.camera_folders)
    if as_json:
        print_json(found.as_dict())
    else:
        out = console()
        for drawn in drawing_maps.check(found, out.width, brief=out.is_terminal):
            out.print(drawn)
    if found.empty:
        complain("no visit is known: nothing with a camera has been submitted, so there is nothing to check")
        raise typer.Exit(Exit.INCOMPLETE)
    raise typer.Exit(Exit.DONE if found.well else Exit.FAILED)
