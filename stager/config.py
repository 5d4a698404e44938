"""stager.toml: read, checked, all its problems at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeGuard

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from manifests.errors import Problem, found, shown
from manifests.wording import nearest, problems_of
from stager.finding import DEFAULT_DATABASE, ConfigError, database_url, find_config, read_toml
from transfers.command.templates import Templates
from transfers.ssh.channels import ADDRESS, USER

Seconds = Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)]
Mode = Annotated[str, Field(pattern=r"^0?[0-7]{3}$")]
KeyFile = Annotated[str, Field(pattern=r"^(~?/[^\x00-\x1f\x7f]+)$", max_length=1024)]
HOURS = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PYTHON = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]{0,254}")  # a word that no shell takes for anything else
DATASET_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")  # a type of datasets, or the name of an id
MOST_STREAMS = 32
LOCAL_STREAMS = (2, 2)  # of a route between two disks of this machine, where the configuration names none
SSH_STREAMS = (1, 8)  # and of one with an end over SSH, where they adapt


def _hours(text: str) -> str:
    if not HOURS.fullmatch(text):
        raise ValueError(f'found "{text}"; expected two times such as "20:00-06:00"')
    return text


def _streams(given: object) -> object:
    """One number, or two in order, as the bounds that they are."""
    numbers = given if isinstance(given, list | tuple) else [given, given]
    whole = [one for one in numbers if isinstance(one, int) and not isinstance(one, bool) and 1 <= one <= MOST_STREAMS]
    if len(numbers) != 2 or len(whole) != 2 or whole[0] > whole[1]:
        raise ValueError(f"found {found(given)}; expected {STREAMS_EXPECTED}")
    return tuple(whole)


def _told_ids(given: object) -> object:
    """The ids that datasets are told by: their names here, each with its name there."""
    told = dict(zip(given, given, strict=True)) if _is_list_of_text(given) else given
    pairs = list(told.items()) if isinstance(told, dict) else []
    plain = all(isinstance(word, str) and DATASET_WORD.fullmatch(word) for pair in pairs for word in pair)
    if not pairs or not plain or len({there for _, there in pairs}) < len(given):  # type: ignore[arg-type]  # sized
        raise ValueError(f"found {found(given)}; expected {TOLD_IDS_EXPECTED}")
    return told


def _is_list_of_text(given: object) -> TypeGuard[list[str]]:
    return isinstance(given, list | tuple) and all(isinstance(one, str) for one in given)


TOLD_IDS_EXPECTED = (
    'the ids of a dataset in their order, ["visit", "filter", "ccd", "amp"], or with other names for them: '
    '{ visit = "visit", sensor = "ccd" }; left out: all that the path of a file has'
)
ToldIds = Annotated[list[str], Field(min_length=1)] | Annotated[dict[str, str], Field(min_length=1)]
QUEUE_KINDS = '"table", "joboffice" or "lists"'


STREAMS_EXPECTED = f"a number of streams such as 4 (1 to {MOST_STREAMS}), or the least and the most of them: [1, 8]"


Streams = Annotated[int, Field(ge=1, le=MOST_STREAMS)] | Annotated[list[int], Field(min_length=2, max_length=2)]


class Part(BaseModel):
    """A table of the configuration: frozen, and no key of it is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Stager(Part):
    """What concerns the service as a whole."""

    database: str = Field(
        default=DEFAULT_DATABASE,
        description='a database URL, such as "sqlite:///stager.db" or "postgresql+psycopg://user@host/name"',
        pattern=r"^(sqlite:///.+|postgresql(\+psycopg)?://.+)$",
    )
    spool: str | None = Field(default="incoming", description="the folder whose manifests are submitted", min_length=1)
    scratch: str = Field(
        default="scratch", description="the folder where packed focal planes are unpacked", min_length=1
    )
    cameras: str = Field(default="cameras", description="a folder with cameras of your own", min_length=1)
    serves: tuple[str, ...] | None = Field(
        default=None, description="a list of the hosts that this worker reaches; left out: all", strict=False
    )
    lease_s: Seconds = Field(default=60.0, description="seconds that a claim lasts without being renewed")
    walk_s: Seconds = Field(default=60.0, description="seconds between looks for what no event told of")
    drain_s: Seconds = Field(
        default=20.0, description="seconds that running work is given to end when the daemon stops"
    )
    tries: StrictInt = Field(
        default=8, ge=1, le=1000, description="failed tries after which an item is held (1 to 1000)"
    )


