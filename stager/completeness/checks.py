"""What `stager registry check` finds out: how complete visits are, what was found in headers, what a registry lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stager import findings
from stager.completeness import by_visit, registry_rows
from stager.completeness.auditing import Audit
from stager.completeness.by_visit import Visit
from stager.database import Database
from stager.findings import Found


@dataclass(frozen=True, slots=True)
class Check:
    """`visits` and `findings` of the datasets that were asked for; `registry`: one that was held against them."""

    visits: list[Visit]
    findings: list[Found]
    registry: Audit | None = None

    @property
    def empty(self) -> bool:
        """Whether there was nothing to look at, so that nothing can be said to be well."""
        return not self.visits and self.registry is None

    @property
    def well(self) -> bool:
        """Whether every visit is whole, none is a stray, nothing worse than a note was found, and the registry is
        sound."""
        sound = self.registry is None or self.registry.sound
        return not self.empty and not self.findings and sound and all(visit.whole for visit in self.visits)

    def as_dict(self) -> dict[str, Any]:
        said: dict[str, Any] = {"visits": [visit.as_dict() for visit in self.visits]}
        said["findings"] = [asdict(one) for one in self.findings]
        return said | ({"registry": self.registry.as_dict()} if self.registry else {})


def check(
    database: Database,
    dataset: str | None = None,
    registry: Path | None = None,
    camera: str | None = None,
    folders: Sequence[Path] = (),
) -> Check:
    """The visits and findings of a dataset (or of a manifest's), or of all; with a registry and no dataset the registry
    alone. `camera` is whose registry it is, where its columns do not tell.

    Raises UnknownName for a name that nobody submitted, InputError for a file that is no registry of that camera.
    """
    named = by_visit.dataset_named(database, dataset) if dataset is not None else None
    audit = registry_rows.audit(database, registry, camera, named, folders) if registry is not None else None
    if named is None and audit is not None:
        return Check([], [], audit)
    return Check(by_visit.completeness(database, named, folders), findings.findings(database, named), audit)
