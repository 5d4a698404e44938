"""What can go wrong between a trigger and its queue."""

from __future__ import annotations

from transfers.errors import TransferError


class QueueError(Exception):
    """A trigger that is not there, or a queue or state that does not allow what was asked; the sentence says which."""


class Undeliverable(TransferError):
    """This one trigger cannot be put on its queue; others of the queue may be."""

    kind = "undeliverable"
    advice = "it is tried again by itself"


class FolderTrouble(TransferError):
    """A queue's folder cannot be used: none of the queue's triggers can be delivered."""

    kind = "undelivered"
    advice = "triggers wait, and are delivered by themselves once that is mended"
