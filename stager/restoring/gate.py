"""Restores carried out to their end, as a gate: everything brought, proven where it lies, registered and complete.

All that is known is in the database, so that whatever ends this on its way, the next run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from manifests.cameras import load
from manifests.errors import ManifestError
from stager import rescanning, revising
from stager.config import Config
from stager.database import Database
from stager.opening import Hosts
from stager.restoring import bringing, judging, planning, proving, standing
from stager.restoring.asked import Asked
from stager.restoring.carrying import Carrying
from stager.restoring.judging import Judged, Verdict
from stager.restoring.planning import Plan, Plans
from stager.restoring.progress import Progress
from stager.restoring.proving import Proof, Prover, Since
from stager.restoring.standing import Standing
from stager.restoring.told import Told
from stager.restoring.watch import OUT_OF_TIME, STOPPED
from stager.submitting import submit
from transfers.errors import TransferError

ROUNDS = 3  # of bringing and proving: a disk that spoils what is brought each time is not tried for ever
PATIENCE_S = 60.0  # without a timeout: how long it is waited for what hinders all that is left to do
LOOK_S = 0.25  # between two looks at how it stands
AGAIN_S = 10.0  # between two tries to list a store that is down


@dataclass(frozen=True, slots=True)
class Limits:
    """How long it may take (None: as long as anything can come), and how old a proof may be for a look to be enough.
    `narrowed`: the manifests are parts of whole ones."""

    timeout_s: float | None = None
    trust_s: float = 0.0
    narrowed: bool = False


@dataclass(slots=True)
class _Taken:
    """A manifest that was submitted: its revision's number, and what its source was seen to lack."""

    asked: Asked
    number: int
    lacking: list[str]


@dataclass(slots=True)
class _Refused:
    """A manifest that could not be submitted: the verdict on it, and the host that is down, which time may mend."""

    asked: Asked
    judged: Judged
    down: TransferError | None = None


