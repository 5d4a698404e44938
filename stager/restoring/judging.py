"""Whether all that restore manifests name is in place, proven, registered and complete; if not, what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from manifests.cameras import Camera, load
from manifests.errors import CameraError, shown
from manifests.manifest import Manifest
from stager import inspecting
from stager.completeness import by_visit
from stager.completeness.by_visit import Visit
from stager.counts import counted
from stager.database import Database, id_of
from stager.drawing import size
from stager.durations import duration
from stager.items import EVICTED, RECALL
from stager.models import Intent, decode_path
from stager.recalls import telling
from stager.restoring import proving, standing
from stager.restoring.amounts import Amount
from stager.restoring.asked import Asked
from stager.restoring.planning import Plan
from stager.restoring.proving import Proof, Since
from stager.restoring.standing import Standing
from transfers.errors import shown as printable

DONE, FAILED, INCOMPLETE = 0, 1, 3  # exit codes, as those of all commands
STATES = ("done", "running", "waiting", "held", "missing", "excluded")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that is not as it should be: where, how it stands, why."""

    location: str
    state: str
    reason: str

    def __str__(self) -> str:
        place = printable(self.location)
        why = self.reason.removeprefix(f"{place}: ")  # an error names its place itself
        return f"{self.state}: {place}{f': {why}' if why else ''}"


