"""What a bundle holds, by those who can tell: the database, the index beside it, its last member. Nothing is changed.

An index that can be read agrees with itself and with the bundle's name, which is made of paths, sizes and times of the
members: two of one bundle can differ by digests alone. What the database knows was proven, and is believed first.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stager.rebuilding.rows import Known
from transfers.agent import raw
from transfers.bundles import BUNDLE, Entry, Index, name_of, read_beside, read_index, verify
from transfers.errors import SourceCorrupt, SourceMissing, TransferError, shown
from transfers.hosts import FileInfo, Host, only

T = TypeVar("T")
Trouble = SourceCorrupt | SourceMissing
BESIDE, LAST, DATABASE = "the index beside it", "its last member", "the database"
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Settled:
    """What a bundle holds, and who said so. `digest` is the bundle's own as it was told; None where nobody tells.

    `beside` is what is wrong with the index beside it, None where it is as it should be; `remarks` are sentences about
    what else is wrong, and does not keep the bundle from serving. `rotten` are members that were read and have other
    bytes than the index tells.
    """

    index: Index
    origin: str
    digest: str | None
    beside: Trouble | None
    remarks: tuple[str, ...]
    rotten: frozenset[str] = frozenset()


def settle(
    host: Host, info: FileInfo, known: Known | None, members: Sequence[Entry], *, look: bool, deep: bool
) -> Settled:
    """What the bundle `info` of a store holds; `members` are those that the database has of it, where it is known.

    `look`: a bundle that the database does not know is looked into, and its index is not taken at its word. `deep`:
    every byte of any bundle is read. Raises SourceCorrupt where nothing can be believed, and what reading ended with.
    """
    hearing = _Hearing(host, info, known, members)
    if known is not None and known.size != info.size:
        raise hearing.corrupt("bundle-size", f"it has {info.size} bytes, and had {known.size} when it was proven")
    look = deep or (look and known is None)
    hearing.hear(look)
    index, origin = hearing.choose(deep)
    if look:
        hearing.verify(index, deep)
    return hearing.settled(index, origin, deep)


class _Hearing:
    """What was said of one bundle so far."""

    def __init__(self, host: Host, info: FileInfo, known: Known | None, members: Sequence[Entry]) -> None:
        self.host = host
        self.info = info
        self.known = known
        self.members = set(map(_what, members))
        self.whole: Index | None = None  # what the database knows, where that is all of it
        if known is not None:
            self.whole = _whole(info.path, members)
        self.beside: Index | None = None
        self.beside_digest: str | None = None
        self.no_beside: Trouble | None = None
        self.last: Index | None = None
        self.no_last: Trouble | None = None
        self.remarks: list[str] = []
        self.rotten: list[str] = []

    def hear(self, look: bool) -> None:
        """Read the index beside the bundle; its last member where that is wanted, or needed."""
        beside, self.no_beside = _asked(lambda: read_beside(self.host, self.info.path))
        if beside is not None:
            self.beside, self.beside_digest = beside.index, beside.digest
        if look or not (self.whole or (self.beside and self._is_believed(self.beside))):
            self.last, self.no_last = _asked(lambda: read_index(self.host, self.info.path))

    def _is_believed(self, index: Index) -> bool:
        """Whether it has all that the database knows."""
        return self.members <= set(map(_what, index.entries))

    def choose(self, deep: bool) -> tuple[Index, str]:
        """The index that is believed, and who has it. SourceCorrupt where none is."""
        said = [(index, origin) for index, origin in ((self.beside, BESIDE), (self.last, LAST)) if index is not None]
        believed = [(index, origin) for index, origin in said if self._is_believed(index)]
        if len(believed) < len(said) or not believed:
            if self.whole is not None:
                return self.whole, DATABASE
            if not believed:
                raise self._nobody()
        if len({index.entries for index, _ in believed}) == 1:
            return believed[0]
        for index, origin in believed if deep else ():
            if not any(verify(self.host, self.info.path, index, deep=True)):
                return index, origin
        advice = "neither tells those of its bytes" if deep else "`--deep` reads the members, and tells which is right"
        raise self.corrupt("bundle-index", f"{BESIDE} and {LAST} tell other digests: {advice}")

    def _nobody(self) -> SourceCorrupt:
        if self.beside is not None or self.last is not None:
            text = "its indexes tell other members, or other digests, than those that were proven"
            return self.corrupt("bundle-foreign-index", text)
        assert self.no_beside is not None  # of an index that was not read there is the reason
        assert self.no_last is not None
        code = str(self.no_last.facts.get("code") or self.no_beside.facts.get("code") or "bundle-index")
        return self.corrupt(code, f"{self.no_last.text}; {_beside_is(self.no_beside)}")

    def verify(self, index: Index, deep: bool) -> None:
        """Raise what the bundle does not hold as its index says; that its last member is damaged, or some of the others
        are, is a remark."""
        found: list[TransferError] = []
        count = 0
        for problem in verify(self.host, self.info.path, index, deep):
            if problem.facts.get("code") == "bundle-index":
                why = f" ({self.no_last.text})" if self.no_last else ""
                self.remarks.append(f"its last member is damaged{why}; the bundle still serves")
                continue
            if problem.facts.get("code") == "bundle-digest":
                self.rotten.append(str(problem.facts["member"]))
                continue
            found, count = [*found, problem][:MOST_NAMED], count + 1
        if found:
            others = f", and {count - len(found)} more" if count > len(found) else ""
            found[0].text = "; ".join(one.text for one in found) + others
            raise found[0]
        if self.rotten:
            do = "does" if len(self.rotten) == 1 else "do"
            self.remarks.append(f"{named(self.rotten)} {do} not have the digest that its index says")

    def settled(self, index: Index, origin: str, deep: bool) -> Settled:
        trouble = self.no_beside
        if self.beside is not None and self.beside.entries != index.entries:
            trouble = self.corrupt("bundle-index", f"{BESIDE} tells other digests than {origin}")
        digest = self.known.digest if self.known else None
        if digest is None and trouble is None:
            digest = self.beside_digest
        if digest is not None and trouble is None and self.beside_digest != digest:
            trouble = self.corrupt("bundle-index", f"{BESIDE} tells another digest of the bundle than {DATABASE}")
        if deep and digest is not None and not self.remarks and digest_of(self.host, self.info.path) != digest:
            self.remarks.append("its members are as they were packed, and the bytes between them are not")
        return Settled(index, origin, digest, trouble, tuple(self.remarks), frozenset(self.rotten))

    def corrupt(self, code: str, text: str) -> SourceCorrupt:
        facts = {"code": code}
        return SourceCorrupt(text, host=self.host.name, side="store", phase="rebuild", path=self.info.path, facts=facts)


def _what(member: Entry) -> tuple[str, int, str, int]:
    """What makes a member: all but its time."""
    return member.path, member.size, member.digest, member.offset


def _beside_is(error: Trouble) -> str:
    if isinstance(error, SourceMissing):
        return "there is no index beside it"
    return f"of {BESIDE}: {error.text}"


def _asked(way: Callable[[], T]) -> tuple[T | None, Trouble | None]:
    try:
        return way(), None
    except (SourceCorrupt, SourceMissing) as error:
        return None, error


def _whole(path: str, members: Sequence[Entry]) -> Index | None:
    """The index that these members of the database make, where they are all that the bundle's name tells of."""
    name = posixpath.basename(path)
    label = name.removesuffix(BUNDLE).rpartition(".")[0]
    if not members or not label or name_of(label, (one[:3] for one in members)) != name:
        return None
    return Index(label, tuple(sorted(members, key=lambda one: raw(one.path))))


def digest_of(host: Host, path: str) -> str:
    """The digest of a whole file as it is now, read from the disk where it lies."""
    found = only(host.digest([path], reread=True))
    if isinstance(found, TransferError):
        raise found.at("store")
    return found[2]


def lacking(index: Index, members: Sequence[Entry]) -> Iterator[Entry]:
    """Those that a bundle holds, and that the database does not have of it."""
    there = {one.path for one in members}
    return (one for one in index.entries if one.path not in there)


def named(paths: Sequence[str]) -> str:
    """Some of the paths, for people."""
    some = ", ".join(shown(path) for path in paths[:MOST_NAMED])
    return f"{some} and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else some
