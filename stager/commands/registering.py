"""The commands of `stager registry`: what landed, by its header; what is missing; registries for who reads images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stager.commands.common import ConfigOption, Exit, JsonOption, complain, console, opened, print_json, say

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
    from stager.completeness import checks, drawing_visits

    if camera is not None and registry is None:
        complain("--camera says whose --registry it is: give that too")
        raise typer.Exit(Exit.USAGE)
    with opened(config) as (read, database):
        found = checks.check(database, dataset, registry, camera, read.camera_folders)
    if as_json:
        print_json(found.as_dict())
    else:
        out = console()
        for drawn in drawing_visits.check(found, out.width, brief=out.is_terminal):
            out.print(drawn)
    if found.empty:
        complain("no visit is known: nothing with a camera has been submitted, so there is nothing to check")
        raise typer.Exit(Exit.INCOMPLETE)
    raise typer.Exit(Exit.DONE if found.well else Exit.FAILED)


OutputOption = Annotated[
    str,
    typer.Option("--output", metavar="FILE|HOST:PATH", help="Where it goes: a file here, or one below a host's root."),
]
HostOption = Annotated[
    str | None, typer.Option("--host", help="Whose images, where those of a dataset are at several hosts.")
]
DatasetsArgument = Annotated[list[str] | None, typer.Argument(metavar="DATASET...", help="Whose raw images.")]


@app.command("build")
def registry_build(
    datasets: DatasetsArgument = None,
    output: OutputOption = "",
    host: HostOption = None,
    calib: Annotated[
        Path | None,
        typer.Option("--calib", metavar="INVENTORY", help="Instead: calibRegistry.sqlite3 from this inventory."),
    ] = None,
    drop_strays: Annotated[
        bool, typer.Option("--drop-strays", help="Remove rows that are none of these images, whoever wrote them.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """registry.sqlite3 as the pipelines of DC3b read it: made, or brought up to what landed; rows keep their ids.

    What is odd in it is told and no failure. Exit status: 0 when it is as it should be; 1 when it cannot be written or
    a host cannot be reached; 2 when nothing can be made of what was named, or another kind of file is in its place.
    """
    from stager.registries import drafts, making

    if not output:
        _misused("--output is missing: say where the registry goes, as in --output registry.sqlite3")
    if calib is not None:
        if datasets or host or drop_strays:
            _misused("--calib makes a registry of an inventory alone: leave out datasets, --host and --drop-strays")
        if not drafts.names_host(output):
            made = making.calibrations(calib, output)
        else:
            with opened(config) as (read, database):
                made = making.calibrations(calib, output, read, database)
        _tell(output, made, making.calibration_lines(output, made), as_json)
        return
    if not datasets:
        _misused("name the datasets whose images the registry is of, or an inventory with --calib")
    with opened(config) as (read, database):
        done = making.registry(read, database, datasets, output, host=host, drop_strays=drop_strays)
    _tell(output, done, making.registry_lines(output, done), as_json)


@app.command("export")
def registry_export(
    datasets: DatasetsArgument = None,
    output: OutputOption = "",
    form: Annotated[str, typer.Option("--format", help="ecsv: a table for `butler ingest-files`.")] = "ecsv",
    host: HostOption = None,
    instrument: Annotated[
        str | None, typer.Option("--instrument", metavar="NAME", help="Its name in the Butler; else the camera's.")
    ] = None,
    dimension: Annotated[
        list[str] | None,
        typer.Option("--dimension", metavar="NAME=ID[,ID]", help="What a dimension is made of; NAME= leaves it out."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="ID=VALUE", help="Only files with this id.")
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="Paths below the host's root, for --prefix, instead of URIs.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """A table of raw images that the Butler of today's pipelines ingests: the file, then its dimensions.

    Exit status: 0 when it is as it should be; 1 when it cannot be written or a host cannot be reached; 2 when nothing
    can be made of what was named, or two files would be one to the Butler.
    """
    from stager.registries import making

    if form != "ecsv":
        _misused("--format is ecsv, and no other is known")
    if not output:
        _misused("--output is missing: say where the table goes, as in --output raw.ecsv")
    if not datasets:
        _misused("name the datasets whose images the table is of")
    options = {"dimensions": dimension or (), "conditions": where or ()}
    with opened(config) as (read, database):
        made = making.table(
            read, database, datasets, output, host=host, instrument=instrument, relative=relative, **options
        )
    _tell(output, made, making.table_lines(output, made), as_json)


def _misused(text: str) -> NoReturn:
    complain(text)
    raise typer.Exit(Exit.USAGE)


def _tell(output: str, report: Any, lines: Iterable[str], as_json: bool) -> None:
    """What was done, as data or in lines."""
    from manifests.errors import shown

    if as_json:
        print_json({"output": output, **report.as_dict()})
        return
    for line in lines:
        say(shown(line, 2000))