class LocalHost(Part):
    """Files of this machine."""

    kind: Literal["local"] = Field(description='"local", "ssh" or "store"')
    root: str = Field(description='an absolute path, such as "/usr/data"', pattern="^/")
    links: StrictBool = Field(
        default=False, description="true or false: whether links that stay inside the root are followed"
    )
    file_mode: Mode | None = Field(default=None, description='the mode of new files, such as "0644"')
    folder_mode: Mode | None = Field(default=None, description='the mode of new folders, such as "0755"')
    floor: StrictInt = Field(
        default=0, ge=0, description="bytes that are kept free there: below it nothing is brought (0 or more)"
    )
    make_room: StrictBool = Field(
        default=False,
        description="true or false: whether copies of transient manifests are evicted, below its floor or for work",
    )
    grace_s: Seconds = Field(
        default=86400.0, description="seconds that an evicted file lies in quarantine before it is removed"
    )

    @property
    def by_ssh(self) -> bool:
        """Whether it is reached over SSH."""
        return False


class SshHost(LocalHost):
    """Files of another machine. What is not said of the login is left to the site's ssh configuration."""

    kind: Literal["ssh"] = Field(description='"local", "ssh" or "store"')  # type: ignore[assignment]  # on purpose
    address: str = Field(
        description="a name, an address or an alias of the ssh configuration: letters, digits and ._:%- with none of "
        ".%- first",
        pattern=f"^({ADDRESS.pattern})$",
    )
    user: str | None = Field(
        default=None, description='a user name there, such as "stager"', pattern=f"^({USER.pattern})$"
    )
    port: StrictInt | None = Field(default=None, ge=1, le=65535, description="a port number (1 to 65535)")
    identity: KeyFile | None = Field(
        default=None, description='the file of a private key here, such as "~/.ssh/stager_ed25519"'
    )
    known_hosts: KeyFile | None = Field(
        default=None, description='the file here that the host\'s key must be in, such as "/etc/stager/known_hosts"'
    )
    client: Literal["auto", "openssh", "paramiko"] = Field(
        default="auto", description='"auto", "openssh" or "paramiko"'
    )
    python: str = Field(
        default="python3",
        description="a Python of 3.6 or newer there: a name or path without blanks and shell characters",
        pattern=f"^({PYTHON.pattern})$",
    )
    streams: StrictInt = Field(
        default=8, ge=1, le=MOST_STREAMS, description=f"connections side by side on one route (1 to {MOST_STREAMS})"
    )

    @property
    def by_ssh(self) -> bool:
        return True


Argv = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...], Field(min_length=1, strict=False)]
Words = Annotated[tuple[str, ...], Field(strict=False)]


class Commands(Part):
    """How a store is used by programs: for each act the words of a command, which no shell sees."""

    put: Argv = Field(description='the words of a command, such as ["hsi", "put", "{local}", ":", "{path}"]')
    get: Argv = Field(description='the words of a command, such as ["hsi", "get", "{local}", ":", "{path}"]')
    list: Argv = Field(description='the words of a command, such as ["hsi", "ls", "-lR", "{path}"]')
    remove: Argv = Field(description='the words of a command, such as ["hsi", "rm", "{path}"]')
    stage: Argv | None = Field(default=None, description='the words of a command, such as ["hsi", "stage", "{paths}"]')
    digest: Argv | None = Field(
        default=None, description='the words of a command, such as ["hsi", "hashlist", "{path}"]'
    )
    rename: Argv | None = Field(
        default=None, description='the words of a command, such as ["hsi", "mv", "{path}", "{to}"]'
    )
    listed: str = Field(
        description="a pattern for a line of what `list` prints, with the groups path and size, and where there are "
        "such, mtime, state, volume, position and digest",
        max_length=2000,
    )
    digested: str | None = Field(
        default=None, description="a pattern for a line of what `digest` prints, with the group digest", max_length=2000
    )
    absent: str | None = Field(
        default=None, description="a pattern found in what `list` prints of a file that is not there", max_length=2000
    )
    full: str | None = Field(
        default=None,
        description="a pattern found in what a `put` that failed prints when the store is full",
        max_length=2000,
    )
    ignored: str | None = Field(
        default=None, description="a pattern for lines of `list` that are of no file", max_length=2000
    )
    algorithm: str | None = Field(default=None, description='the algorithm of `digest`, such as "md5" or "sha256"')
    online: Words = Field(default=(), description="what the group state is of a file that can be read at once")
    staging: Words = Field(default=(), description="what the group state is of a file on its way from tape")
    lost: Words = Field(default=(), description="what the group state is of a file that is no more")
    timeout_s: Seconds = Field(default=3600.0, description="seconds that a command may take")
    keep_bytes: StrictInt = Field(
        default=32 << 30, ge=0, description="bytes of files brought from the store that are kept in the scratch folder"
    )


