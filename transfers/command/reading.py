"""Reading a store that programs speak to: whole files are brought here, and read by the agent from there.

What was brought is kept for a while (see fetched.py), so that the members of a bundle cost one `get`. What was brought
and is not what was asked for is brought once more, so that damage on the way is told from damage on the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import groupby

from transfers.agent import (
    Agent,
    Fault,
    Frame,
    Hdu,
    Limits,
    Member,
    Place,
    Stop,
    Want,
    begun,
    expect,
    fault_of,
    never,
    path_of,
    place_fault,
    units_of,
)
from transfers.command.acts import Acts, listed_or_refused
from transfers.command.listing import Listed
from transfers.fetched import Fetched


class Reading:
    """One call's reading: what the store lists is asked once for each file, whatever is wanted of it."""

    def __init__(self, acts: Acts, fetched: Fetched, stop: Stop = never) -> None:
        self.acts = acts
        self.fetched = fetched
        self.agent = Agent(fetched.folder)
        self.stop = stop
        self.known: dict[str, Listed] = {}
        self.fresh: set[str] = set()  # files brought by this call, or to be

    def file(self, path: str) -> Listed:
        """What the store lists of a file. Fault where it is none."""
        if path not in self.known:
            self.known[path] = listed_or_refused(self.acts.listing.one(path, self.stop), path)
        return self.known[path]

    def here(self, file: Listed) -> AbstractContextManager[str]:
        """The place here of a file that is brought, or was: for a `with`."""

        def fetch(place: str) -> None:
            self.acts.get(file, place, self.stop)
            if file.mtime_ns is None:
                os.utime(place, ns=(0, 0))
            now = self.acts.listing.one(file.path, self.stop)
            if not isinstance(now, Listed) or now[:3] != file[:3]:
                facts = {"size": now.size, "mtime_ns": now.mtime_ns} if isinstance(now, Listed) else {}
                raise Fault("source changed", "it was changed while it was brought", file.path, facts=facts)

        version = f"{file.mtime_ns} {file.digest}"
        return self.fetched.file(file.path, file.size, fetch, version=version)

    def anew(self, path: str) -> None:
        """Bring a file again for this call, whatever is kept of it from before."""
        if path not in self.fresh:
            self.fresh.add(path)
            self.fetched.forget(path)

    def relative(self, place: str) -> str:
        return os.path.relpath(place, self.fetched.folder)

    # Frames.

    def frames(self, wants: Iterable[Want]) -> Iterator[Frame]:
        for unit in units_of(wants):
            if len(unit) > 1:
                yield ("unit", len(unit))
            for source, run in groupby(unit, key=lambda want: want.source):
                yield from self.of_source(source, list(run))

    def of_source(self, source: str, wants: list[Want]) -> Iterator[Frame]:
        """The frames of wants of one file, brought once. One that does not expect what is listed has its fault before
        anything is brought, if all of them do not."""
        with ExitStack() as stack:
            try:
                file = self.file(source)
                self.worth_bringing(file, wants)
                place = stack.enter_context(self.here(file))
            except (OSError, Fault) as error:
                side = "local" if isinstance(error, OSError) else "source"
                for want in wants:
                    yield begun(want)
                    yield ("fault", fault_of(error, source, side, "open"))
                return
            yield from self.of_place(file, self.relative(place), wants)

    def worth_bringing(self, file: Listed, wants: list[Want]) -> None:
        """Fault "source changed" where the file is what none of the wants expects."""
        fault: Fault | None = None
        for want in wants:
            try:
                expect(want, file.path, file.size, file.mtime_ns or 0)
                return
            except Fault as unlike:
                fault = unlike
        assert fault is not None
        raise fault

    def of_place(self, file: Listed, place: str, wants: list[Want]) -> Iterator[Frame]:
        there = iter(wants)
        want = wants[0]
        for name, body in self.agent.read(want._replace(source=place) for want in wants):
            if name == "unit":
                continue
            if name == "file":
                want = next(there)
                if file.mtime_ns is None and not want.is_member:
                    body["mtime_ns"] = None
            if name == "fault":
                body.path = file.path
                self.explain(body, file, want)
            yield name, body

    def explain(self, fault: Fault, file: Listed, want: Want) -> None:
        """Bring a file again that is not what it should be: it may have been damaged on the way only."""
        if fault.kind != "source corrupt" or want.digest is None or "expected" not in fault.facts:
            return
        self.fetched.forget(file.path)
        offset, size = want.stretch or (0, file.size)
        try:
            with self.here(file) as place:
                member = Member(self.relative(place), offset, size, file.path)
                found = next(self.agent.digest([member], want.digest.partition(":")[0]))
        except (OSError, Fault) as error:
            fault.facts["brought_again"] = str(error)
            return
        if not isinstance(found, Fault) and found[2] == want.digest.lower():
            fault.kind = "corrupted on the way"
            fault.text = "what `get` brought did not have the digest expected of it; brought again, it has"

    # What is asked about places.

    def member(self, place: Place, stack: ExitStack) -> Member:
        """The place where what is asked about lies here, told by its own name; brought for as long as the stack is."""
        file = self.file(path_of(place))
        here = self.relative(stack.enter_context(self.here(file)))
        if isinstance(place, Member):
            return place._replace(path=here)
        return Member(here, 0, file.size, place)

    def digest(self, place: Place, algorithm: str, reread: bool) -> tuple[str, int, str] | Fault:
        try:
            if reread:
                self.anew(path_of(place))
            elif isinstance(place, str) and algorithm == self.acts.algorithm:
                file = self.file(place)
                return place, file.size, self.acts.own_digest(file, self.stop)
            with ExitStack() as stack:
                found = next(self.agent.digest([self.member(place, stack)], algorithm, stop=self.stop))
                return named(found, place) if isinstance(found, Fault) else found
        except (OSError, Fault) as error:
            return unbrought(error, place, "read")

    def headers(self, place: Place, limits: Limits) -> tuple[Hdu, ...] | Fault:
        try:
            with ExitStack() as stack:
                found = next(self.agent.headers([self.member(place, stack)], limits))
                return named(found, place) if isinstance(found, Fault) else found
        except (OSError, Fault) as error:
            return unbrought(error, place, "headers")


def named(fault: Fault, place: Place) -> Fault:
    """A fault of what lies here, told of where it lies on the store."""
    fault.facts.pop("lies_in", None)
    if not isinstance(place, str):
        fault.facts["lies_in"] = place.path
    return fault


def unbrought(error: OSError | Fault, place: Place, phase: str) -> Fault:
    if isinstance(error, OSError):
        return fault_of(error, path_of(place), "local", phase)
    return place_fault(error, place, phase)
