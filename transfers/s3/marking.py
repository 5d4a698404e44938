"""The marker of a root on an S3 store: the agent's rules."""

from __future__ import annotations

import uuid

from transfers.agent import MARKER, Fault, fault_of
from transfers.s3.errors import Missing
from transfers.s3.reading import Shelf, close


def read_marker(shelf: Shelf, known: bool) -> str | None:
    """The marker's text, None where there is none. A bucket that was there once and is not is a host that is down."""
    try:
        _, data = shelf.bucket.get(shelf.key(MARKER))
    except Missing:
        return None
    except Fault as fault:
        if known and fault.facts.get("code") == "NoSuchBucket":
            raise Fault("host down", "the store has the bucket no more", MARKER, phase="open") from fault
        raise fault_of(fault, MARKER, "destination", "open") from fault
    try:
        return bytes(next(data, b"")[:200]).decode("ascii", "backslashreplace").strip()
    finally:
        close(data)


def other_marker(marker: str, found: str | None) -> Fault:
    if found is None:
        text = "the root has no marker: the prefix is another one, or was emptied"
    else:
        text = f"the root has the marker {found} instead of {marker}: it is another file system"
    return Fault("host down", text, MARKER, phase="open", facts={"expected": marker, "found": found})


def made_marker(shelf: Shelf, derived: str) -> str:
    """Put a marker where none is, and take the one that is there by then; the derived one where the key may not."""
    try:
        shelf.bucket.put(shelf.key(MARKER), f"{uuid.uuid4()}\n".encode("ascii"), {})
    except Missing as fault:
        raise no_bucket() from fault
    except Fault as fault:
        if fault.facts.get("status") == 403:
            return derived
        if fault.kind != "conflict":
            raise fault_of(fault, MARKER, "destination", "open") from fault
    found = read_marker(shelf, known=True)
    if not found:
        raise Fault("transient", "the marker that was put there is not there", MARKER, "destination", "open")
    return found


def see_bucket(shelf: Shelf) -> None:
    """Fault "refused" where there is no such bucket; whether there is anything below the prefix does not matter."""
    try:
        next(shelf.bucket.keys(shelf.prefix.rstrip("/")), None)
    except Missing as fault:
        raise no_bucket() from fault
    except Fault as fault:
        raise fault_of(fault, MARKER, "destination", "open") from fault


def no_bucket() -> Fault:
    text = "there is no such bucket there, or what answers at the endpoint is no S3 store (status 404)"
    return Fault("refused", text, MARKER, "destination", "open")
