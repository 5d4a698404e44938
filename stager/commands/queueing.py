"""Queues, for pipelines and people: list, claim, ack, fail, replay, export."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manifests.errors import shown
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
    from stager.config import Config, FolderQueue, Queue
    from stager.database import Database
    from stager.queues.folders import Entry

queue_app = typer.Typer(no_args_is_help=True, help="The queues of triggers, for pipelines and people.")
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue's name in stager.toml.")]
TriggerId = Annotated[str, typer.Argument(metavar="ID", help="The id of a claimed trigger.")]


@contextmanager
def _queue(name: str, config: str | None) -> Iterator[tuple[Any, Any]]:
    with opened(config) as (read, database):
        yield _settings(read, name), database


def _settings(read: Config, name: str) -> Queue:
    if name not in read.queues:
        complain(f"there is no queue {name}; the configuration has {', '.join(sorted(read.queues)) or 'none'}")
        raise typer.Exit(Exit.USAGE)
    return read.queues[name]


@contextmanager
def _claimed_from(name: str, config: str | None) -> Iterator[tuple[Any, Any]]:
    """The same for what only the built-in queue knows: from a folder a pipeline takes what it finds there."""
    from stager.config import FolderQueue

    with _queue(name, config) as (settings, database):
        if isinstance(settings, FolderQueue):
            complain(
                f"queue {name} is a folder: its pipeline takes what is delivered from {settings.folder}, and nothing "
                "is claimed, acknowledged or failed"
            )
            raise typer.Exit(Exit.USAGE)
        yield settings, database


@queue_app.command("list")
def queue_list(queue: QueueName, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """All triggers of a queue, the oldest first. Exit status: 0, also for an empty queue."""
    from dataclasses import asdict

    from stager import drawing
    from stager.queues import table

    with _queue(queue, config) as (_, database):
        found = table.waiting(database, queue)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        (
            one.id,
            f"{one.dataset}, revision {one.revision}: {one.group or 'whole'}",
            f"{one.state} by {one.claimed_by}" if one.claimed_by else one.state,
            one.note or "",
        )
        for one in found
    ]
    columns = ["Id", "What", "State", "Note"] if any(one.note for one in found) else ["Id", "What", "State"]
    drawn = drawing.table(columns, [row[: len(columns)] for row in rows])
    drawn.columns[0].no_wrap = True  # an id is there to be copied
    console().print(drawn)


@queue_app.command("claim")
def queue_claim(
    queue: QueueName,
    as_json: JsonOption = False,
    by: Annotated[str | None, typer.Option("--by", help="Who claims; else this host's name.")] = None,
    lease: Annotated[
        float | None,
        typer.Option(
            "--lease",
            min=1,
            max=LONGEST_S,
            callback=a_number,
            metavar="SECONDS",
            help="Until when it is to be acknowledged, 30 days at the most.",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Claim one trigger: it is yours until it is acknowledged, failed, or its lease runs out.

    Exit status: 0 with a trigger; 3 when there is none; 2 for a queue that is a folder.
    """
    from stager.queues import table

    with _claimed_from(queue, config) as (settings, database):
        event = table.claim(database, queue, by or socket.gethostname(), lease or settings.lease_s)
    if event is None:
        complain(f"queue {queue} has no trigger that is ready")
        raise typer.Exit(Exit.INCOMPLETE)
    if as_json:
        print_json(event)
        return
    data = event["data"]
    say(
        f"{event['id']}  {event['subject']}: {counted(data['files'], 'file')}, {counted(data['bytes'], 'byte')} "
        f"at {data['host']}:{data['root']}"
    )
    say(f"inventory: {data['inventory']}")
    say(f"then: stager queue ack {queue} {event['id']}")


@queue_app.command("ack")
def queue_ack(queue: QueueName, trigger: TriggerId, config: ConfigOption = None) -> None:
    """The trigger was taken over. Exit status: 0; 2 when it is not claimed."""
    from stager.queues import table

    with _claimed_from(queue, config) as (_, database):
        table.ack(database, queue, trigger)
    say(f"{trigger} is acknowledged")


@queue_app.command("fail")
def queue_fail(
    queue: QueueName,
    trigger: TriggerId,
    note: Annotated[str | None, typer.Option("--note", help="Why.")] = None,
    config: ConfigOption = None,
) -> None:
    """The trigger's work failed; it stays so until it is replayed. Exit status: 0; 2 when it is not claimed."""
    from stager.queues import table

    with _claimed_from(queue, config) as (_, database):
        table.fail(database, queue, trigger, note)
    say(f"{trigger} is failed; `stager queue replay {queue} {trigger}` makes it ready again")


