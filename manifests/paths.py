"""Paths as text: relative to a host's root, '/'-separated, nothing that climbs."""

from __future__ import annotations

from .errors import PathError, shown

MOST_BYTES = 1024
MOST_NAME_BYTES = 255
OWN_FOLDER = ".stager"


def path_problem(path: str) -> str | None:
    """Why no host would be asked for this path, a sentence that says what to write; None for a good one."""
    name = shown(path, 80)
    if not path:
        return "the path is empty; name a file or folder below the host's root"
    if path.startswith("/"):
        return f'"{name}" is absolute; paths are relative to the host\'s root: leave out the leading "/"'
    if "\0" in path:
        return f'"{name}" contains a NUL byte, which no file name can'
    if len(path.encode("utf-8", "surrogateescape")) > MOST_BYTES:
        return f'"{name}" is longer than {MOST_BYTES} bytes'
    for part in path.split("/"):
        if problem := _part_problem(part):
            return f'"{name}" {problem}'
    return None


def check_path(path: str) -> str:
    """The path itself. Raises PathError for one that no host would be asked for."""
    if problem := path_problem(path):
        raise PathError(problem)
    return path


def _part_problem(part: str) -> str | None:
    if part == "..":
        return 'contains ".."; a path stays below the host\'s root: write it out without ".."'
    if part == ".":
        return 'contains "."; leave it out'
    if not part:
        return 'contains "//" or ends in "/"; write a single "/" between names'
    if part == OWN_FOLDER:
        return f'passes through "{OWN_FOLDER}", which is Stager\'s own folder'
    if len(part.encode("utf-8", "surrogateescape")) > MOST_NAME_BYTES:
        return f"has a name longer than {MOST_NAME_BYTES} bytes"
    return None
