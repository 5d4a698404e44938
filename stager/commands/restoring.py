"""The command `restore`: the gate before a production run."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from stager.commands.common import (
    ConfigOption,
    Exit,
    JsonOption,
    a_number,
    complain,
    opened,
    opened_hosts,
    print_json,
    say,
)
from stager.commands.submitting import Files

if TYPE_CHECKING:
    from stager.config import Config
    from stager.database import Database
    from stager.opening import Hosts
    from stager.restoring.asked import Asked, Choice
    from stager.restoring.gate import Gate
    from stager.restoring.judging import Verdict


def restore(
    files: Files,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what is there, what must come, the room, the time; and do nothing."),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GLOB", help="Only files of this name, or with a / of this end of their path."),
    ] = None,
    visit: Annotated[
        list[str] | None, typer.Option("--visit", metavar="VISIT", help="Only files of this visit.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, callback=a_number, metavar="SECONDS", help="How long it may take."),
    ] = None,
    trust_within: Annotated[
        float,
        typer.Option(
            "--trust-within",
            min=0,
            callback=a_number,
            metavar="SECONDS",
            help="What was proven so lately is looked at, and not read again.",
        ),
    ] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing on the way, only what came of it.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """The gate before a production run: bring everything that restore manifests name to its place, and prove it.

    Run again it does only what is missing. Exit status: 0 only when everything is in place and proven, registered and
    complete; 1 when something is not, with the list; 2 for a bad manifest or bad usage; 3 when the time ran out, or it
    was stopped. With --dry-run 0 when nothing stands in its way.
    """
    from rich.console import Console

    from stager.restoring import asked, gate, planning, progress, telling
    from stager.restoring.asked import Choice
    from stager.restoring.watch import Watch

    begun = time.monotonic()
    chosen = Choice(tuple(only or ()), tuple(visit or ()))
    whole = asked.read(files)
    _check(whole, chosen)
    unchosen = partial(_end_unchosen, begun, as_json=as_json, dry_run=dry_run)
    cut_off = _CutOff(whole, begun, dry_run, as_json)
    with (
        Watch(timeout, cut_off, lambda: cut_off.run is None),
        opened(config) as (read, database),
        opened_hosts(read, database, marks=not dry_run) as hosts,
        _narrowed(database, read, hosts, whole, chosen, unchosen) as asked_for,
    ):
        plans = planning.plan(database, read, hosts, asked_for)
        if not as_json and not (quiet and not dry_run):
            _say_all(telling.plan_lines(plans))
        if dry_run:
            code = Exit.FAILED if plans.problems else Exit.DONE
            if as_json:
                print_json({"dry_run": True, "code": int(code), **telling.plans_as_dict(plans)})
            raise typer.Exit(code)
        limits = gate.Limits(timeout, trust_within, narrowed=bool(chosen))
        with progress.shown_on(Console(stderr=True, highlight=False, emoji=False), quiet=quiet) as drawn:
            run = gate.Gate(database, read, hosts, limits, _nothing if quiet or as_json else say, drawn, begun)
            cut_off.asked_for, cut_off.drawn, cut_off.run = asked_for, drawn, run
            verdict = run.run(asked_for, plans)
    _say_verdict(verdict, as_json=as_json)
    if run.hung:  # an ordinary exit would wait for a thread that hangs in the kernel for ever
        _leave(verdict.code or Exit.FAILED)
    raise typer.Exit(verdict.code)


@dataclass(slots=True)
class _CutOff:
    """Called with why, by the watch, where a restore does not end by itself: says what it came to, and ends the
    process. `run`, with what it was asked for and what draws it, is there once anything was begun."""

    whole: Sequence[Asked]
    begun: float
    dry_run: bool
    as_json: bool
    run: Gate | None = None
    asked_for: Sequence[Asked] = ()
    drawn: AbstractContextManager[object] | None = None

    def __call__(self, why: str) -> None:
        if self.run is not None and self.run.ending:
            return
        try:
            if self.drawn is not None:
                self.drawn.__exit__(None, None, None)
            if self.dry_run:
                _say_plans_cut_off(why, self.whole, as_json=self.as_json)
            else:
                _say_verdict(self._verdict(why), as_json=self.as_json)
        finally:
            _leave(Exit.INCOMPLETE)

    def _verdict(self, why: str) -> Verdict:
        from stager.restoring import judging

        if self.run is not None:
            return self.run.cut_off(self.asked_for, why)
        unseen = [judging.not_seen(one) for one in self.whole]
        return judging.Verdict(unseen, [], why, seconds=time.monotonic() - self.begun)


def _check(whole: Sequence[Asked], chosen: Choice) -> None:
    """End with a usage error where files are chosen in a way that cannot be understood."""
    from stager.restoring.asked import cannot_choose

    chosen.parts()  # raises PatternError for a glob that cannot be read
    for one in whole:
        if why := cannot_choose(one.manifest, chosen):
            complain(f"{one.where}: --visit: {why}")
            raise typer.Exit(Exit.USAGE)


@contextmanager
def _narrowed(
    database: Database,
    config: Config,
    hosts: Hosts,
    whole: Sequence[Asked],
    chosen: Choice,
    unchosen: Callable[[str], NoReturn],
) -> Iterator[Sequence[Asked]]:
    """The manifests, narrowed to what was chosen; before a host is asked each is seen to fit the configuration.
    `unchosen` ends it, and is told why, where nothing is chosen or a store cannot be listed."""
    from stager.restoring.asked import NothingChosen, narrow
    from stager.submitting import checked
    from transfers.errors import TransferError

    for one in whole:
        checked(config, one.manifest, one.where)
    if not chosen:
        yield whole
        return
    with tempfile.TemporaryDirectory(prefix="stager-") as folder:
        try:
            narrowed = narrow(database, config, hosts, whole, chosen, Path(folder))
        except (NothingChosen, TransferError) as error:
            unchosen(str(error))
        yield narrowed


def _end_unchosen(begun: float, problem: str, *, as_json: bool, dry_run: bool) -> NoReturn:
    """End with what is said of a restore of which no file could be chosen."""
    from stager.restoring import telling
    from stager.restoring.judging import Verdict
    from stager.restoring.planning import Plans

    complain(problem)
    if as_json and dry_run:
        plans = telling.plans_as_dict(Plans([])) | {"problems": [problem]}
        print_json({"dry_run": True, "code": int(Exit.FAILED), **plans})
    elif as_json:
        print_json({"dry_run": False, **Verdict([], [problem], seconds=time.monotonic() - begun).as_dict()})
    raise typer.Exit(Exit.FAILED)


def _say_plans_cut_off(why: str, whole: Sequence[Asked], *, as_json: bool) -> None:
    """Say of a dry run that it did not come to its end."""
    from stager.restoring import judging, telling
    from stager.restoring.planning import Plans

    problems = [f"{one.name}: {problem}" for one in map(judging.not_seen, whole) for problem in one.problems]
    if as_json:
        plans = telling.plans_as_dict(Plans([])) | {"problems": [*problems, why]}
        print_json({"dry_run": True, "code": int(Exit.INCOMPLETE), **plans})
    else:
        _say_all([*problems, why])


def _say_verdict(verdict: Verdict, *, as_json: bool) -> None:
    from stager.restoring import telling

    if as_json:
        print_json({"dry_run": False, **verdict.as_dict()})
    else:
        _say_all(telling.verdict_lines(verdict))


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _nothing(line: str) -> None:
    """Say nothing."""


def _leave(code: int) -> NoReturn:
    """End the process as it is."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