@dataclass(slots=True)
class Judged:
    """One manifest: files by the state of their items, those that are not as they should be, what its visits lack in
    sentences, and what else is wrong (`problems`) or only worth a word (`remarks`)."""

    name: str
    revision: int | None = None
    standing: Standing = field(default_factory=Standing)
    entries: list[Entry] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all of it is in place and proven. What has no file at all is not."""
        done, total = self.standing.of("done"), self.standing.total
        return 0 < done.files == total.files and not self.entries and not self.problems

    def sentence(self) -> str:
        done, total = self.standing.of("done"), self.standing.total
        if self.holds:
            every = "its 1 file is" if done.files == 1 else f"all {done.files} files are"
            return f"{every} in place and proven, {size(done.bytes)}"
        counts = [
            f"{self.standing.of(state).files} {state}"
            for state in ("running", "waiting", "held", "missing")
            if self.standing.of(state).files
        ]
        what = f" ({', '.join(counts)})" if counts else ""
        if done.files == total.files:  # and what is wrong is not in these numbers, such as what the source lost
            return f"{counted(done.files, 'file')} in place, {size(done.bytes)}, but:"
        return f"{done.files} of {counted(total.files, 'file')} in place, {size(done.bytes)}{what}"

    def as_dict(self) -> dict[str, Any]:
        every = self.standing
        return {
            "name": self.name,
            "revision": self.revision,
            "holds": self.holds,
            "percent": every.percent if every.total.files else 0.0,
            "files": {"total": every.total.files} | {name: every.of(name).files for name in STATES},
            "bytes": {"total": every.total.bytes} | {name: every.of(name).bytes for name in STATES},
            "entries": [asdict(one) for one in self.entries],
            "lacking": self.lacking,
            "problems": self.problems,
            "remarks": self.remarks,
        }


@dataclass(slots=True)
class Verdict:
    """What a restore came to. `ended`: why it ended before it was settled, None where it was; `problems` are of all
    manifests together, `proof` is what was proven again, `brought` what came in this run."""

    manifests: list[Judged]
    problems: list[str] = field(default_factory=list)
    ended: str | None = None
    proof: Proof = field(default_factory=Proof)
    brought: Amount = field(default_factory=Amount)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return bool(self.manifests) and not self.problems and all(one.holds for one in self.manifests)

    @property
    def code(self) -> int:
        """The exit code: 3 only where time, or a signal, ended what could have gone on."""
        if self.holds:
            return DONE
        return INCOMPLETE if self.ended else FAILED

    @property
    def standing(self) -> Standing:
        """All manifests together."""
        together = Standing()
        for one in self.manifests:
            for state, amount in one.standing.states.items():
                together.states[state] = together.of(state) + amount
        return together

    def sentence(self) -> str:
        every = self.standing
        done, total = every.of("done"), every.total
        again = f", {self.proof.read.files} read again" if self.proof.read.files else ""
        looked = f", {self.proof.looked.files} looked at" if self.proof.looked.files else ""
        did = f"{self.brought.files} brought{again}{looked}, in {duration(self.seconds)}"
        if self.holds:
            return f"everything is in place and proven: {counted(done.files, 'file')}, {size(done.bytes)}; {did}"
        if not total.files:  # no host could be asked, or there is nothing: the problems say so
            again = "; run again, it goes on where it stopped" if self.ended else ""
            how = self.ended.rstrip(",") if self.ended else "NOT everything is in place and proven"
            return f"{how}; {did}{again}"
        are = "is" if total.files == 1 else "are"
        far = (
            f"{done.files} of {counted(total.files, 'file')}, {size(done.bytes)} of {size(total.bytes)}, {are} in place"
        )
        if self.ended:
            return f"{self.ended} at {every.percent:.1f} %: {far}; {did}; run again, it goes on where it stopped"
        if done.files == total.files:  # what is wrong is not in these numbers
            far = f"{counted(done.files, 'file')}, {size(done.bytes)}, {are} in place, but see above"
        return f"NOT everything is in place and proven: {far}; {did}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "holds": self.holds,
            "ended": self.ended,
            "seconds": round(self.seconds, 3),
            "brought": asdict(self.brought),
            "proof": asdict(self.proof),
            "manifests": [one.as_dict() for one in self.manifests],
            "problems": self.problems,
            "said": self.sentence(),
        }


def not_begun(plan: Plan, why: Sequence[str]) -> Judged:
    """The verdict on a manifest of which nothing was begun: how it was seen to stand, and why."""
    judged = Judged(plan.name, problems=[*plan.problems, *why])
    judged.standing.states = {
        "done": plan.in_place,
        "waiting": plan.there + plan.to_come,
        "held": Amount(plan.in_the_way.files),
        "missing": Amount(plan.missing.files),
        "excluded": Amount(plan.excluded),
    }
    return judged


def not_seen(asked: Asked) -> Judged:
    """The verdict on a manifest that there was no time to look at."""
    return Judged(asked.manifest.name, problems=["there was no time to see how it stands"])


def brought(database: Database, ids: Sequence[int], since: Since) -> Amount:
    """What came in this run."""
    query = sa.text("""
        SELECT count(*), COALESCE(sum(bytes), 0) FROM attempts
        WHERE manifest_id IN :ids AND outcome = 'done' AND ended_at >= :run""")
    query = query.bindparams(sa.bindparam("ids", list(ids) or [0], expanding=True))
    with database.read() as connection:
        files, nbytes = connection.execute(query, {"run": since.run}).one()
    return Amount(int(files), int(nbytes))


def judge(
    database: Database, number: int, manifest: Manifest, since: Since, folders: Sequence[Path], *, whole: bool
) -> Judged:
    """How a revision of a manifest stands at the end. `whole`: it is not narrowed, so that what its visits lack is told
    of; `folders` are where cameras of one's own lie."""
    judged = Judged(manifest.name)
    with database.read() as connection:
        query = sa.text("SELECT revision, intent FROM manifests WHERE id = :id")
        judged.revision, intent = connection.execute(query, {"id": number}).one()
        for state, amount in standing.tallied(connection, [number]).get(number, {}).items():
            judged.standing.states[state] = amount
    if intent != Intent.ACTIVE:
        judged.problems.append(_not_active(manifest.name, judged.revision or 0, intent))
    judged.entries += _troubled(database, number, manifest)
    judged.entries += [Entry(location, "unproven", why) for location, why in proving.unproven(database, number, since)]
    camera = _camera(manifest, folders, judged)
    if camera is not None:
        unlisted = unregistered(database, number, manifest, camera)
        why = "it is in place, and the registry has no image of it"
        judged.entries += [Entry(f"{manifest.destination.host}:{path}", "no image", why) for _, path in unlisted]
        if whole:
            _by_visit(database, number, manifest, folders, judged)
    _conclude(judged)
    return judged


def _not_active(name: str, revision: int, intent: str) -> str:
    if intent == Intent.SUPERSEDED:
        return f"another revision took the place of revision {revision} meanwhile; run it again"
    return f"it is {intent} by an operator: `stager release {name}` lets it go on"


def _conclude(judged: Judged) -> None:
    every = judged.standing
    if not every.total.files:
        excluded = every.of("excluded").files
        files = "its 1 file is" if excluded == 1 else f"all {excluded} of its files are"
        left_out = f": {files} left out" if excluded else ""
        judged.problems.append(f"it has no file to restore{left_out}")
    if every.open.files:
        have = "has" if every.open.files == 1 else "have"
        judged.problems.append(f"{counted(every.open.files, 'file')}, {size(every.open.bytes)}, {have} not come yet")