@dataclass(slots=True)
class Gate:
    """One run of a restore. `say` is told lines for people, `progress` how far it has come."""

    database: Database
    config: Config
    hosts: Hosts
    limits: Limits
    say: Callable[[str], None]
    progress: Progress
    begun: float = field(default_factory=time.monotonic)  # when the time that it may take began
    ending: bool = False  # what is under way gets its time to end, and the verdict is due
    hung: list[str] = field(default_factory=list)  # jobs that did not end, after `run`
    _since: Since = field(init=False)
    _taken: list[_Taken] = field(default_factory=list)
    _refused: list[_Refused] = field(default_factory=list)
    _hindered: list[str] = field(default_factory=list)
    _proof: Proof = field(default_factory=Proof)
    _unknown: list[str] = field(default_factory=list)  # why files could not be read when all was looked at last
    _looked_over: bool = False  # whether all that is in place was looked at once more at the end
    _ended: str | None = None
    _taken_at: float = field(default_factory=time.monotonic)  # when the last that could be submitted was carried out

    def __post_init__(self) -> None:
        self._since = proving.since(self.database, self.limits.trust_s)

    def run(self, asked: Sequence[Asked], plans: Plans) -> Verdict:
        """Carry out what was asked for, which `plans` looked at just now; what came of it. Nothing is begun where there
        is too little room."""
        problems = [problem for room in plans.rooms if (problem := room.problem())]
        if problems:
            why = ["nothing of it was begun, as there is too little room"]
            refused = [judging.not_begun(one, why) for one in plans.manifests]
            return Verdict(refused, problems, seconds=time.monotonic() - self.begun)
        with Carrying(self.database, self.config, self.hosts) as carrying:
            self._round(carrying, asked, plans)
            while (later := self._later()) and self._may_go_on(carrying):
                self._wait(carrying, later)
            self.ending = True
            self.hung = carrying.end()
            if carrying.interrupted:
                self._ended = STOPPED
        return self._verdict()

    def cut_off(self, asked: Sequence[Asked], why: str) -> Verdict:
        """What it came to by now, asked for by another thread, as `run` does not come to its end."""
        self._ended = why
        verdict = self._verdict()
        judged = {one.name for one in verdict.manifests}
        verdict.manifests += [judging.not_seen(one) for one in asked if one.manifest.name not in judged]
        return verdict

    # ------------------------------------------------------------------------------ submitting

    def _round(self, carrying: Carrying, asked: Sequence[Asked], plans: Plans) -> None:
        """Submit what can be, and carry it out."""
        taken = [new for one, plan in zip(asked, plans.manifests, strict=True) if (new := self._submit(one, plan))]
        self._taken += taken
        if taken:  # with those of before: what they have in place may have gone since
            self._carry(carrying, [one.number for one in self._taken])
            self._taken_at = time.monotonic()

    def _submit(self, asked: Asked, plan: Plan) -> _Taken | None:
        """The manifest's newest revision, as its source is now; None, and why is kept, where there is none."""
        if plan.down or not plan.files + plan.missing.files:
            self._refused.append(_Refused(asked, Judged(plan.name, problems=plan.problems), plan.down))
            return None
        try:
            submit(self.database, self.config, asked.manifest, asked.where, hosts=self.hosts)
        except (ManifestError, TransferError) as error:
            down = error if isinstance(error, TransferError) else None
            self._refused.append(_Refused(asked, Judged(plan.name, problems=[str(error)]), down))
            return None
        found = revising.latest(self.database, asked.manifest.name)
        assert found is not None  # it was submitted just now
        return _Taken(asked, found.id, plan.lacking)

    def _later(self) -> list[_Refused]:
        """Those whose hosts could not be used: worth another try while there is time, or patience."""
        if self.limits.timeout_s is None and time.monotonic() - self._taken_at >= PATIENCE_S:
            return []
        return [one for one in self._refused if one.down]

    def _wait(self, carrying: Carrying, later: Sequence[_Refused]) -> None:
        """Wait a little for hosts that are down, and try again what needs them."""
        self.progress.tell("waiting", 0.0, str(later[0].down))
        until = time.monotonic() + AGAIN_S
        while time.monotonic() < until and self._may_go_on(carrying):
            time.sleep(LOOK_S)
        if not self._may_go_on(carrying):
            return
        asked = [one.asked for one in later]
        plans = planning.plan(self.database, self.config, self.hosts, asked)
        self._refused = [one for one in self._refused if one not in later]
        if problems := [problem for room in plans.rooms if (problem := room.problem())]:
            for one, found in zip(asked, plans.manifests, strict=True):
                self._refused.append(_Refused(one, judging.not_begun(found, problems)))
            return
        self._round(carrying, asked, plans)

    def _may_go_on(self, carrying: Carrying) -> bool:
        """Whether neither time nor a signal nor a fault ends it; notes which does."""
        if carrying.interrupted:
            self._ended = STOPPED
        elif carrying.failed:
            self._ended = "its worker ended, the log says why,"
        elif self.limits.timeout_s is not None and time.monotonic() - self.begun >= self.limits.timeout_s:
            self._ended = OUT_OF_TIME
        return self._ended is None

    # -------------------------------------------------------------------------------- carrying out

    def _carry(self, carrying: Carrying, ids: Sequence[int]) -> None:
        """Bring what is missing and prove what is there, until nothing more can come."""
        if standing.look(self.database, ids).of("missing").files:
            rescanning.rescan(self.database, self.hosts)
        self._wake(ids)
        if not carrying.begin(ids):
            self.say(f"another process ({carrying.holder}) has the database and does the work; this one watches")
        self._looked_over = False
        told = Told(self.database, ids, self._since, self.progress)
        prover = Prover(self.database, self.hosts, self._since, told.proven)
        for _ in range(ROUNDS):
            self._prove(carrying, prover, ids)
            self._watch(carrying, ids, told)
            if not (self._ended or self._hindered):
                self._look_over(prover, carrying, ids)
            if self._ended or self._hindered or not prover.is_due(ids):
                return
            self._wake(ids)

    def _wake(self, ids: Sequence[int]) -> None:
        """Have tried again what was held, evicted or not registered."""
        bringing.wake(self.database, ids)
        for one in self._taken:
            if one.number in ids and one.asked.manifest.camera is not None:
                camera = load(one.asked.manifest.camera, self.config.camera_folders)
                lacking = judging.unregistered(self.database, one.number, one.asked.manifest, camera)
                bringing.wake_items(self.database, [item for item, _ in lacking])

    def _prove(self, carrying: Carrying, prover: Prover, ids: Sequence[int]) -> None:
        try:
            found = prover.prove(ids, lambda: not self._may_go_on(carrying))
        except TransferError as error:
            self._hindered.append(str(error))
            return
        for place in found.aside:
            self.say(f"corrupt, and set aside as {place}: it is brought again")
        self._proof += found

    def _look_over(self, prover: Prover, carrying: Carrying, ids: Sequence[int]) -> None:
        """See that all is there still, at the end: what came first may have come days ago."""
        try:
            self._unknown = prover.look_over(ids, lambda: not self._may_go_on(carrying))
        except TransferError as error:
            self._hindered.append(str(error))
        self._looked_over = self._ended is None

    def _watch(self, carrying: Carrying, ids: Sequence[int], told: Told) -> None:
        """Wait until nothing more can come by itself, or time or a signal ends it."""
        moved_at, last = time.monotonic(), None
        while self._may_go_on(carrying):
            carrying.step()
            stands = standing.look(self.database, ids, carrying.able)
            told.stands(stands, carrying.moved)
            if stands.is_settled:
                return
            signs = (stands.of("done"), stands.of("running"), carrying.moved)
            if stands.free or signs != last:
                moved_at, last = time.monotonic(), signs
            elif self._is_out_of_patience(stands, time.monotonic() - moved_at):
                return
            time.sleep(LOOK_S)

    def _is_out_of_patience(self, stands: Standing, still_s: float) -> bool:
        """Whether what hinders all that is left was waited for long enough; notes what it is."""
        if still_s < PATIENCE_S or (stands.hindered and self.limits.timeout_s is not None):
            return False
        self._hindered += stands.hindered
        return True

    # ------------------------------------------------------------------------------------- verdict

    def _verdict(self) -> Verdict:
        folders = self.config.camera_folders
        judged = []
        for one in self._taken:
            whole = not self.limits.narrowed
            found = judging.judge(self.database, one.number, one.asked.manifest, self._since, folders, whole=whole)
            found.problems += one.lacking
            judged.append(found)
        judged += [one.judged for one in self._refused]
        problems = [*self._hindered, *self._proof.stuck, *self._proof.unknown, *self._unknown]
        verdict = Verdict(judged, list(dict.fromkeys(problems)), self._ended, self._proof)
        if verdict.holds and not self._looked_over:
            verdict.problems.append("what is in place was not looked at once more at the end")
        verdict.seconds = time.monotonic() - self.begun
        verdict.brought = judging.brought(self.database, [one.number for one in self._taken], self._since)
        return verdict
