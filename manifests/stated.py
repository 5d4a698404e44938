"""What every manifest says, however its lists are held."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt

from .part import Part
from .parts import HOST_NAME, Bundling, Chop, Expected, IdTable, Kind, Place, Plain, Trigger

EXPECT = (
    'a list of visits, or of tables of ids such as {visit = 85770111, filter = "r"}; '
    "or the name of a registry beside the manifest"
)


class Stated(Part):
    """What a manifest says of itself, however its lists are held."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = Field(
        description="a name for the manifest, of letters, digits and ._+- (at most 100)",
        examples=["cfht-d1-chop"],
    )
    kind: Kind = Field(description='"copy", "chop", "archive" or "restore"', examples=["copy"])
    dataset: Annotated[Plain, Field(min_length=1, max_length=200)] = Field(
        description="the name the files go by in status, triggers and restores (at most 200 characters)",
        examples=["CFHTLS D1 raw"],
    )
    lead: Annotated[Plain, Field(max_length=100)] = Field(
        default="", description="the person who answers for the dataset (at most 100 characters)"
    )
    source: Place = Field(
        description="host:path, the path perhaps a pattern; with `files`, where the listed paths start from",
        examples=["lsst10:CFHTDeep/D1/raw/**"],
    )
    destination: Place = Field(
        description="host:path, the folder below which the files shall lie", examples=["lsst:CFHTLS/D1/raw"]
    )
    camera: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] | None = Field(
        default=None, description="the name of a camera", examples=["cfht_megacam", "lsst_imsim"]
    )
    ids: IdTable = Field(default_factory=dict, description='a table of ids, such as field = "D3"')
    trigger: Trigger | None = Field(default=None, description="a table with `queue` and perhaps `per`")
    expect: tuple[Expected, ...] = Field(default=(), description=EXPECT)
    focal_plane: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,40}$")] | None = Field(
        default=None,
        description="the name of another focal plane of the camera than its usual one",
        examples=["spliced40"],
    )
    proof: Literal["reread", "stream", "store"] = Field(
        default="reread",
        description='"reread" (read back from disk), "stream" (hashed while written) or "store" (the store\'s own '
        "digest)",
    )
    priority: Annotated[StrictInt, Field(ge=-1000, le=1000)] = Field(
        default=0, description="a whole number from -1000 to 1000; higher goes first"
    )
    replace: StrictBool = Field(
        default=False, description="true or false: whether files that differ at the destination are set aside"
    )
    check: Literal["fits", "headers", "none"] = Field(
        default="fits",
        description='"fits" (FITS files are looked into: structure, headers, checksums), "headers" (no pixel is read '
        'for it) or "none"',
    )
    hold: Literal["note", "warn", "fail", "none"] = Field(
        default="fail", description='the least severity of a finding that holds an item: "note", "warn", "fail", "none"'
    )
    chop: Chop = Field(default_factory=Chop, description="a table with `crpix`")
    bundle: Bundling | None = Field(
        default=None, description="a table with `per`, `bytes`, `files`, `below` and `age_s`, or an empty one"
    )
    second: Annotated[str, Field(pattern=HOST_NAME.pattern)] | None = Field(
        default=None, description="the name of another store that gets the same files", examples=["vault"]
    )
    pin: StrictBool = Field(
        default=False, description="true or false: whether its files are kept where they are, and never evicted"
    )
    transient: StrictBool = Field(
        default=False, description="true or false: whether its files may go from its destination to make room"
    )

    @property
    def expects(self) -> bool:
        """Whether it says what should exist."""
        return bool(self.expect)
