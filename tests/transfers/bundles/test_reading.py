"""A bundle says what is in it by its end, beside it and in its headers; damage is told by its code, not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.transfers.bundles import crafted
from tests.transfers.contract import sha256
from transfers.bundles.headers import header_of
from transfers.bundles.index import LAST, Index, layout_of, name_of, packed_size
from transfers.bundles.reading import hashed, read_beside, read_index, recovered, verify, walk
from transfers.errors import HostDown, SourceCorrupt, SourceMissing
from transfers.hosts import Host

FILES = {
    "D1/raw/v1/c00-a0.fits": b"SIMPLE" * 1000,
    "D1/raw/v1/c00-a1.fits": b"x" * 513,
    "D1/raw/v1/ü.fits": b"",
    "D1/raw/v1/z" + "z" * 150: bytes(3000),  # zeros at the end, as FITS has
}


class Shelved:
    """A bundle of FILES on a store, and its bytes to be damaged."""

    def __init__(self, folder: Path) -> None:
        self.host: Host = crafted.store(folder / "mss")
        source = crafted.local(folder / "source")
        crafted.write(folder / "source", FILES)
        self.path, self.index = crafted.packed(source, self.host)
        self.file = folder / "mss" / self.path
        self.beside = folder / "mss" / f"{self.path}.index"
        self.data = self.file.read_bytes()
        self.layout = layout_of(self.index.label, [one[:3] for one in self.index.entries])

    def write(self, data: bytes) -> None:
        self.file.write_bytes(data)

    def codes(self, deep: bool = False) -> list[str]:
        found = list(verify(self.host, self.path, self.index, deep))
        assert all((error.host, error.side) == ("mss", "store") for error in found)
        return [str(error.facts["code"]) for error in found]


@pytest.fixture
def bundle(tmp_path: Path) -> Shelved:
    return Shelved(tmp_path)


def code_of(act: Callable[[], object], path: str | None = None) -> str:
    with pytest.raises(SourceCorrupt) as error:
        act()
    assert (error.value.host, error.value.side, error.value.phase) == ("mss", "store", "bundle")
    assert path is None or error.value.path == path
    assert str(error.value).isprintable()
    return str(error.value.facts["code"])


def test_sound_bundle_says_the_same_in_every_way(bundle: Shelved) -> None:
    assert read_index(bundle.host, bundle.path) == bundle.index
    beside = read_beside(bundle.host, bundle.path)
    assert (beside.index, beside.size, beside.digest) == (bundle.index, len(bundle.data), sha256(bundle.data))
    assert list(walk(bundle.host, bundle.path)) == list(bundle.layout.members)
    assert hashed(bundle.host, bundle.path) == bundle.index
    assert bundle.codes(deep=True) == []
    for entry in bundle.index.entries:
        assert bundle.data[entry.offset : entry.offset + entry.size] == FILES[entry.path]
        assert entry.digest == sha256(FILES[entry.path])


# Each makes up for the others.


def test_index_comes_from_where_it_can_be_had(bundle: Shelved) -> None:
    whole = recovered(bundle.host, bundle.path)
    assert (whole.index, whole.origin, whole.troubles) == (bundle.index, "last member", ())
    harmed = bytearray(bundle.data)
    harmed[bundle.layout.index_offset + 300] ^= 1
    bundle.write(bytes(harmed))
    beside = recovered(bundle.host, bundle.path)
    assert (beside.index, beside.origin) == (bundle.index, "beside")
    assert [error.facts["code"] for error in beside.troubles] == ["bundle-index"]
    bundle.beside.unlink()
    headers = recovered(bundle.host, bundle.path)
    assert (headers.index, headers.origin) == (bundle.index, "headers")
    assert [type(error) for error in headers.troubles] == [SourceCorrupt, SourceMissing]
    assert headers.index.to_bytes() == bundle.data[bundle.layout.index_offset :][: bundle.layout.index_size]


def test_bundle_that_says_it_nowhere_is_an_error(bundle: Shelved) -> None:
    bundle.beside.write_bytes(b"x" * 1000)
    bundle.write(bundle.data[:2048])
    assert code_of(lambda: recovered(bundle.host, bundle.path)) == "bundle-truncated"


def test_host_that_is_down_is_not_taken_for_a_damaged_bundle(bundle: Shelved, tmp_path: Path) -> None:
    (tmp_path / "mss/.stager/marker").unlink()
    for act in (read_index, read_beside, recovered, hashed):
        with pytest.raises(HostDown):
            act(bundle.host, bundle.path)


def test_bundle_that_is_gone_is_missing(bundle: Shelved) -> None:
    bundle.file.unlink()
    for act in (read_index, hashed):
        with pytest.raises(SourceMissing):
            act(bundle.host, bundle.path)
    assert recovered(bundle.host, bundle.path).origin == "beside"


# Damage.


def test_truncated_bundle_is_seen_wherever_it_was_cut(bundle: Shelved) -> None:
    for length in [*range(0, len(bundle.data), 512), 1, 5000, len(bundle.data) - 1]:
        bundle.write(bundle.data[:length])
        assert code_of(lambda: read_index(bundle.host, bundle.path), bundle.path) in (
            "bundle-truncated",
            "bundle-index",
        )
        assert code_of(lambda: list(walk(bundle.host, bundle.path)), bundle.path) == "bundle-truncated"
        assert "bundle-truncated" in bundle.codes()


def test_members_before_a_cut_are_told_by_their_headers(bundle: Shelved) -> None:
    bundle.write(bundle.data[: bundle.layout.members[2].offset + 10])
    coming = walk(bundle.host, bundle.path)
    assert [next(coming), next(coming)] == list(bundle.layout.members[:2])
    assert code_of(lambda: next(coming)) == "bundle-truncated"


def test_flipped_bit_is_seen_wherever_it_is(bundle: Shelved) -> None:
    """In a header or the index by looking; in data by their digest."""
    data_bytes = {
        place for one in bundle.index.entries for place in range(one.offset, one.offset + one.size + -one.size % 512)
    }
    for place in sorted(set(range(len(bundle.data))) - data_bytes)[::29]:
        harmed = bytearray(bundle.data)
        harmed[place] ^= 4
        bundle.write(bytes(harmed))
        assert bundle.codes() != [], place
    for entry in bundle.index.entries:
        if entry.size:
            harmed = bytearray(bundle.data)
            harmed[entry.offset + entry.size - 1] ^= 1
            bundle.write(bytes(harmed))
            assert bundle.codes() == []
            (error,) = verify(bundle.host, bundle.path, bundle.index, deep=True)
            assert (error.facts["code"], error.facts["member"]) == ("bundle-digest", entry.path)


def test_harmed_header_is_told_with_its_member(bundle: Shelved) -> None:
    harmed = bytearray(bundle.data)
    harmed[bundle.layout.members[1].offset - 512 + 124] ^= 1
    bundle.write(bytes(harmed))
    (error,) = verify(bundle.host, bundle.path, bundle.index)
    assert error.facts["code"] == "bundle-header"
    assert code_of(lambda: list(walk(bundle.host, bundle.path))) == "bundle-header"
    assert read_index(bundle.host, bundle.path) == bundle.index


def test_what_was_added_to_a_bundle_is_seen(bundle: Shelved) -> None:
    for more in (b"x", bytes(512), bytes(10240), header_of("D1/z", 0, 1) + bytes(1024)):
        bundle.write(bundle.data + more)
        with pytest.raises(SourceCorrupt):
            read_index(bundle.host, bundle.path)
        assert code_of(lambda: list(walk(bundle.host, bundle.path))) == "bundle-truncated"
        assert "bundle-foreign-index" in bundle.codes()


def test_bundle_that_has_grown_before_its_index_is_seen(bundle: Shelved) -> None:
    layout = bundle.layout
    start = layout.index_offset - len(header_of(layout.index_path, layout.index_size, layout.mtime_ns))
    bundle.write(bundle.data[:start] + bytes(10240) + bundle.data[start:])
    assert code_of(lambda: read_index(bundle.host, bundle.path)) == "bundle-foreign-index"
    assert code_of(lambda: list(walk(bundle.host, bundle.path))) == "bundle-truncated"


def test_member_after_the_index_is_seen(bundle: Shelved) -> None:
    bundle.write(bundle.data[:-1024] + header_of("D1/z", 0, 1) + bytes(1024))
    assert code_of(lambda: list(walk(bundle.host, bundle.path))) == "bundle-order"


# Indexes of others.


def _other(tmp_path: Path, files: dict[str, bytes]) -> Shelved:
    """Another bundle on another store."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = Shelved.__new__(Shelved)
    source = crafted.local(folder / "source")
    crafted.write(folder / "source", files)
    other.host = crafted.store(folder / "mss")
    other.path, other.index = crafted.packed(source, other.host)
    other.file = folder / "mss" / other.path
    other.data = other.file.read_bytes()
    other.beside = folder / "mss" / f"{other.path}.index"
    other.layout = layout_of(other.index.label, [one[:3] for one in other.index.entries])
    return other


