"""Removing and moving files over SFTP: the agent's rules."""

from __future__ import annotations

import errno
import stat

from transfers.agent import Fault, fault_of, folder_of, may_change, move_trouble, raw, what_is
from transfers.sftp.tree import ROOM, Tree


def remove(tree: Tree, path: str) -> str | Fault | None:
    """Unlink a regular file: its path, to be made durable; None when it was not there."""
    try:
        place = changeable(tree, path)
        tree.session.remove(place)
    except FileNotFoundError:
        return None
    except (OSError, Fault) as error:
        found = tree.explained(error) if isinstance(error, OSError) else error
        return fault_of(found, path, "destination", "remove")
    return path


def move(tree: Tree, old: str, new: str, folder_mode: int | None) -> Fault | None:
    """Give a regular file another path, never replacing one; its folders are still to be synced."""
    try:
        place = changeable(tree, old)
    except (OSError, Fault) as error:
        return fault_of(error, old, "source", "move")
    try:
        folder = tree.make_folder(folder_of(may_change(new)), folder_mode)
        renamed(tree, place, folder.rstrip(b"/") + b"/" + raw(new.rpartition("/")[2]))
    except (OSError, Fault) as error:
        found = tree.explained(error) if isinstance(error, OSError) else error
        return move_trouble(found, new)
    return None


def changeable(tree: Tree, path: str) -> bytes:
    """Where a file is that may be moved or removed; Fault "refused" for what is no file."""
    place = tree.place(may_change(path))
    state = tree.session.lstat(place)
    if not stat.S_ISREG(state.st_mode):
        raise Fault("refused", f"it is {what_is(state.st_mode)}, not a file", path)
    return place


def renamed(tree: Tree, old: bytes, new: bytes) -> None:
    """Rename; the server does not say why it failed, and whether it was for want of one file system is asked."""
    try:
        tree.rename_new(old, new)
    except Fault as fault:
        if fault.kind == "unsupported" and ROOM in tree.session.extensions:
            here, there = (tree.session.room(path.rpartition(b"/")[0]).number for path in (old, new))
            if here != there:
                raise Fault("refused", fault.text, errno=errno.EXDEV) from fault
        raise
