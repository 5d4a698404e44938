"""Verified copies over SSH, up and down, against what people use instead: on loopback, and 50 ms away.

The server is a real sshd with its default settings; all come with the same key. Ours hash, sync, drop from the cache
and read back what lands, and every one of their receipts must say so.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Literal, NamedTuple

from benchmarks import ours, peers
from benchmarks.places import Place, Unavailable
from benchmarks.results import Figure, Goal, ratio, time_of
from benchmarks.rounds import Contender, Rounds, in_step, in_words
from benchmarks.sets import Far, Set, Work, reached

Depth = Literal["brief", "usual", "whole"]
Figures = Generator[Figure, None, list[str]]  # returns what could not be measured, and why

LARGE = Set(3, 256 << 20, "256 MB", grows=True)
SMALL = Set(4000, 256 << 10, "256 KB")
FEWER = Set(400, 256 << 10, "256 KB")  # a tenth of them
ONE = Set(1, 768 << 20, "768 MB", grows=True)
ROUND_TRIP_S = 0.050

RSYNC, RSYNC_FSYNC, SCP = "rsync -a", "rsync -a --fsync", "scp -r"
RCLONE, PARAMIKO = "rclone copy", "paramiko, one file at a time"
RUN, OPENSSH = "stager run", "copying.copy over OpenSSH"
CHANNEL, SFTP = "copying.copy over paramiko", "copying.copy over SFTP alone"
IN_BRIEF = (RSYNC, RUN, OPENSSH, RCLONE)
CPU_OF_ALL = (RUN, OPENSSH, CHANNEL, SFTP, RSYNC, RSYNC_FSYNC)

AS_RSYNC = Goal(1.0)
AWAY_TO_RSYNC = Goal(0.25)
TO_RCLONE = Goal(1 / 20)  # of the small files
PART = 20  # a twentieth of the small files, in the distance, for those who take minutes for all


class Asked(NamedTuple):
    """What is to be measured. `only`: ways that this is found in, as the table has them.

    brief: those that goals are about, twice, in the distance once, and rclone with a part of the small files there.
    usual: everybody; in the distance the slow ones once, and the slowest with a part. whole: these with all files too.
    """

    depth: Depth = "usual"
    only: re.Pattern[str] | None = None

    def wants(self, what: str) -> bool:
        return self.only is None or bool(self.only.search(what))


def loopback(place: Place, asked: Asked = Asked()) -> Iterator[Figure]:  # noqa: B008  it cannot be changed
    """Both sets on this machine alone, then the memory of `stager run`."""
    with reached(place.folder / "sshd") as far:
        bench = Bench(place, asked, far, "verified copy over SSH, loopback")
        problems = yield from bench.sets(LARGE, SMALL)
        problems += yield from bench.memory()
    _tell(problems)


def distant(place: Place, asked: Asked = Asked()) -> Iterator[Figure]:  # noqa: B008
    """Both sets and one large file, with a round trip of 50 ms. In brief without the set that has no goal there."""
    with reached(place.folder / "sshd", ROUND_TRIP_S) as far:
        subject = f"verified copy over SSH, round trip {ROUND_TRIP_S * 1000:.0f} ms"
        bench = Bench(place, asked, far, subject, away=True)
        problems = yield from bench.sets(ONE, SMALL, *(() if bench.brief else (LARGE,)))
    _tell(problems)


def _tell(problems: list[str]) -> None:
    """Unavailable, only after all that could be measured was yielded."""
    if problems:
        raise Unavailable("\n  ".join(["some of it", *problems]))


class Bench(NamedTuple):
    """Sets brought to and from one far host."""

    place: Place
    asked: Asked
    far: Far
    subject: str
    away: bool = False

    @property
    def brief(self) -> bool:
        return self.asked.depth == "brief"

    @property
    def runs(self) -> int:
        return min(self.place.runs, 1 if self.away else 2) if self.brief else self.place.runs

    def sets(self, *sets: Set) -> Figures:
        """Every way of every set, up and down."""
        problems: list[str] = []
        for one in sets:
            made: Work | None = None
            for up in (True, False):
                chosen = [
                    way for way in self._ways(one) if self.asked.wants(f"{one.title(self.place, up)}: {way.name}")
                ]
                if not chosen:
                    continue
                made = made or one.made(self.place, self.far)
                rounds = Rounds(made.going(up), self.subject)
                rounds.measure(chosen, self.runs)
                yield from self._figures(one, rounds, chosen)
                problems += rounds.problems
        return problems

    def _ways(self, of: Set) -> list[Contender]:
        """Who takes part, how often, and with how many of the files."""
        once = 1 if self.away else None
        few = max(2, of.counted(self.place) // PART) if self.away and of.small else None
        slowest = None if self.asked.depth == "whole" else few
        everybody = [
            Contender(RSYNC, peers.rsync),
            Contender(RUN, ours.run, ours.prepare_site, ours.check_run),
            Contender(OPENSSH, ours.over_openssh),
            Contender(CHANNEL, ours.over_paramiko),
            Contender(SFTP, ours.over_sftp, runs=once, files=slowest),
            Contender(RSYNC_FSYNC, peers.rsync_fsync, runs=once),
            Contender(SCP, peers.scp, runs=once, files=slowest),
            Contender(RCLONE, peers.rclone, peers.know_far_side, runs=once, files=few if self.brief else None),
            Contender(PARAMIKO, peers.paramiko_one_by_one, runs=once, files=slowest),
        ]
        return [one for one in everybody if not self.brief or one.name in IN_BRIEF]

    def _figures(self, of: Set, rounds: Rounds, ways: list[Contender]) -> Iterator[Figure]:
        title = rounds.work.title
        notes = {way.name: way.note(rounds.work, self.runs) for way in ways}
        for name, runs in rounds.runs.items():
            yield time_of(self.subject, f"{title}: {name}{notes[name]}", [run.taken for run in runs])
        for name, runs in rounds.runs.items():
            if name in CPU_OF_ALL and all(run.busy_s for run in runs):
                busy = tuple(run.busy_s for run in runs)
                yield Figure(self.subject, f"{title}: {name}{notes[name]}, CPU of the whole machine", "s", busy)
        for mine in (RUN, OPENSSH):
            for other, goal in self._goals(of):
                if mine in rounds.runs and other in rounds.runs:
                    taken, to = in_step(rounds.runs[mine], rounds.runs[other])
                    yield ratio(self.subject, f"{title}: {mine} / {other}{notes[other]}", taken, to, goal)

    def _goals(self, of: Set) -> Iterator[tuple[str, Goal | None]]:
        """Against whom, and what is wanted. In the distance, one large file and many small ones have a goal."""
        away = AWAY_TO_RSYNC if of.small or of.count == 1 else None
        yield RSYNC, away if self.away else AS_RSYNC
        yield RSYNC_FSYNC, None
        yield RCLONE, TO_RCLONE if of.small else None

    def memory(self) -> Figures:
        """The peak of `stager run`, for each set and for ten times fewer of the small files."""
        problems: list[str] = []
        for up in (True, False):
            peaks: dict[Set, float] = {}
            for one in (LARGE, FEWER, SMALL):
                what = f"{one.title(self.place, up)}: {RUN}, peak memory"
                if not self.asked.wants(what):
                    continue
                work = one.made(self.place, self.far).going(up)
                try:
                    work.prepare()
                    ours.prepare_site(work)
                    peaks[one] = ours.peak_of_run(work) / 1e6
                    work.check()
                except Exception as error:  # noqa: BLE001  as in Rounds
                    problems.append(f"{self.subject}, {what}: {in_words(error)}")
                    continue
                yield Figure(self.subject, what, "MB", (peaks[one],))
            if SMALL in peaks and FEWER in peaks:
                what = f"{'up' if up else 'down'}: {RUN}, peak memory, ten times the files"
                yield Figure(self.subject, what, "x", (peaks[SMALL] / peaks[FEWER],))
        return problems