class Bucket(Part):
    """Where an S3 store is."""

    bucket: str = Field(
        description='the name of a bucket, such as "lsst"', pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$"
    )
    endpoint: str | None = Field(
        default=None,
        description='the address of the server, such as "https://s3.example.edu"; left out: that of AWS',
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$",
    )
    region: str | None = Field(default=None, description='a region, such as "us-east-1"', pattern=r"^[a-z0-9-]{1,40}$")
    credentials: KeyFile | None = Field(
        default=None,
        description="a file with the lines access_key_id = ... and secret_access_key = ...; left out: the environment",
    )


class StoreHost(SshHost):
    """A mass store: one that is mounted here, one behind an SSH host, one that programs speak to, or a bucket."""

    kind: Literal["store"] = Field(description='"local", "ssh" or "store"')  # type: ignore[assignment]
    driver: Literal["directory", "ssh", "command", "s3"] = Field(description='"directory", "ssh", "command" or "s3"')
    commands: Commands | None = Field(default=None, description='a table with the commands of the driver "command"')
    s3: Bucket | None = Field(default=None, description='a table with the bucket of the driver "s3"')
    recalls: StrictInt = Field(
        default=64,
        ge=1,
        le=100_000,
        description="files that the store is asked to bring from tape at a time (1 or more)",
    )
    recall_s: Seconds = Field(
        default=3600.0, description="seconds after which a recall that did not come is asked for again"
    )
    address: str | None = Field(  # type: ignore[assignment]  # `Config` holds that the driver "ssh" has one
        default=None,
        description=SshHost.model_fields["address"].description,
        pattern=f"^({ADDRESS.pattern})$",
    )

    @property
    def by_ssh(self) -> bool:
        return self.driver == "ssh"


SSH_KEYS = tuple(key for key in SshHost.model_fields if key not in LocalHost.model_fields)
Host = Annotated[LocalHost | SshHost | StoreHost, Field(discriminator="kind")]


class Route(Part):
    """Limits of one ordered pair of hosts."""

    streams: Annotated[tuple[int, int], BeforeValidator(_streams, json_schema_input_type=Streams)] | None = Field(
        default=None, description=STREAMS_EXPECTED
    )
    bytes_per_s: StrictInt | None = Field(
        default=None, ge=1000, description="bytes a second at the most (1000 or more)"
    )
    hours: Annotated[str, AfterValidator(_hours)] | None = Field(
        default=None, description='the hours in which it works, local time, such as "20:00-06:00"'
    )


class TableQueue(Part):
    """Triggers wait in the database until a pipeline claims them."""

    kind: Literal["table"] = Field(description=QUEUE_KINDS)
    lease_s: Seconds = Field(default=3600.0, description="seconds after which a claimed trigger may be claimed again")


class FolderQueue(Part):
    """Triggers become files in a folder of this machine, which the pipeline takes from there."""

    folder: str = Field(
        description='an absolute path on this machine, such as "/lsst/joboffices_1/PT1Pipe-joboffice"',
        pattern=r"^/[^\x00-\x1f\x7f]+$",
        max_length=1024,
    )
    type: str | None = Field(
        default=None,
        description='a type of datasets, such as "raw"; left out: the name of the layout that each file has',
        pattern=f"^({DATASET_WORD.pattern})$",
    )
    datasets: Literal["files", "group"] = Field(
        default="files", description='"files" (a dataset for each file of a group) or "group" (one for the group)'
    )
    ids: Annotated[dict[str, str], BeforeValidator(_told_ids, json_schema_input_type=ToldIds)] | None = Field(
        default=None, description=TOLD_IDS_EXPECTED
    )


class JobOfficeQueue(FolderQueue):
    """The folders of a job office of DC3b: each dataset is a file in its `dataAvailable`."""

    kind: Literal["joboffice"] = Field(description=QUEUE_KINDS)


class ListQueue(FolderQueue):
    """A list of datasets for each trigger, as announceDataset.py reads it."""

    kind: Literal["lists"] = Field(description=QUEUE_KINDS)
    flush: StrictInt = Field(
        default=0, ge=0, le=1000, description="datasets of zeros that end a list and flush pipelines (0 to 1000)"
    )


Queue = Annotated[TableQueue | JobOfficeQueue | ListQueue, Field(discriminator="kind")]


