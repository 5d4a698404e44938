"""The registries and tables that are asked for, from Stager's own registry to where they are wanted; and what was done,
in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from manifests.errors import shown
from manifests.parts import Location
from stager.config import Config
from stager.counts import counted
from stager.database import Database
from stager.opening import Hosts
from stager.registries import calib, dc3b, ecsv, landed
from stager.registries.drafts import drafted, location
from stager.registries.errors import RegistryError
from stager.registries.inventory import read_inventory
from stager.registries.landed import Place

MOST_LINES = 50  # of one kind; `--json` has all


def registry(
    config: Config,
    database: Database,
    datasets: Sequence[str],
    output: str,
    *,
    host: str | None = None,
    drop_strays: bool = False,
) -> dc3b.Report:
    """Bring registry.sqlite3 up to the raw images of datasets at a host."""
    target = location(output, config)
    place = _place(config, database, datasets, host, target)
    with (
        _hosts(config, database, target) as hosts,
        drafted(output, target, hosts) as draft,
        database.read() as connection,  # ends before the draft is sent to a host
    ):
        return dc3b.build(
            draft,
            place,
            lambda: landed.images(connection, place),
            lambda: landed.images(connection, place, elsewhere=True),
            drop_strays=drop_strays,
        )


def calibrations(
    inventory: Path, output: str, config: Config | None = None, database: Database | None = None
) -> calib.Report:
    """Bring calibRegistry.sqlite3 up to an inventory; configuration and database are those of an output at a host."""
    detrends = read_inventory(inventory)
    if config is None or database is None:
        with drafted(output) as draft:
            return calib.build(draft, detrends)
    target = location(output, config)
    with _hosts(config, database, target) as hosts, drafted(output, target, hosts) as draft:
        return calib.build(draft, detrends)


def table(
    config: Config,
    database: Database,
    datasets: Sequence[str],
    output: str,
    *,
    host: str | None = None,
    instrument: str | None = None,
    dimensions: Sequence[str] = (),
    conditions: Sequence[str] = (),
    relative: bool = False,
) -> ecsv.Report:
    """Make the table of the raw images of datasets at a host that `butler ingest-files` takes."""
    target = location(output, config)
    place = _place(config, database, datasets, host, target)
    rule = ecsv.rule_of(place.camera, instrument, dimensions)
    chosen = ecsv.chosen_ids(place.camera, conditions)
    root = None if relative else config.hosts[place.host].root
    with (
        _hosts(config, database, target) as hosts,
        drafted(output, target, hosts) as draft,
        database.read() as connection,
    ):
        return ecsv.export(draft, place, rule, landed.images(connection, place), root=root, chosen=chosen)


def _place(
    config: Config, database: Database, datasets: Sequence[str], host: str | None, target: Location | None
) -> Place:
    if host is not None and host not in config.hosts:
        raise RegistryError(f"--host {shown(host, 40)}: no host of stager.toml; its hosts: {', '.join(config.hosts)}")
    place = landed.find(database, datasets, host, target.host if target else None, config.camera_folders)
    if place.host not in config.hosts:
        raise RegistryError(
            f"the images are at {shown(place.host, 40)}, which stager.toml no longer has: name it there again"
        )
    return place


def _hosts(config: Config, database: Database, target: Location | None) -> AbstractContextManager[Hosts | None]:
    return Hosts(database, config) if target else nullcontext()


# ------------------------------------------------------------------------------------------- what was done, in words


def registry_lines(output: str, report: dc3b.Report) -> Iterator[str]:
    """What was done with a registry, and what a person should look at."""
    counts = [f"{getattr(report, what)} {what}" for what in ("added", "updated", "removed", "kept")]
    yield (
        f"{output}: {counted(report.rows, 'image')} of {counted(report.visits, 'visit')} "
        f"({report.camera} at {report.host}): " + ", ".join(counts if report.written else ["nothing changed"])
    )
    yield from _few([_change(one) for one in report.changes if one.updated or one.removed or one.strays])
    if report.strays:
        yield (
            f"{counted(report.strays, 'stray is', 'strays are')} kept: rows that are none of these images, written by "
            "others or of other datasets (--drop-strays removes them)"
        )
    if report.merged:
        yield f"{counted(report.merged, 'row')} stood in it twice; the first of each is kept"
    if report.landed.lost:
        yield _lost(report.landed.lost)
    if report.landed.nameless:
        images = counted(report.landed.nameless, "image is", "images are")
        yield f"{images} left out: an id that the registry needs is not in the path"
    if report.landed.bad_times:
        images = counted(report.landed.bad_times, "image has", "images have")
        yield f"{images} no good time: taiObs is NULL, and that of the visit is others'"
    yield from _few(report.clashing)
    yield from _few([str(one) for one in report.disagreements])


def _change(change: dc3b.Change) -> str:
    counts = {what: getattr(change, what) for what in ("added", "updated", "removed", "strays")}
    return f"visit {change.visit}: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}"


def calibration_lines(output: str, report: calib.Report) -> Iterator[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    counts = [f"{getattr(report, what)} {what}" for what in ("added", "updated", "removed", "kept")]
    yield f"{output}: {kinds}: {', '.join(counts if report.written else ['nothing changed'])}"
    yield from _few([str(one) for one in report.overlaps])


def table_lines(output: str, report: ecsv.Report) -> Iterator[str]:
    unchanged = "" if report.written else "; nothing changed"
    files = counted(report.rows, "file")
    yield f"{output}: {files} ({report.camera} at {report.host}), {', '.join(report.columns)}{unchanged}"
    if report.lost:
        yield _lost(report.lost)


def _lost(images: int) -> str:
    are = counted(images, "image is", "images are")
    return f"{are} left out: gone or damaged when `stager verify` last looked"


def _few(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"and {counted(len(lines) - MOST_LINES, 'more such line')}; `--json` has them all"
