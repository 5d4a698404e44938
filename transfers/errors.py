"""Everything that can go wrong between two hosts, as one tree.

    TransferError
    |- Transient           try again
    |- Congested           try again with fewer at a time
    |- HostDown            the host or its root is not there: wait for it
    |- NoSpace             wait for room
    |- Refused             keys, permissions, paths: a person must act
    |  `- ReadOnly         the whole host takes no changes: wait until it does
    |- SourceChanged       plan the item anew
    |- SourceMissing       the source has no such file
    |- SourceCorrupt       the source's bytes are not what they should be
    |- CorruptedOnTheWay   what was read back is not what was sent: copy it again
    |- Conflict            another file has the name: a person must act
    `- Unsupported         this host cannot do it

Foreign errors are translated at one border a host: `from_fault` for the agent's, `from_os_error` here.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transfers.agent import Fault, kind_of

SIDES = ("source", "destination", "route", "store", "local")


def shown(text: str) -> str:
    """The text with control characters, surrogates and invisible direction marks escaped, fit for people."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class TransferError(Exception):
    """What, where, which side, and what to do next; `kind` is the word that the database keeps."""

    kind: ClassVar[str] = "transient"
    advice: ClassVar[str] = "it will be tried again"

    def __init__(
        self,
        text: str,
        *,
        host: str = "",
        side: str = "",
        phase: str = "",
        path: str = "",
        errno: int | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.host = host
        self.side = side
        self.phase = phase
        self.path = path
        self.errno = errno
        self.facts = dict(facts or {})

    def __str__(self) -> str:
        return self.advising(self.advice)

    def advising(self, advice: str) -> str:
        """Its sentence, with another advice where more is known than that it happened."""
        place = ":".join(part for part in (self.host, self.path) if part)
        who = f"{self.kind} at the {self.side}" if self.side else self.kind
        when = f" ({self.phase})" if self.phase else ""
        return shown(f"{place + ': ' if place else ''}{self.text}{when} - {who}; {advice}")

    def at(self, side: str) -> TransferError:
        """The same error, told of the side that the host stood on."""
        self.side = side
        return self

    def about(self, path: str, host: str) -> TransferError:
        """The error that a whole call ended with, as the error of one of its files; the host where it names none."""
        return type(self)(
            self.text,
            host=self.host or host,
            side=self.side,
            phase=self.phase,
            path=path,
            errno=self.errno,
            facts=self.facts,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for attempts and for JSON."""
        return {
            "kind": self.kind,
            "host": self.host,
            "side": self.side,
            "phase": self.phase,
            "path": shown(self.path),
            "errno": self.errno,
            "text": shown(self.text),
            "facts": self.facts,
        }


class Transient(TransferError):
    kind = "transient"


class Congested(TransferError):
    kind = "congested"
    advice = "it will be tried again with fewer at a time"


class HostDown(TransferError):
    kind = "host down"
    advice = "see that the host is up and its root mounted; work for it waits until then"


class NoSpace(TransferError):
    kind = "no space"
    advice = "make room there; it goes on by itself then"


class Refused(TransferError):
    kind = "refused"
    advice = "correct the path, permission or key, then release the item"


class ReadOnly(Refused):
    kind = "read-only"
    advice = "make it writable again; work to it waits until then, and goes on by itself"


class SourceChanged(TransferError):
    kind = "source changed"
    advice = "submit the manifest again once the file no longer changes"


class SourceMissing(TransferError):
    kind = "source missing"
    advice = "bring the file back at the source or exclude it"


class SourceCorrupt(TransferError):
    kind = "source corrupt"
    advice = "replace the file at the source or exclude it"


class CorruptedOnTheWay(TransferError):
    kind = "corrupted on the way"
    advice = "it will be copied again; if it recurs, look at the disk and the network"


class Conflict(TransferError):
    kind = "conflict"
    advice = "move the other file away or let the manifest replace it, then release the item"


class Unsupported(TransferError):
    kind = "unsupported"
    advice = "choose another host or setting"


BY_KIND: dict[str, type[TransferError]] = {
    error.kind: error
    for error in (
        Transient,
        Congested,
        HostDown,
        NoSpace,
        Refused,
        ReadOnly,
        SourceChanged,
        SourceMissing,
        SourceCorrupt,
        CorruptedOnTheWay,
        Conflict,
        Unsupported,
    )
}


def from_fault(fault: Fault, host: str) -> TransferError:
    """The agent's fault as an error of this host, or of the one its facts name (the source, in a frame)."""
    facts = dict(fault.facts)
    host = facts.pop("host", host)
    return BY_KIND.get(fault.kind, Transient)(
        fault.text,
        host=host,
        side=fault.side,
        phase=fault.phase,
        path=fault.path,
        errno=fault.errno,
        facts=facts,
    )


def from_os_error(error: OSError, host: str, side: str, phase: str, path: str = "") -> TransferError:
    """An error of this machine's kernel as one of this host."""
    number = error.errno
    made = BY_KIND.get(kind_of(number, side), Transient)
    return made(error.strerror or str(error), host=host, side=side, phase=phase, path=path, errno=number)


def to_fault(error: TransferError) -> Fault:
    """The error as a frame can carry it to the host that lands."""
    return Fault(error.kind, error.text, error.path, error.side, error.phase, error.errno, error.facts)