class Config(Part):
    """All of stager.toml. `path` is the file it was read from; relative folders are beside it."""

    stager: Stager = Field(default_factory=Stager, description="a table [stager]")
    hosts: dict[str, Host] = Field(default_factory=dict, description="tables [hosts.NAME]")
    routes: dict[str, Route] = Field(default_factory=dict, description='tables [routes."SOURCE > DESTINATION"]')
    queues: dict[str, Queue] = Field(default_factory=dict, description="tables [queues.NAME]")
    path: Path = Field(default=Path("stager.toml"), exclude=True, strict=False)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if wrong := tuple(self._wrong_names()):
            raise ConfigError(wrong, str(self.path))
        return self

    def _wrong_names(self) -> Iterator[Problem]:
        for kind, names in (("host", self.hosts), ("queue", self.queues)):
            for name in names:
                if not NAME.fullmatch(name):
                    yield Problem(f"{kind}s", f'a {kind} cannot be named "{shown(name)}"; use letters, digits and ._-')
        for name in self.routes:
            ends = [end.strip() for end in name.split(">")]
            if len(ends) != 2 or not set(ends) <= set(self.hosts):
                yield Problem("routes", f'"{shown(name)}" is not "SOURCE > DESTINATION" of two hosts above')
        for name, host in self.hosts.items():
            yield from _wrong_driver(f"hosts.{name}", host)
        for name in self.stager.serves or ():
            if name not in self.hosts:
                yield Problem("stager.serves", f'"{shown(name)}" is no host{nearest(name, self.hosts)}')

    @property
    def database_url(self) -> str:
        return database_url(self.path, {"stager": {"database": self.stager.database}})

    @property
    def host_kinds(self) -> dict[str, str]:
        return {name: host.kind for name, host in self.hosts.items()}

    @property
    def camera_folders(self) -> tuple[Path, ...]:
        return (self.path.parent / self.stager.cameras,)

    @property
    def spool(self) -> Path | None:
        return self.path.parent / self.stager.spool if self.stager.spool else None

    @property
    def scratch(self) -> Path:
        return self.path.parent / self.stager.scratch

    def route(self, source: str, destination: str) -> Route:
        """The limits of a route: what the configuration says, else the defaults."""
        for name, route in self.routes.items():
            if [end.strip() for end in name.split(">")] == [source, destination]:
                return route
        return Route()

    def streams(self, source: str, destination: str) -> tuple[int, int]:
        """The least and the most streams of a route: as it says, else by its ends; no more than an end takes."""
        ends = [host for name in (source, destination) if (host := self.hosts.get(name)) and host.by_ssh]
        least, most = self.route(source, destination).streams or (SSH_STREAMS if ends else LOCAL_STREAMS)
        bound = min([most, *(host.streams for host in ends if isinstance(host, SshHost))])
        return min(least, bound), bound


DRIVER_KEYS = {
    "ssh": ("address", *(key for key in SSH_KEYS if key != "address")),
    "command": ("commands",),
    "s3": ("s3",),
}


def _wrong_driver(place: str, host: LocalHost) -> Iterator[Problem]:
    """Every driver of a store has its own keys: the first of them must be there, and none of another's."""
    if not isinstance(host, StoreHost):
        return
    for driver, keys in DRIVER_KEYS.items():
        if driver == host.driver:
            if getattr(host, keys[0]) is None:
                expected = type(host).model_fields[keys[0]].description
                yield Problem(f"{place}.{keys[0]}", f"missing; expected {expected}")
            continue
        for key in keys:
            if key in host.model_fields_set:
                yield Problem(
                    f"{place}.{key}", f'`{key}` is of the driver "{driver}"; the driver "{host.driver}" has none'
                )
    if host.commands is not None:
        for key, text in templates_of(host.commands).problems():
            yield Problem(f"{place}.commands.{key}", text)


def templates_of(commands: Commands) -> Templates:
    """The commands as the driver has them."""
    return Templates(**commands.model_dump())


def read_config(given: str | None = None) -> Config:
    """The configuration that `given`, the environment or the usual places name. Raises ConfigError."""
    path = find_config(given)
    return parse_config(read_toml(path), path)


def parse_config(document: dict[str, Any], path: Path) -> Config:
    """The configuration in a document; ConfigError has everything that is wrong with it."""
    document = {key: value for key, value in document.items() if key != "path"}
    try:
        return Config.model_validate({**document, "path": path})
    except ValidationError as error:
        raise ConfigError(tuple(problems_of(error, Config)), str(path)) from error


def schema() -> dict[str, Any]:
    """The JSON Schema of stager.toml, for editors."""
    found = Config.model_json_schema()
    found["properties"].pop("path", None)
    return found
