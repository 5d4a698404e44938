"""A root's marker, and the sweep of parts, over SFTP: the agent's rules."""

from __future__ import annotations

import errno
import stat
import uuid
from collections.abc import Callable
from typing import Any

from transfers.agent import (
    MARKER,
    OWN,
    PART_NAME,
    Fault,
    checked,
    fault_of,
    of_marker,
    raw,
    root_fault,
)
from transfers.agent import Sweeping as AgentSweeping
from transfers.sftp.landing import FarPart
from transfers.sftp.tree import ROOM, SYNC, Tree, Walk

__all__ = ["Sweeping", "check_marker", "first_marker", "of_marker"]


def read_marker(tree: Tree) -> str | None:
    """The marker's text, None where there is no marker."""
    try:
        handle, state = tree.open_file(MARKER)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = b"".join(tree.session.stretch(handle, 0, min(200, state.st_size)))
    except EOFError:
        return ""
    finally:
        if tree.session.alive:
            tree.session.close_handle(handle)
    return data.decode("ascii", "backslashreplace").strip()


def derived_marker(tree: Tree) -> str | None:
    """The marker of a root that cannot be written to: made from its file system's number, as SFTP tells no folder's.

    What is left when the file system is not mounted has another number. None where the server does not tell.
    """
    if ROOM not in tree.session.extensions:
        return None
    number = tree.session.room(tree.root).number
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"stager:unwritable-root:sftp:{number}"))


def check_marker(tree: Tree, marker: str) -> None:
    """Fault "host down" unless the root has this marker, its own or (where it has none) its derived one."""
    try:
        found = read_marker(tree)
        if marker == found or marker == derived_marker(tree):
            return
    except (OSError, Fault) as error:
        raise root_fault(error, "the root's marker cannot be read") from error
    if found is None:
        text = "the root has no marker: its file system is not mounted, or the folder is another one"
    else:
        text = f"the root has the marker {found} instead of {marker}: it is another file system"
    raise Fault("host down", text, MARKER, phase="open", facts={"expected": marker, "found": found})


def first_marker(tree: Tree, instance: str, marks: bool) -> str | None:
    """Take the marker that is there, or make one; several may try at once, and one of them makes it. Without `marks`
    none is made: None where there is none."""
    try:
        return read_marker(tree) or (made_marker(tree, instance) if marks else None)
    except (OSError, Fault) as error:
        unable = isinstance(error, Fault) and error.kind == "unsupported"  # no hard links: it may be read from
        if unable or error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            derived = derived_marker(tree)
            if derived is not None:
                return derived
            text = f"the root cannot be written to, and a server without {ROOM} does not say which file system it is"
            raise Fault("unsupported", text, MARKER, "destination", "open") from error
        raise fault_of(error, MARKER, "destination", "open") from error


def made_marker(tree: Tree, instance: str) -> str:
    """Write a new marker under a part's name and give it its own; durable, if it can be, when this returns."""
    text = str(uuid.uuid4())
    part = FarPart({"item": 0, "epoch": 0, "path": MARKER}, tree)
    part.make(tree, instance, None)  # type: ignore[arg-type] # the trees are used alike
    try:
        part.write(text.encode("ascii") + b"\n")
        part.written()
        if SYNC in tree.session.extensions and part.writing is not None:
            tree.session.sync(part.writing.handle)
        part.finish(None)
        tree.rename_new(part.place, tree.folder(OWN) + b"/" + raw(part.last_name))
        part.placed = True
    except (FileExistsError, FileNotFoundError):  # another made one, or swept this part away after it did
        text = read_marker(tree) or text
    finally:
        part.abandon()
        part.remove(tree)
    tree.sync(OWN)
    return text


class Sweeping:
    """Removes the dead parts of one instance. Goes into hidden folders too, but not into snapshots."""

    def __init__(self, tree: Tree, instance: str, dead: Callable[[int, int], bool]) -> None:
        self.tree = tree
        self.instance = instance
        self.dead = dead
        self.removed: list[str] = []
        self.faults: list[Fault] = []

    def below(self, prefix: str) -> None:
        walk = Walk(self.tree, hidden=True)
        try:
            for path, state in walk.below(checked(prefix) if prefix else ""):
                self.entry(walk, path, state)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.faults.append(fault_of(error, prefix, "destination", "sweep"))

    def entry(self, walk: Walk, path: str, state: Any) -> None:
        name = path.rpartition("/")[2]
        try:
            if stat.S_ISDIR(state.st_mode):
                if name not in AgentSweeping.SNAPSHOTS and path != "lost+found":
                    walk.descend(path)
            elif stat.S_ISREG(state.st_mode) and self.is_dead(name):
                self.tree.session.remove(self.tree.place(path))
                self.removed.append(path)
        except OSError as error:
            self.faults.append(fault_of(error, path, "destination", "sweep"))

    def is_dead(self, name: str) -> bool:
        match = PART_NAME.fullmatch(name)
        if match is None or match.group(3) != self.instance:
            return False
        return self.dead(int(match.group(1)), int(match.group(2)))