@queue_app.command("replay")
def queue_replay(queue: QueueName, trigger: TriggerId, config: ConfigOption = None) -> None:
    """Make a trigger ready once more, with its old id; one of a folder is delivered there once more.

    Exit status: 0; 1 when it cannot be delivered now, which the daemon then goes on trying; 2 when there is none of
    that id.
    """
    from stager.config import FolderQueue
    from stager.queues import table

    with opened(config) as (read, database):
        settings = _settings(read, queue)
        if not isinstance(settings, FolderQueue):
            table.replay(database, queue, trigger)
            say(f"{trigger} is ready again")
            return
        if _deliver_again(read, database, queue, trigger):
            say(f"{trigger} was delivered once more to {settings.folder}, with the same id")
        else:
            say(f"{trigger}: {settings.folder} had this delivery already, and nothing was added")


def _deliver_again(read: Config, database: Database, queue: str, trigger: str) -> bool:
    """Deliver a trigger once more, now; what cannot be delivered is left to the daemon."""
    from stager import publishing
    from transfers.errors import TransferError

    publishing.replay(database, queue, trigger)
    with opened_hosts(read, database) as hosts:
        try:
            return publishing.publish(database, hosts, trigger)
        except TransferError as error:
            complain(f"{error}\n{trigger} waits: the daemon delivers it once more, with the same id")
            raise typer.Exit(Exit.FAILED) from error


class Format(StrEnum):
    """What `export` writes a trigger's datasets as."""

    LIST = "list"  # as announceDataset.py reads it
    PAF = "paf"  # items of a job office


@queue_app.command("export")
def queue_export(
    queue: QueueName,
    trigger: Annotated[
        str | None, typer.Argument(metavar="ID", help="The id of a trigger; left out: the newest of every group.")
    ] = None,
    as_format: Annotated[
        Format, typer.Option("--format", help="list: as announceDataset.py reads it; paf: items of a job office.")
    ] = Format.LIST,
    kind: Annotated[str | None, typer.Option("--type", help='The type of the datasets, such as "raw".')] = None,
    ids: Annotated[
        str | None, typer.Option("--ids", help="The ids to tell, in their order: visit,filter,ccd,amp.")
    ] = None,
    group: Annotated[bool, typer.Option("--group", help="One dataset a group, instead of one a file.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Write files there, none of which is replaced.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """The datasets of a trigger of any queue, or of all its groups, for people; no trigger changes by it.

    What is not said is taken from the queue's settings. Exit status: 0; 1 when a file is there already, or datasets
    cannot be told; 2 for a queue or trigger that is not there; 3 when there is no trigger.
    """
    from stager.queues import table

    with opened(config) as (read, database):
        told_as = _told_as(_settings(read, queue), as_format, kind, ids, group)
        chosen = [trigger] if trigger else table.newest(database, queue)
        if trigger:
            table.see(database, queue, trigger)
        for one in chosen:
            for entry in _entries(read, database, told_as, one):
                _put(entry, to)
    if not chosen:
        complain(f"queue {queue} has no trigger")
        raise typer.Exit(Exit.INCOMPLETE)


def _told_as(settings: Queue, as_format: Format, kind: str | None, ids: str | None, group: bool) -> FolderQueue:
    """A queue that tells datasets as it was asked for, and for the rest as the queue's settings say."""
    from pydantic import ValidationError

    from manifests.wording import problems_of
    from stager.config import FolderQueue, JobOfficeQueue, ListQueue

    model = ListQueue if as_format == Format.LIST else JobOfficeQueue
    said = settings.model_dump(exclude={"kind", "lease_s"}) if isinstance(settings, FolderQueue) else {}
    said = {key: value for key, value in said.items() if key in model.model_fields}
    said |= {"kind": "lists" if as_format == Format.LIST else "joboffice", "folder": "/unused"}
    said |= {"type": kind} if kind else {}
    said |= {"ids": ids.split(",")} if ids else {}
    said |= {"datasets": "group"} if group else {}
    try:
        return model.model_validate(said)
    except ValidationError as error:
        complain("; ".join(f"--{problem}" for problem in problems_of(error, model)))
        raise typer.Exit(Exit.USAGE) from error


def _entries(read: Config, database: Database, told_as: FolderQueue, trigger: str) -> list[Entry]:
    from stager import publishing
    from stager.queues import delivering
    from stager.queues.errors import Undeliverable

    try:
        return delivering.entries_of(told_as, publishing.tell(database, read, told_as, trigger))
    except Undeliverable as error:
        complain(f"{trigger}: {shown(error.text)}")
        raise typer.Exit(Exit.FAILED) from error


def _put(entry: Entry, folder: Path | None) -> None:
    if folder is None:
        say(entry.data.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode().rstrip("\n"))
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / entry.name(0), "xb") as file:
            file.write(entry.data)
    except OSError as error:
        complain(f"{shown(str(error.filename or folder))}: {error.strerror}")
        raise typer.Exit(Exit.FAILED) from error
    say(str(folder / entry.name(0)))
