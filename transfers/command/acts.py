"""The acts on single files of a store that programs speak to, each held against what the store lists afterwards.

An exit status that is not 0 is a failure, whatever was printed or done; an exit status of 0 is nothing until the
result is there: the file listed with its size, or brought with it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence

from transfers.agent import Fault, Stop, folder_of
from transfers.command.listing import Listed, Listing, Seen
from transfers.command.running import LINE_BYTES, Ended, Running
from transfers.command.templates import Templates, groups_of
from transfers.digests import as_printed, is_digest
from transfers.hosts import Residency


class Acts:
    """Puts, brings, renames and removes files by their paths below the root. What goes wrong is a Fault."""

    def __init__(self, templates: Templates, running: Running, listing: Listing) -> None:
        self.templates = templates
        self.running = running
        self.listing = listing

    @property
    def renames(self) -> bool:
        return self.templates.rename is not None

    @property
    def algorithm(self) -> str | None:
        """That of the digests that the store has of its own; None where it has none."""
        told = self.templates.digest is not None or "digest" in (groups_of(self.templates.listed) or ())
        return self.templates.algorithm if told else None

    def put(self, place: str, path: str, size: int, stop: Stop, begun: Callable[[int], None] | None = None) -> Listed:
        """Store the file of so many bytes at a place here: it is listed with that size then. Fault "no space" where it
        is not, and `full` is found in what was said."""
        values = {"local": place, "path": self._at(path), "folder": folder_of(self._at(path))}
        ended = self._done("put", path, values, stop, begun)
        seen = self.listing.one(path, stop)
        if not isinstance(seen, Listed):
            kind = self._kind("put", path, ended)
            raise at(ended.fault("`put` ended with exit status 0, and nothing is stored", kind), path)
        if seen.size != size:
            text = f"`put` ended with exit status 0, and {seen.size} bytes of {size} are stored"
            kind = self._kind("put", path, ended, "corrupted on the way")
            raise at(ended.fault(text, kind, size=seen.size, expected=size), path)
        return seen

    def get(self, file: Listed, place: str, stop: Stop) -> None:
        """Bring a file to a place here where nothing is: it is there then, with the size that was listed."""
        check_room(place, file.size)
        try:
            ended = self._done("get", file.path, {"path": self._at(file.path), "local": place}, stop)
        except Fault as fault:
            raise self._unavailable(fault, file) from fault
        try:
            size = os.lstat(place).st_size
        except FileNotFoundError:
            raise at(ended.fault("`get` ended with exit status 0, and brought nothing"), file.path) from None
        if size != file.size or not os.path.isfile(place) or os.path.islink(place):
            text = f"`get` ended with exit status 0, and brought {size} bytes of {file.size}"
            raise at(ended.fault(text, "corrupted on the way", size=size, expected=file.size), file.path)
        if file.mtime_ns is not None:
            os.utime(place, ns=(file.mtime_ns, file.mtime_ns))

    def remove(self, path: str, stop: Stop) -> None:
        """Remove a file that is there: it is listed no more then."""
        ended = self._done("remove", path, {"path": self._at(path)}, stop)
        if self.listing.one(path, stop) is not None:
            raise at(ended.fault("`remove` ended with exit status 0, and the file is still listed"), path)

    def rename(self, file: Listed, path: str, stop: Stop) -> Listed:
        """Give a file another path, where just before nothing was: it is listed there then, and not where it was."""
        values = {"path": self._at(file.path), "to": self._at(path), "folder": folder_of(self._at(path))}
        ended = self._done("rename", path, values, stop)
        seen = self.listing.look([file.path, path], stop)
        there = seen[path]
        if not isinstance(there, Listed) or there.size != file.size or seen[file.path] is not None:
            text = "`rename` ended with exit status 0, and the file is not listed under its new path alone"
            raise at(ended.fault(text), path)
        return there

    def stage(self, paths: Sequence[str], stop: Stop) -> Ended:
        """Ask for files to be brought from tape; how that ended."""
        places = [self._at(path) for path in paths]
        return self.running.call("stage", {"path": places[0]}, places, stop=stop)

    def own_digest(self, file: Listed, stop: Stop) -> str:
        """The store's own digest of a file, "algorithm:hex": the one that it lists, else what `digest` prints."""
        if file.digest is not None and file.digest.startswith(f"{self.algorithm}:"):
            return file.digest
        ended = self._done("digest", file.path, {"path": self._at(file.path)}, stop)
        found = digest_in(ended.said, self.templates)
        if found is None:
            text = "`digest` ended with exit status 0, and printed no line that `digested` matches, or several digests"
            raise at(ended.fault(text), file.path)
        if not is_digest(self.algorithm, found):
            text = f"`digest` ended with exit status 0, and what `digested` finds is no {self.algorithm}: {found!r}"
            raise at(ended.fault(text), file.path)
        return f"{self.algorithm}:{found}"

    def residency(self, file: Listed) -> Residency:
        """Where the store has a file now, by the word for its state."""
        templates = self.templates
        state = "offline"
        for name, words in (("online", templates.online), ("staging", templates.staging), ("lost", templates.lost)):
            if file.state in words:
                state = name
        return Residency(state if templates.online else "online", file.volume, file.position)

    def _at(self, path: str) -> str:
        return self.listing.absolute(path)

    def _done(
        self, act: str, path: str, values: dict[str, str], stop: Stop, begun: Callable[[int], None] | None = None
    ) -> Ended:
        try:
            ended = self.running.call(act, values, stop=stop, begun=begun)
        except Fault as fault:
            raise at(fault, path) from fault
        if ended.status != 0:
            self.listing.up(stop)  # the store's own failure is not held against the file
            raise at(ended.fault(f"`{act}` {ended.how}", self._kind(act, path, ended)), path)
        return ended

    def _kind(self, act: str, path: str, ended: Ended, otherwise: str = "transient") -> str:
        """The kind of the error of a command that failed, by what it said; the file's path in that is not believed."""
        if act != "put" or self.templates.full is None:
            return otherwise
        lines = (line.replace(self._at(path), "") for line in ended.said.split("\n") if len(line) <= LINE_BYTES)
        return "no space" if any(re.search(self.templates.full, line.rstrip("\r")) for line in lines) else otherwise

    def _unavailable(self, fault: Fault, file: Listed) -> Fault:
        """What a `get` failed by, told by the file's state where that explains it."""
        state = self.residency(file).state
        if fault.phase != "command" or state == "online" or fault.kind == "host down":
            return fault
        if state == "lost":
            text = f"the store says that it has lost the file ({file.state!r}): {fault.text}"
            return Fault("source missing", text, file.path, phase="command", facts=fault.facts)
        fault.text = f"it is not on the store's disk ({file.state!r}) and must be staged first: {fault.text}"
        return fault


