"""The command `stager`: each command parses, calls one function, draws. The one place where errors become a
line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from stager import __version__
from stager.commands import evicting, looking, queueing, rebuilding, registering, restoring, running, submitting
from stager.commands.common import ConfigOption, Exit, complain, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Moves, chops, archives and restores FITS datasets between hosts with proof, and triggers pipelines when "
    "they are whole. Exit status: 0 all done, 1 some items failed or are held, 2 bad usage, configuration or "
    "manifest (nothing was changed), 3 not complete yet.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        say(f"stager {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    config: ConfigOption = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    if config is not None:  # `stager -c FILE status` is `stager status -c FILE`
        os.environ["STAGER_CONFIG"] = config


COMMANDS: tuple[Callable[..., None], ...] = (
    submitting.init, submitting.submit, running.run, running.daemon, looking.status, looking.show, submitting.retry,
    submitting.hold, submitting.release, submitting.cancel, looking.wait, restoring.restore, evicting.evict,
    looking.verify, looking.doctor, submitting.schema, running.demo,
)  # fmt: skip
for made in COMMANDS:
    app.command()(made)
app.add_typer(queueing.queue_app, name="queue")
registering.app.command()(rebuilding.rebuild)
app.add_typer(registering.app, name="registry")
app.add_typer(looking.hosts_app, name="hosts")


UNWRITTEN = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)  # of output, for the most part


def main() -> None:
    """Run the command; a failure that a person can mend is a line on standard error, not a traceback."""
    try:
        try:
            app()
        finally:  # or Python finds out at its end what cannot be written, and has an exit status of its own for it
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in UNWRITTEN:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second error at exit
        if error.errno != errno.EPIPE:  # then the reader of a pipe left, and there is nothing more to say
            mend = "see to the disk that it is on" if error.errno == errno.EIO else "make room for it"
            complain(f"{error.strerror}: what this command writes cannot be written; {mend}, and run it again")
        sys.exit(Exit.FAILED)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        complain(sentence)
        sys.exit(Exit.FAILED if _is_passing(error) else Exit.USAGE)


def _sentence(error: Exception) -> str | None:
    """What to tell about an error that is foreseen; None for one that is not, and keeps its traceback."""
    for module, names in (
        ("manifests.errors", ("InputError",)),
        ("transfers.errors", ("TransferError",)),
        ("stager.database", ("DatabaseError",)),
        ("stager.intents", ("UnknownName",)),
        ("stager.queues.errors", ("QueueError",)),
        ("sqlalchemy.exc", ("OperationalError",)),
        ("sqlite3", ("DatabaseError",)),  # of `status`, which asks the driver itself
        ("psycopg", ("OperationalError",)),
    ):
        loaded = sys.modules.get(module)  # an error of a module that was never imported is not this one
        if loaded and isinstance(error, tuple(getattr(loaded, name) for name in names)):
            return str(getattr(error, "orig", None) or error).strip()
    return None


def _is_passing(error: Exception) -> bool:
    """Whether it is a failure of the world and not of what was asked: the service is then started again."""
    database = sys.modules.get("stager.database")
    if database and isinstance(error, database.DatabaseError):
        return error.__cause__ is not None  # it could not be opened; one that is too new has no cause
    return type(error).__module__.startswith(("transfers.", "sqlalchemy.", "psycopg", "sqlite3"))


if __name__ == "__main__":
    main()
