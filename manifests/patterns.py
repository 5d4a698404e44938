"""Which files a manifest means: shell patterns, and the notations of the PT1 page.

`*` and `?` stay within a name, `[01]` is one of the characters, `{bias,flat}` one of the words, `{1..4}`
one of the numbers, `**` everything below. The page wrote `D{1-4}`, `{bias flat}` and `[bias, flat,
fringe]`: these are read too. `\\` before a character takes away its meaning. Names that begin with '.' are
never matched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from wcmatch import glob
from wcmatch._wcparse import PatternLimitException  # wcmatch documents it and exports it nowhere else

from .errors import PatternError, shown
from .paths import path_problem

FLAGS = glob.GLOBSTAR | glob.BRACE | glob.FORCEUNIX
MOST_ALTERNATIVES = 1000
MOST_GLOBSTARS = 2  # but for one at the end, which costs nothing; each multiplies the work of a match
WILD = re.compile(r"\\.|[*?\[{]", re.DOTALL)

# The page's own notations; an escaped bracket is no notation.
NUMBERS = re.compile(r"(?<!\\)\{\s*(\d+|[A-Za-z])\s*-\s*(\d+|[A-Za-z])\s*\}")
WORDS = re.compile(r"(?<!\\)\{\s*([\w.+-]+(?:[\s,]+[\w.+-]+)+)\s*\}")
WORD_LIST = re.compile(r"(?<!\\)\[\s*(\w{2,}(?:\s*,\s*\w+)+|\w+(?:\s*,\s*\w+)*\s*,\s*\w{2,})\s*\]")


@dataclass(frozen=True)
class Pattern:
    """A text that says which paths are meant.

    A last name without `*` or `?` that turns out to be a folder means everything below it, so
    `calib/{bias,flat}` and `D{1..4}/raw` mean what they say. `fixed` is the part before the first wildcard:
    the folder to look in (of a text without wildcards, the file or folder itself). `relative` is what stays
    of a path below a destination. Raises PatternError for a text that cannot be read or is no path.
    """

    text: str
    fixed: str = field(init=False)
    wild: bool = field(init=False)
    _below: bool = field(init=False, repr=False, compare=False)  # what is below a match is matched
    _only_below: bool = field(init=False, repr=False, compare=False)  # and the match itself is not
    _depth: int = field(init=False, repr=False, compare=False)  # names in the head; 0: not known before
    _head: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = normal(self.text)
        names = text.split("/")
        fixed = _fixed(names)
        wild = len(fixed) < len(names)
        only_below = names[-1] == "**"
        below = only_below or not _stars(names[-1])
        head = names[:-1] if only_below else names
        depth = 0 if "**" in head or _slash_in_braces(text) else len(head)
        regex = None
        if len(fixed) < len(head):
            regex = _compile(self.text, "/".join(head) + "/**" if below and not depth else "/".join(head))
            # Where the depth is not known, both the head itself and what is below it are tried.
            if below and not only_below and not depth:
                regex = re.compile(f"{regex.pattern}|{_compile(self.text, '/'.join(head)).pattern}")
        values = (_unescaped("/".join(fixed)), wild, below, only_below, depth, regex)
        for name, value in zip(("fixed", "wild", "_below", "_only_below", "_depth", "_head"), values, strict=True):
            object.__setattr__(self, name, value)

    def matches(self, path: str) -> bool:
        """Whether the path, relative to the host's root, is meant. About a microsecond."""
        fixed = self.fixed
        if fixed:
            if not path.startswith(fixed):
                return False
            if len(path) == len(fixed):
                return not self.wild
            if path[len(fixed)] != "/":
                return False
        elif path.startswith("."):
            return False
        if path.find("/.", len(fixed)) >= 0:
            return False
        head = self._head
        if head is None:
            return True
        if not (self._below and self._depth):
            return head.match(path) is not None
        names = path.split("/", self._depth)
        if len(names) < self._depth + self._only_below:
            return False
        return head.match("/".join(names[: self._depth])) is not None

    def relative(self, path: str) -> str:
        """What stays of a matched path below the destination: all after `fixed`, or a single file's name."""
        fixed = self.fixed
        if not fixed:
            return path
        if len(path) == len(fixed):
            return path[path.rfind("/") + 1 :]
        return path[len(fixed) + 1 :]


def normal(text: str) -> str:
    """The pattern in wcmatch's notation, checked as a path. Raises PatternError."""
    text = NUMBERS.sub(r"{\1..\2}", text)
    text = WORDS.sub(lambda words: "{" + ",".join(re.split(r"[\s,]+", words[1])) + "}", text)
    text = WORD_LIST.sub(lambda words: "{" + ",".join(re.split(r"\s*,\s*", words[1])) + "}", text)
    if problem := path_problem(text):
        raise PatternError(problem)
    if problem := _bracket_problem(text):
        raise PatternError(f'"{shown(text, 80)}" {problem}')
    if text.removesuffix("**").count("**") > MOST_GLOBSTARS:
        raise PatternError(f'"{shown(text, 80)}" has too many "**"; one or two are nearly always enough')
    if any("**" in name and name != "**" for name in text.split("/")):
        raise PatternError(f'"{shown(text, 80)}": "**" stands alone between slashes; write "*" within a name')
    return text


def is_wild(text: str) -> bool:
    """Whether the text has a wildcard."""
    return any(len(sign[0]) == 1 for sign in WILD.finditer(text))


def _fixed(names: list[str]) -> list[str]:
    for number, name in enumerate(names):
        if is_wild(name):
            return names[:number]
    return names


def _stars(name: str) -> bool:
    return any(sign[0] in "*?" for sign in WILD.finditer(name))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _slash_in_braces(text: str) -> bool:
    depth = 0
    for sign in re.finditer(r"\\.|[{}/]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(sign[0], 0)
        if sign[0] == "/" and depth:
            return True
    return False


def _bracket_problem(text: str) -> str | None:
    """A bracket left open would be read as a plain character and match nothing: said instead."""
    plain = re.sub(r"\[[\[\]]\]", "", text)  # "[[]" and "[]]" are the brackets themselves
    for piece, opening, closing in ((plain, "{", "}"), *((name, "[", "]") for name in plain.split("/"))):
        signs = [sign[0] for sign in re.finditer(rf"\\.|[\{opening}\{closing}]", piece, re.DOTALL)]
        if signs.count(opening) != signs.count(closing):
            return f'has a "{opening}" or "{closing}" too many; for the character itself write "\\{opening}"'
    alone = re.search(r"(?<!\\)\{[^{},]*\}", text)
    if alone and ".." not in alone[0]:
        return f'has "{shown(alone[0])}", which is one name; write it plainly, or as {{a,b}} or {{1..4}}'
    return None


def _compile(text: str, notation: str) -> re.Pattern[str]:
    try:
        alternatives, _ = glob.translate(notation, flags=FLAGS, limit=MOST_ALTERNATIVES)
    except PatternLimitException as error:
        raise PatternError(
            f'"{shown(text, 80)}" stands for more than {MOST_ALTERNATIVES} names; use "*", or `files`'
        ) from error
    if any("(?!)" in one for one in alternatives):
        raise PatternError(f'"{shown(text, 80)}" has an empty or backward range such as [z-a] and can match nothing')
    return re.compile("|".join(alternatives))
