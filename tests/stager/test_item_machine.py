"""Any order of claims, results, lost leases and operators' intents keeps the invariants of the item table."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from stager import intents, items
from stager.items import Claimed
from stager.models import decode_path
from tests.stager.site import Site, done, failed, recount, tallies
from transfers.errors import Refused, SourceMissing, TransferError, Transient

NUMBERS = itertools.count(1)
ITEMS = [f"D1/raw/v{visit}-fr/s00/c00-a{amp}.fits" for visit in (1, 2, 3) for amp in (0, 1)]
GLOBS = st.sampled_from([None, "*", *ITEMS, "v1-fr/s00/*", "D1/raw/v2-fr/*"])
# What may go wrong, and the state that the item is left in.
ERRORS: dict[str, tuple[TransferError, str]] = {
    "host down": (Transient("reset", side="route"), "waiting"),
    "refused": (Refused("no", side="destination"), "held"),
    "missing": (SourceMissing("gone", side="source"), "missing"),
    "stopped": (Transient("stopping", side="local", phase="stopped"), "waiting"),
}
OPEN = ("waiting", "held")


class Items(RuleBasedStateMachine):
    """The oracle: states, epochs, the operator's intent and the triggers as plain Python."""

    site: Site
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.name = f"m{next(NUMBERS)}"
        for table in ("triggers", "attempts", "copies", "items", "groups", "tallies", "manifests"):
            self.site.change(f"DELETE FROM {table}")  # what the example before this one left
        self.site.submit(
            self.name,
            source="a:D1/raw/**",
            destination=f"b:{self.name}",
            camera="cfht_megacam",
            trigger={"queue": "pipeline", "per": ["visit"]},
        )
        self.manifest = self.site.value("SELECT id FROM manifests WHERE name = :name", name=self.name)
        self.state = dict.fromkeys(ITEMS, "waiting")
        self.epoch = dict.fromkeys(ITEMS, 0)
        self.expires: set[str] = set()
        self.intent = "active"
        self.triggered: set[str] = set()

    # ------------------------------------------------------------------------------------ workers

    @rule(target=leases, most=st.integers(1, 4), expired=st.booleans())
    def claim(self, most: int, expired: bool) -> object:
        claimed = self.site.claim(self.manifest, most=most, lease_s=-1 if expired else 60)
        waiting = sum(state == "waiting" for state in self.state.values())
        assert len(claimed) == (min(most, waiting) if self.intent == "active" else 0)
        for item in claimed:
            assert self.state[item.source] == "waiting"
            self.state[item.source] = "running"
            self.epoch[item.source] += 1
            assert item.epoch == self.epoch[item.source]
            self.expires = self.expires | {item.source} if expired else self.expires - {item.source}
        return multiple(*claimed)

    def holds(self, lease: Claimed) -> bool:
        return self.state[lease.source] == "running" and self.epoch[lease.source] == lease.epoch

    @rule(lease=consumes(leases), again=st.booleans())
    def prove(self, lease: Claimed, again: bool) -> None:
        held = self.holds(lease)
        written = self.site.finish(done(lease))
        assert (written.done, written.lost) == ((1, []) if held else (0, [lease.id]))
        if held:
            self.state[lease.source] = "done"
        self.trigger()
        if again:  # a worker that did not hear the answer
            assert self.site.finish(done(lease)).lost == [lease.id]

    @rule(lease=consumes(leases), what=st.sampled_from(sorted(ERRORS)))
    def fail(self, lease: Claimed, what: str) -> None:
        error, state = ERRORS[what]
        held = self.holds(lease)
        finished = failed(lease, error)
        assert self.site.finish(finished).lost == ([] if held else [lease.id])
        if held:
            self.state[lease.source] = state
            self.site.change("UPDATE items SET not_before = 0 WHERE id = :id", id=lease.id)  # time passes

    @rule()
    def take_back(self) -> None:
        lost = {item for item in self.expires if self.state[item] == "running"}
        assert items.take_back(self.site.database) == len(lost)
        self.state.update(dict.fromkeys(lost, "waiting"))
        self.expires.clear()

    @rule()
    def renew(self) -> None:
        running = sum(state == "running" for state in self.state.values())
        assert items.renew(self.site.database, self.site.worker, 60) == running
        self.expires.clear()

    # ---------------------------------------------------------------------------------- operators

    def move(self, glob: str | None, states: tuple[str, ...], to: str) -> int:
        chosen = [item for item in ITEMS if self.state[item] in states and named(glob, item)]
        self.state.update(dict.fromkeys(chosen, to))
        return len(chosen)

    @rule(glob=GLOBS)
    def retry(self, glob: str | None) -> None:
        assert intents.retry(self.site.database, self.name, glob) == self.move(glob, OPEN, "waiting")

    @rule(glob=GLOBS)
    def hold(self, glob: str | None) -> None:
        count = intents.hold(self.site.database, self.name, glob)
        if glob is None:
            self.intent = "held"
        else:
            assert count == self.move(glob, ("waiting",), "held")

    @rule(glob=GLOBS)
    def release(self, glob: str | None) -> None:
        count = intents.release(self.site.database, self.name, glob)
        if glob is None:
            self.intent = "active"
        assert count == self.move(glob, ("held",), "waiting")
        self.trigger()

    @rule(glob=GLOBS)
    def cancel(self, glob: str | None) -> None:
        count = intents.cancel(self.site.database, self.name, glob)
        if glob is None:
            self.intent = "cancelled"
        else:
            assert count == self.move(glob, ("waiting", "held", "missing"), "excluded")
            self.trigger()

    # --------------------------------------------------------------------------------- invariants

    def trigger(self) -> None:
        """What should be triggered by now: groups that are whole, unless the manifest is given up."""
        if self.intent == "cancelled":
            return
        for visit in "123":
            states = {state for item, state in self.state.items() if f"/v{visit}-" in item}
            if "done" in states and states <= {"done", "excluded"}:
                self.triggered.add(f"visit={visit}")

    @invariant()
    def items_are_as_the_oracle_says(self) -> None:
        rows = self.site.rows(
            """SELECT source, CASE WHEN missing THEN 'missing' ELSE state END, epoch, worker, claimed_until
               FROM items WHERE manifest_id = :id""",
            id=self.manifest,
        )
        assert {decode_path(row[0]): row[1] for row in rows} == self.state
        assert {decode_path(row[0]): row[2] for row in rows} == self.epoch
        for _, state, _, worker, until in rows:
            assert (state == "running") == (worker is not None) == (until is not None)

    @invariant()
    def counts_equal_a_recount(self) -> None:
        kept = {key[1]: counts for key, counts in tallies(self.site.database).items() if key[0] == self.manifest}
        counted = {key[1]: counts for key, counts in recount(self.site.database).items() if key[0] == self.manifest}
        assert kept == counted
        assert {state: counts[0] for state, counts in kept.items()} == Counter(self.state.values())

    @invariant()
    def one_trigger_for_each_whole_group_and_no_other(self) -> None:
        rows = self.site.rows("SELECT group_label FROM triggers WHERE manifest_id = :id", id=self.manifest)
        assert sorted(row[0] for row in rows) == sorted(self.triggered)

    @invariant()
    def every_copy_is_of_an_item_that_is_done(self) -> None:
        copies = self.site.rows("SELECT path FROM copies WHERE path LIKE :below", below=f"{self.name}/%")
        assert len(copies) == sum(state == "done" for state in self.state.values())


def named(glob: str | None, item: str) -> bool:
    return glob in (None, "*", item) or (glob is not None and glob.endswith("/*") and glob[:-1] in item)


def test_any_order_of_work_and_intents_keeps_the_invariants(site: Site) -> None:
    site.files(*(f"a:{item}" for item in ITEMS))
    machine = type("ItemsHere", (Items,), {"site": site})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