def test_index_of_another_bundle_is_foreign(bundle: Shelved, tmp_path: Path) -> None:
    other = _other(tmp_path, {**FILES, "D1/raw/v1/a.fits": b"more"})
    start, begin = (
        one.index_offset - len(header_of(one.index_path, one.index_size, one.mtime_ns))
        for one in (bundle.layout, other.layout)
    )
    bundle.write(bundle.data[:start] + other.data[begin:])
    assert code_of(lambda: read_index(bundle.host, bundle.path)) == "bundle-foreign-index"
    assert code_of(lambda: list(walk(bundle.host, bundle.path))) == "bundle-foreign-index"
    bundle.beside.write_bytes(other.beside.read_bytes())
    assert code_of(lambda: read_beside(bundle.host, bundle.path), f"{bundle.path}.index") == "bundle-foreign-index"
    assert code_of(lambda: recovered(bundle.host, bundle.path)) == "bundle-foreign-index"


def test_renamed_bundle_is_told_so(bundle: Shelved) -> None:
    old = bundle.path.rpartition("/")[2]
    bundle.file.rename(bundle.file.with_name("mine.000000000000.stager.tar"))
    with pytest.raises(SourceCorrupt, match=old):
        read_index(bundle.host, "D1/mine.000000000000.stager.tar")
    assert code_of(lambda: hashed(bundle.host, "D1/mine.000000000000.stager.tar")) == "bundle-foreign-index"


