"""The built-in queue, for pipelines and people: list, claim, ack, fail, replay."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from stager.commands.common import ConfigOption, Exit, JsonOption, complain, console, opened, print_json, say

queue_app = typer.Typer(no_args_is_help=True, help="The built-in trigger queue, for pipelines and people.")
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue's name in stager.toml.")]
TriggerId = Annotated[str, typer.Argument(metavar="ID", help="The id of a claimed trigger.")]


@contextmanager
def _queue(name: str, config: str | None) -> Iterator[tuple[Any, Any]]:
    with opened(config) as (read, database):
        if name not in read.queues:
            complain(f"there is no queue {name}; the configuration has {', '.join(sorted(read.queues)) or 'none'}")
            raise typer.Exit(Exit.USAGE)
        yield read.queues[name], database


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
        typer.Option("--lease", min=1, metavar="SECONDS", help="Until when it is to be acknowledged."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Claim one trigger: it is yours until it is acknowledged, failed, or its lease runs out.

    Exit status: 0 with a trigger; 3 when there is none.
    """
    from stager.queues import table

    with _queue(queue, config) as (settings, database):
        event = table.claim(database, queue, by or socket.gethostname(), lease or settings.lease_s)
    if event is None:
        complain(f"queue {queue} has no trigger that is ready")
        raise typer.Exit(Exit.INCOMPLETE)
    if as_json:
        print_json(event)
        return
    data = event["data"]
    say(
        f"{event['id']}  {event['subject']}: {data['files']} files, {data['bytes']} bytes "
        f"at {data['host']}:{data['root']}"
    )
    say(f"inventory: {data['inventory']}")
    say(f"then: stager queue ack {queue} {event['id']}")


@queue_app.command("ack")
def queue_ack(queue: QueueName, trigger: TriggerId, config: ConfigOption = None) -> None:
    """The trigger was taken over. Exit status: 0; 2 when it is not claimed."""
    from stager.queues import table

    with _queue(queue, config) as (_, database):
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

    with _queue(queue, config) as (_, database):
        table.fail(database, queue, trigger, note)
    say(f"{trigger} is failed; `stager queue replay {queue} {trigger}` makes it ready again")


@queue_app.command("replay")
def queue_replay(queue: QueueName, trigger: TriggerId, config: ConfigOption = None) -> None:
    """Make a trigger ready once more, with its old id. Exit status: 0; 2 when there is none of that id."""
    from stager.queues import table

    with _queue(queue, config) as (_, database):
        table.replay(database, queue, trigger)
    say(f"{trigger} is ready again")
