"""From an error to a decision. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stager.models import ItemState
from transfers.errors import TransferError

FIRST_DELAY_S = 1.0
MOST_DELAY_S = 3600.0
MOST_TRIES = 8
WAIT_S = {"host down": 30.0, "no space": 30.0, "read-only": 30.0, "congested": 5.0}  # these wait, and use up no try
MEMBER = (
    "a bundle comes and goes as one: a file takes the place of a member only in another bundle, by `replace` and a "
    "`below` above its size in the manifest"
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an item after a failed attempt."""

    state: ItemState
    delay_s: float = 0.0
    counts: bool = True  # whether the attempt uses up a try
    missing: bool = False
    released: bool = False  # nothing failed: the work was given back, as when the daemon stops
    size: int | None = None  # what the source holds now, where it changed
    mtime_ns: int | None = None
    advice: str | None = None  # what to do, where that is not what such an error advises


def decide(
    error: TransferError,
    tries: int,
    *,
    pinned: bool = False,
    guarded: bool = False,
    excused: bool = False,
    most: int = MOST_TRIES,
) -> Decision:
    """What to do next about an item that failed with `error` after `tries` failed tries before it.

    `pinned`: a list says which bytes the source must hold, so that a changed source is no new expectation.
    `guarded`: a whole host failed and its breaker is opened for it: the item is due at once when that closes; one for
    which a host had no room lets others go first, which may fit.
    `excused`: a connection broke off, and other items came: the item was only on its way, and uses up no try.
    What time may mend waits, ever longer; what it cannot is held for a person, at once.
    """
    if error.phase == "stopped":
        return Decision(ItemState.WAITING, counts=False, released=True)
    if guarded:
        return Decision(ItemState.WAITING, WAIT_S[error.kind] if error.kind == "no space" else 0.0, counts=False)
    if excused:
        return Decision(ItemState.WAITING, FIRST_DELAY_S, counts=False)
    if error.kind in WAIT_S:
        return Decision(ItemState.WAITING, WAIT_S[error.kind], counts=False)
    if error.kind == "source missing":
        return Decision(ItemState.WAITING, 0.0, counts=False, missing=True)
    if error.kind in ("transient", "corrupted on the way", "source changed"):
        if tries + 1 >= most:
            count = "1 failed try" if tries == 0 else f"{tries + 1} failed tries"
            advice = f"given up after {count}; `stager retry` once the cause is mended"
            return Decision(ItemState.HELD, advice=advice)
        delay = min(MOST_DELAY_S, FIRST_DELAY_S * 2.0**tries)
        size, mtime_ns = _news(error) if error.kind == "source changed" and not pinned else (None, None)
        return Decision(ItemState.WAITING, delay, size=size, mtime_ns=mtime_ns)
    return Decision(ItemState.HELD, advice=MEMBER if error.kind == "conflict" and "lies_in" in error.facts else None)


def _news(error: TransferError) -> tuple[int | None, int | None]:
    return error.facts.get("size"), error.facts.get("mtime_ns")