def test_name_that_is_no_bundle_s_is_refused(bundle: Shelved) -> None:
    bundle.file.rename(bundle.file.with_name("my.tar"))
    assert code_of(lambda: hashed(bundle.host, "D1/my.tar")) == "bundle-foreign-index"


def test_stale_index_does_not_agree_with_the_bundle(bundle: Shelved, tmp_path: Path) -> None:
    """The bundle was made anew of other files of the same number and lengths; what was kept of it is of before."""
    other = _other(tmp_path, {path.replace("c00", "c01"): data for path, data in FILES.items()})
    bundle.write(other.data)
    codes = bundle.codes()
    assert codes.count("bundle-foreign-index") == 2  # the members that have other names
    assert codes[-1] == "bundle-index"


def test_index_of_a_bundle_that_was_made_again_of_other_bytes_is_told_by_digests(bundle: Shelved) -> None:
    changed = tuple(one._replace(digest=sha256(b"before")) for one in bundle.index.entries)
    bundle.index = Index(bundle.index.label, changed)
    assert bundle.codes() == ["bundle-index"]
    assert bundle.codes(deep=True).count("bundle-digest") == len(FILES)


def test_file_beside_is_held_against_the_bundles_size(bundle: Shelved) -> None:
    bundle.write(bundle.data + bytes(512))
    assert code_of(lambda: read_beside(bundle.host, bundle.path)) == "bundle-foreign-index"


# Tars that were made to harm.


def _hostile(tmp_path: Path, *parts: bytes) -> tuple[Host, str]:
    host = crafted.store(tmp_path / "mss")
    path = "x.000000000000.stager.tar"
    (tmp_path / "mss" / path).write_bytes(crafted.tar(*parts))
    return host, path