def _troubled(database: Database, number: int, manifest: Manifest) -> Iterator[Entry]:
    """What is at its end and not in place, and what is on its way and has met with trouble."""
    query = sa.text(f"""
        SELECT CASE WHEN i.missing THEN 'missing' WHEN i.kind = '{EVICTED}' THEN '{EVICTED}' ELSE i.state END,
               i.source, i.destination, i.reason, r.state, r.asks, r.reason
        FROM items i
        LEFT JOIN (SELECT id, state, asks, {telling.said(database.now)} AS reason FROM recalls) AS r
            ON r.id = i.recall_id AND i.kind = '{RECALL}'
        WHERE i.manifest_id = :manifest AND (
            i.missing OR i.state = 'held' OR (i.state IN ('waiting', 'running') AND i.reason IS NOT NULL)
            OR (i.state = 'excluded' AND i.kind = '{EVICTED}'))
        ORDER BY i.state = 'held' DESC, i.id""")
    with database.read() as connection:
        for state, source, destination, reason, *recall in connection.execute(query, {"manifest": number}):
            at_source = state == "missing" or destination is None
            location = manifest.source.host if at_source else manifest.destination.host
            why = telling.trouble(*recall) if recall[0] else ""
            said = "; ".join(filter(None, (reason, why)))
            yield Entry(f"{location}:{decode_path(source if at_source else destination)}", state, said)


def _camera(manifest: Manifest, folders: Sequence[Path], judged: Judged) -> Camera | None:
    if manifest.camera is None:
        return None
    try:
        return load(manifest.camera, folders)
    except CameraError as error:
        judged.problems.append(f"its registry and its visits cannot be checked: {error}")
        return None


def unregistered(database: Database, number: int, manifest: Manifest, camera: Camera) -> Iterator[tuple[int, str]]:
    """(item, path) of each image of a layout of the camera's that is in place, and is not in the registry."""
    if manifest.check == "none":  # nobody looked into their headers
        return
    query = sa.text("""
        SELECT i.id, i.source, i.destination FROM items i JOIN manifests m ON m.id = i.manifest_id
        WHERE i.manifest_id = :manifest AND i.state = 'done' AND NOT EXISTS (
            SELECT 1 FROM images g WHERE g.host = m.destination_host AND g.path = i.destination)
        ORDER BY i.id""")
    with database.read() as connection:
        for item, source, destination in connection.execute(query, {"manifest": number}):
            path = decode_path(destination)
            if inspecting.is_fits(decode_path(source)) and camera.identify(path) is not None:
                yield item, path


def _by_visit(database: Database, number: int, manifest: Manifest, folders: Sequence[Path], judged: Judged) -> None:
    """Tell what the visits of a manifest lack, and what else is odd about them."""
    with database.read() as connection:
        query = sa.text(f"""
            SELECT {id_of(connection, "visit")} AS visit, max(CASE WHEN i.missing THEN 1 ELSE 0 END) FROM items i
            WHERE i.manifest_id = :manifest GROUP BY 1""")
        lacks = {row[0]: bool(row[1]) for row in connection.execute(query, {"manifest": number})}
    for visit in by_visit.completeness(database, manifest.dataset, folders):
        if visit.host != manifest.destination.host or visit.visit not in lacks:
            continue
        if lacks[visit.visit] and visit.lacking:
            judged.lacking.append(f"{_named(visit)}: {'; '.join(visit.lacking)}")
        judged.remarks += _odd(visit)


def _odd(visit: Visit) -> Iterator[str]:
    """What is worth a word about a visit of which nothing is missing that was asked for."""
    if "stray" in visit.flags:
        yield f"{_named(visit)} is a stray: no manifest of the dataset expects it"
    if "partial" in visit.flags:
        full = f" of the {visit.full} of a whole one" if visit.full else ""
        yield f"{_named(visit)} has {counted(visit.found, 'file')}{full}; no manifest says with `expect` which"
    if visit.findings:
        yield f"{_named(visit)}: findings in {counted(visit.findings, 'file')}; `stager registry check` has them"


def _named(visit: Visit) -> str:
    return "no visit" if visit.visit is None else f"visit {shown(visit.visit, 40)}"
