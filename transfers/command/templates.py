"""The commands of a store that programs speak to: their words, checked when the configuration is read.

A command is a list of words, of which the first is the program; no shell sees them. In a word stand placeholders:
{path}, where the file lies on the store (its root, "/", and the path below it); {local}, a file here; {folder}, the
folder of what is made; {to}, the new path of a rename; {paths}, a word of its own, which becomes a word for each file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from transfers.digests import ALGORITHMS

PLACEHOLDER = re.compile(r"(?<!\$)\{(\s*[A-Za-z_][\w.:!-]*\s*|)\}")
"""Also what is meant as one and is none, as {path1} and { path }: that is a problem, and not left as it is. ${line:1}
is a shell's."""
MUST: dict[str, tuple[tuple[str, ...], ...]] = {
    "put": (("local",), ("path",)),
    "get": (("path",), ("local",)),
    "list": (("path", "paths"),),
    "remove": (("path",),),
    "stage": (("path", "paths"),),
    "digest": (("path",),),
    "rename": (("path",), ("to",)),
}
"""For each command the placeholders that it must have, one of each of these."""
MAY = {"put": ("folder",), "rename": ("folder",)}
GROUPS = ("path", "size", "mtime", "state", "volume", "position", "digest", "folder")
SPOKEN = re.compile(r"[^A-Za-z0-9._/+=@:,%~{}-]")
"""What makes a word with a placeholder and more a sentence of the program's own language, as in "put {local} : {path}":
there a space or a semicolon in a file's name would end the name."""
JOINING = frozenset({"hsi", "msscmd", "ssh", "rsh"})
"""Programs that join all their words to one such sentence, which they, or a shell elsewhere, take apart again."""
NESTED = re.compile(r"\((?:[^()\\\[]|\\.|\[[^\]]*\])*[*+](?:[^()\\\[]|\\.|\[[^\]]*\])*\)(?:[*+]|\{\d*,\})")
"""A repeat without bound in a group that is itself repeated without bound."""
UNFIT = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
"""What no line of a listing can carry, so that no file of such a store has it in its name."""

Found = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Templates:
    """For each act the words of a command, and how its output is read.

    `listed` is a pattern for a line of what `list` prints, with the groups path and size, and where there are such
    mtime, state, volume, position and digest; or with the group folder alone, for a line that heads the names of that
    folder. Other lines are an error, but for empty ones and those that `ignored` matches. `absent` is found in what
    `list` prints, with whatever exit status, for what is not there; its group path names that, where it can.
    `full` is found in what a `put` that failed printed where the store had no room for the file.
    `online`, `staging` and `lost` are what the group state is then; what it is else means that the file is on tape.
    """

    put: tuple[str, ...]
    get: tuple[str, ...]
    list: tuple[str, ...]
    remove: tuple[str, ...]
    stage: tuple[str, ...] | None
    digest: tuple[str, ...] | None
    rename: tuple[str, ...] | None
    listed: str
    digested: str | None
    algorithm: str | None
    online: tuple[str, ...]
    staging: tuple[str, ...]
    lost: tuple[str, ...]
    timeout_s: float
    keep_bytes: int
    absent: str | None = None
    ignored: str | None = None
    full: str | None = None

    def words(self, act: str) -> tuple[str, ...] | None:
        """The words of a command; None where the store has none for that."""
        found: tuple[str, ...] | None = getattr(self, act)
        return found

    def takes_many(self, act: str) -> bool:
        """Whether a command takes any number of files at once."""
        return "{paths}" in (self.words(act) or ())

    def problems(self) -> Sequence[tuple[str, str]]:
        """(key, sentence) of all that is wrong with them."""
        found = [problem for act in MUST for problem in _words_problems(act, self.words(act))]
        found += _pattern_problems("listed", self.listed, GROUPS)
        found += _pattern_problems("absent", self.absent, ("path",))
        found += _pattern_problems("ignored", self.ignored, ())
        found += _pattern_problems("full", self.full, ())
        found += _pattern_problems("digested", self.digested, ("digest",))
        found += [*self._listing_problems(), *self._digest_problems(), *self._number_problems()]
        return found

    def _listing_problems(self) -> Found:
        groups = groups_of(self.listed)
        if groups is None:
            return
        for name in ("path", "size"):
            if name not in groups:
                yield "listed", f"it lacks the group {name}: (?P<{name}>...)"
        words = [*self.online, *self.staging, *self.lost]
        if "state" not in groups:
            for key in ("online", "staging", "lost"):
                if getattr(self, key):
                    yield key, "`listed` has no group state that could be one of these"
            if self.stage is not None:
                yield "stage", "`listed` has no group state, so that nothing would say when a file has come from tape"
        elif not self.online:
            yield "online", "missing: what the group state of `listed` is of a file that can be read at once"
        for word in sorted({word for word in words if words.count(word) > 1}):
            yield "online", f"{word!r} stands in more than one of `online`, `staging` and `lost`"

    def _digest_problems(self) -> Found:
        if self.digest is not None and self.digested is None:
            yield "digested", "missing: a pattern for a line of what `digest` prints, with the group digest"
        if self.digest is None and self.digested is not None:
            yield "digest", "missing: `digested` reads what it prints"
        in_listing = "digest" in (groups_of(self.listed) or ())
        if self.algorithm is None and (self.digest is not None or in_listing):
            yield "algorithm", f"missing: that of the store's digests, one of {', '.join(ALGORITHMS)}"
        if self.algorithm is not None and self.algorithm not in ALGORITHMS:
            yield "algorithm", f"{self.algorithm!r} is none of {', '.join(ALGORITHMS)}"

    def _number_problems(self) -> Found:
        if not 0 < self.timeout_s < float("inf"):
            yield "timeout_s", "it must be more than 0 seconds"
        if self.keep_bytes < 0:
            yield "keep_bytes", "it must be 0 bytes or more"