def at(fault: Fault, path: str) -> Fault:
    fault.path = fault.path or path
    return fault


def check_room(place: str, size: int) -> None:
    """Fault "no space" where a file of so many bytes has no room here."""
    folder = os.path.dirname(place)
    free = shutil.disk_usage(folder).free
    if size > free:
        text = f"the scratch folder has no room for it: {size} bytes are needed in {folder} and {free} are free"
        raise Fault("no space", text, side="local", phase="open", facts={"needed": size, "free": free})


def digest_in(said: str, templates: Templates) -> str | None:
    """The one digest in what `digest` printed, lower-case; None for none, or for several."""
    pattern = re.compile(templates.digested or "(?!)")
    lines = (line for line in said.split("\n") if len(line) <= LINE_BYTES)
    matches = (match for line in lines if (match := pattern.fullmatch(line.rstrip("\r"))))
    found = {as_printed(templates.algorithm, match["digest"]) for match in matches}
    return found.pop() if len(found) == 1 else None


def listed_or_refused(seen: Seen, path: str) -> Listed:
    """The file that was looked for. Fault "source missing" or "refused" for what is none."""
    if seen is None:
        raise Fault("source missing", "the store lists no such file", path)
    if not isinstance(seen, Listed):
        raise Fault("refused", "the name is taken by a folder, not a file", path, facts={"not_a_file": True})
    return seen