def _member(path: str, data: bytes = b"data") -> tuple[bytes, bytes]:
    return header_of(path, len(data), 10**18), data


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        (_member("../../etc/cron.d/x"), "bundle-climbs"),
        (_member("/etc/passwd"), "bundle-climbs"),
        (_member("a/./b"), "bundle-climbs"),
        (_member(".stager/marker"), "bundle-climbs"),
        ((crafted.block(b"a", 0, b"2", link=b"/etc"), *_member("a/passwd")), "bundle-link"),
        ((crafted.block(b"a", 0, b"1", link=b"/etc/passwd"),), "bundle-link"),
        ((crafted.block(b"a", 0, b"6"),), "bundle-type"),
        ((*_member("a"), *_member("a")), "bundle-duplicate"),
        ((*_member("e\u0301"), *_member("\u00e9")), "bundle-duplicate"),
        ((*_member("a"), *_member("a/b")), "bundle-clash"),
        ((*_member("b"), *_member("a")), "bundle-order"),
        ((header_of("a", 1 << 40, 1), b"data"), "bundle-truncated"),
        ((header_of("a", (1 << 63) - 1, 1), b"data"), "bundle-truncated"),
        ((crafted.block(b"a", b"\xff" * 12), b"data"), "bundle-size"),
        (_member(".stager/index/other.index"), "bundle-foreign-index"),
        (_member("a"), "bundle-truncated"),  # there is no index
        ((b"PK\3\4" * 500,), "bundle-header"),
        ((), "bundle-truncated"),
    ],
)
def test_hostile_tar_is_refused_by_its_headers(tmp_path: Path, parts: tuple[bytes, ...], code: str) -> None:
    host, path = _hostile(tmp_path, *parts)
    assert code_of(lambda: list(walk(host, path)), path) == code
    assert code_of(lambda: hashed(host, path), path) == code
    assert code_of(lambda: read_index(host, path), path) == "bundle-truncated"


def test_size_that_swallows_the_next_member_makes_another_bundle(tmp_path: Path) -> None:
    """A header whose size was made larger, with a right sum, hides what follows: the bundle's name tells."""
    members = [("a", 4, 10**18), ("b", 4, 10**18)]
    name = name_of("x", members)
    host = crafted.store(tmp_path / "mss")
    index = b"{}"
    parts = (header_of("a", 4 + 508 + 1024, 10**18), b"data", *_member("b"))
    tar = crafted.tar(*parts, header_of(f".stager/index/{name}.index", len(index), 10**18), index)
    (tmp_path / "mss" / name).write_bytes(tar)
    assert [one.path for one in walk(host, name)] == ["a"]
    assert code_of(lambda: hashed(host, name)) == "bundle-foreign-index"


def test_index_that_says_it_is_longer_than_its_bundle_is_refused(bundle: Shelved) -> None:
    lines = bundle.index.to_bytes()[:-LAST]
    lying = crafted.signed(lines, len(bundle.data), index_bytes=len(bundle.data) * 2)
    place = bundle.layout.index_offset
    bundle.write(bundle.data[:place] + lying + bundle.data[place + len(lying) :])
    assert code_of(lambda: read_index(bundle.host, bundle.path)) == "bundle-index"


def test_index_is_found_by_reading_little_more_than_itself(tmp_path: Path) -> None:
    source = crafted.local(tmp_path / "source")
    store = crafted.store(tmp_path / "mss")
    crafted.write(tmp_path / "source", {f"f{number:03}": bytes([number]) * 100_000 for number in range(250)})
    path, index = crafted.packed(source, store)
    before = crafted.bytes_read()
    assert read_index(store, path) == index
    assert crafted.bytes_read() - before < 256 << 10
    before = crafted.bytes_read()
    assert len(list(walk(store, path))) == 250
    assert crafted.bytes_read() - before < 8 << 20


def test_index_of_many_members_needs_a_second_read(tmp_path: Path) -> None:
    source = crafted.local(tmp_path / "source")
    store = crafted.store(tmp_path / "mss")
    crafted.write(tmp_path / "source", {f"f{number:04}": b"%d" % number for number in range(2000)})
    path, index = crafted.packed(source, store)
    assert len(index.to_bytes()) > 64 << 10
    assert read_index(store, path) == index
    assert (tmp_path / "mss" / path).stat().st_size == packed_size("visit=1", [one[:3] for one in index.entries])