def filled(words: Sequence[str], values: Mapping[str, str], paths: Sequence[str] = ()) -> list[str]:
    """The words with the placeholders filled in. ValueError, with a sentence, for a name that would be understood as
    something else: see SPOKEN and JOINING."""
    joins = any(word.rpartition("/")[2] in JOINING for word in words)  # behind `timeout 60`, `sudo -u mss`... too
    made: list[str] = []
    for word in words:
        names = paths if word == "{paths}" else [values[name] for name in PLACEHOLDER.findall(word)]
        if joins or SPOKEN.search(PLACEHOLDER.sub("", word)):
            for name in names:
                if SPOKEN.search(name.replace("{", " ").replace("}", " ")):
                    raise ValueError(f"{name!r} would be torn apart within the word {word!r} of the command")
        made += paths if word == "{paths}" else [PLACEHOLDER.sub(lambda match: values[match[1]], word)]
    return made


def groups_of(pattern: str | None) -> Mapping[str, int] | None:
    """The named groups of a pattern; None for none, or one that is not sound."""
    try:
        return re.compile(pattern).groupindex if pattern is not None else None
    except (re.error, RecursionError, OverflowError):
        return None


def _words_problems(act: str, words: tuple[str, ...] | None) -> Found:
    if words is None:
        return
    if not words or not words[0]:
        yield act, "it names no program"
        return
    if PLACEHOLDER.search(words[0]):
        yield act, f"its first word, {words[0]!r}, is the program, which no file's name may choose"
    elif "/" in words[0] and not words[0].startswith("/"):
        yield act, f"the program {words[0]!r} must be an absolute path, or a name that is found by PATH"
    if any("\0" in word for word in words):
        yield act, "no word of a command can have a NUL in it"
    there = [name for word in words for name in PLACEHOLDER.findall(word)]
    allowed = {name for names in MUST[act] for name in names} | set(MAY.get(act, ()))
    for name in sorted(set(there) - allowed):
        expected = ", ".join(f"{{{name}}}" for name in sorted(allowed))
        yield act, f"{{{name}}} is no placeholder of it; there are {expected}"
    for names in MUST[act]:
        missing = " or ".join(f"{{{name}}}" for name in names)
        if not set(names) & set(there):
            yield act, f"it lacks {missing}"
        elif len(set(names) & set(there)) > 1:
            yield act, f"it has {missing.replace(' or ', ' and ')}, of which it takes one"
    if there.count("paths") != words.count("{paths}") or there.count("paths") > 1:
        yield act, "{paths} must be a word of its own, once: it becomes a word for each file"


def _pattern_problems(key: str, pattern: str | None, groups: Sequence[str]) -> Found:
    if pattern is None:
        return
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        yield key, f"it is no regular expression: {error}"
        return
    for name in sorted(set(compiled.groupindex) - set(groups)):
        expected = f"; there are {', '.join(groups)}" if groups else ""
        yield key, f"the group {name} says nothing{expected}"
    if key == "digested" and "digest" not in compiled.groupindex:
        yield key, "it lacks the group digest: (?P<digest>...)"
    if NESTED.search(pattern):
        text = "it repeats what repeats without bound, as (a+)+ does, which can take for ever; say how often: (a+){4}"
        yield key, text
        return  # not even tried
    if compiled.fullmatch(""):
        yield key, "it matches a line that says nothing"
