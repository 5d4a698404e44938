"""A bucket of an S3 store, spoken to by obstore: objects by their keys, everything that goes wrong a Fault.

Several threads may use it at once. A request that the store did not answer, or answered with an error of its own, is
tried again a few times within a minute: an upload of hours must not end for one such answer of one of its parts.
"""

from __future__ import annotations

import datetime
import http.client
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from transfers.agent import Fault, held_time
from transfers.s3.errors import CODE, MESSAGE, NOTHING_ANSWERS, Missing, fault_of_answer, told

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import S3Store as ObjectStore

CHUNK = 1 << 20
CONNECT_S = 10
SILENCE_S = 180  # in which a part has to be sent and answered, and in which an answer must go on
TRIES = 3  # after the first
TRIES_S = 60
SIGNED_S = 900  # for which a signed address is good
PART = 8 << 20  # bytes of a part, and the most of a file that is put in one request
PARTS = 9000  # of one upload: S3 takes 10000
SPEAKS_AT_ONCE = 4  # parts of one upload that are under way together
STAMP = re.compile(r"(-?[0-9]{1,12})(?:\.([0-9]{1,9})[0-9]*)?")
RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
MISSING = "the driver s3 needs obstore: install stager[s3]"


class Object(NamedTuple):
    """An object as the store has it; its size and time are called as those of os.stat are, for the agent's rules."""

    st_size: int
    st_mtime_ns: int
    tag: str  # its ETag without quotes, which another object of the name has not
    modified: float  # when it was put there
    storage: str = ""  # its class, where that is not the ordinary one


class Bucket:
    """The objects of one bucket. Where it gives no key, the environment has it, or the machine's own service."""

    def __init__(
        self, name: str, endpoint: str | None, region: str | None, key: str | None, secret: str | None
    ) -> None:
        try:
            import obstore
            from obstore.store import S3Store as ObjectStore
        except ImportError as error:
            raise Fault("unsupported", MISSING) from error
        self.name = name
        self.endpoint = (endpoint or f"s3.{region or 'us-east-1'}.amazonaws.com").rstrip("/")
        self.obstore = obstore
        self.ranges = True  # whether it answers as it should when stretches are asked for
        options: dict[str, Any] = {
            "endpoint": endpoint,
            "region": region,
            "access_key_id": key,
            "secret_access_key": secret,
            # Of servers that know no conditions on copies, most pass over what they do not know.
            "copy_if_not_exists": "header:if-none-match:*",
            "disable_bulk_delete": True,  # not known everywhere, and tells less of what it could not delete
        }
        with told():
            self.store: ObjectStore = ObjectStore(
                name,
                config={name: value for name, value in options.items() if value is not None},  # type: ignore[arg-type]
                client_options={
                    "allow_http": (endpoint or "").startswith("http://"),
                    "connect_timeout": f"{CONNECT_S}s",
                    "read_timeout": f"{SILENCE_S}s",
                    "timeout": "7d",  # of a whole answer, which may be a day's
                    "user_agent": "stager",
                },
                retry_config={
                    "max_retries": TRIES,
                    "retry_timeout": datetime.timedelta(seconds=TRIES_S),
                    "backoff": {"init_backoff": _ms(50), "max_backoff": _ms(2000), "base": 2},
                },
            )

    # Looking and reading.

    def head(self, key: str) -> Object | None:
        """The object of that key; None where there is none, or no such bucket: the store does not tell which."""
        try:
            with told():
                result = self.obstore.get(self.store, key, options={"head": True})
        except Missing:
            return None
        return _object(result.meta, result.attributes)

    def kept(self, key: str) -> dict[str, str]:
        """What is kept beside the bytes of an object, its time among it, as `upload` takes it; Missing for none."""
        with told():
            return dict(self.obstore.get(self.store, key, options={"head": True}).attributes)

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix ("" for all), sorted by their bytes. A key that no path can be is a Fault."""
        listed = iter(self.obstore.list(self.store, prefix or None))
        while True:
            with told():
                page = next(listed, None)
            if page is None:
                return
            yield from (found["path"] for found in page)

    def get(self, key: str, stretch: tuple[int, int] | None = None) -> tuple[Object, Iterator[memoryview]]:
        """The object, and its bytes, or those of a stretch (offset, size) of it, as they are asked for.

        Fewer bytes come than were asked for only where the object ends before. A stretch must have some, and begin
        within the object: else "source changed".
        """
        if stretch is not None and not self.ranges:
            return self._signed(key, stretch)
        try:
            with told():
                wanted = {} if stretch is None else {"range": (stretch[0], stretch[0] + stretch[1])}
                result = self.obstore.get(self.store, key, options=wanted)  # type: ignore[arg-type] # one of its keys
        except Fault as fault:
            if "non-partial response" not in fault.text:
                raise
            self.ranges = False
            return self.get(key, stretch)
        found = _object(result.meta, result.attributes)
        begin, end = (0, found.st_size) if stretch is None else result.range
        if stretch is not None and begin != stretch[0]:
            raise Fault("transient", f"the store gave what begins at byte {begin} where {stretch[0]} was asked for")
        return found, _chunks(result, end - begin)

    # Changing.

    def put(self, key: str, data: bytes | bytearray, attributes: dict[str, str]) -> None:
        """Put an object where none is, in one request: Fault "conflict" where the store sees that one is there."""
        with told():
            self.obstore.put(self.store, key, data, attributes=attributes, mode="create", use_multipart=False)

    def upload(self, key: str, parts: Iterable[Any], part_bytes: int, attributes: dict[str, str]) -> None:
        """Put an object, whatever is there, from parts of that size, the last of them perhaps smaller.

        It is there when all of them are: where the parts end with an error the upload is called off, the store forgets
        what it got, and that error is raised. Of a process that dies in between it keeps the parts for as long as it
        is set to.
        """
        called_off: list[Exception] = []  # as obstore may end with what calling it off came to, and not with why

        def given() -> Iterator[Any]:
            try:
                yield from parts
            except Exception as error:
                called_off.append(error)
                raise

        try:
            with told():
                self.obstore.put(
                    self.store,
                    key,
                    given(),
                    attributes=attributes,
                    use_multipart=True,
                    chunk_size=part_bytes,
                    max_concurrency=SPEAKS_AT_ONCE,
                )
        except Exception:
            if called_off:
                raise called_off[0] from None
            raise

    def copy(self, key: str, new: str) -> None:
        """Have the store copy an object, with all that is kept of it, to where none is: Fault "conflict" where the
        store sees that one is there."""
        try:
            with told():
                self.obstore.copy(self.store, key, new, overwrite=False)
        except Fault as fault:
            if fault.kind != "unsupported" or fault.facts.get("status") != 501:
                raise
            with told():  # it refuses the condition
                self.obstore.copy(self.store, key, new, overwrite=True)

    def delete(self, key: str) -> None:
        """The object is gone, also when it was not there."""
        try:
            with told():
                self.obstore.delete(self.store, key)
        except Missing:
            return

    # Stretches of servers that answer "200" to who asks for one, which obstore takes for no answer.

    def _signed(self, key: str, stretch: tuple[int, int]) -> tuple[Object, Iterator[memoryview]]:
        """The same as `get`, by a signed address and the standard library."""
        offset, size = stretch
        with told():
            address = self.obstore.sign(self.store, "GET", key, datetime.timedelta(seconds=SIGNED_S))
        asked = urllib.request.Request(address, headers={"Range": f"bytes={offset}-{offset + size - 1}"})  # noqa: S310  obstore made the address from the endpoint
        with _heard():
            answer = urllib.request.urlopen(asked, timeout=SILENCE_S)  # noqa: S310  as above
        given = RANGE.fullmatch(answer.headers.get("Content-Range") or "")
        begin, end = (
            (int(given[1]), int(given[2]) + 1) if given else (0, int(answer.headers.get("Content-Length") or 0))
        )
        whole = int(given[3]) if given else end
        stamp = answer.headers.get("Last-Modified") or ""
        found = Object(
            whole,
            _mtime_ns(answer.headers.get("x-amz-meta-mtime"), _http_time(stamp)),
            (answer.headers.get("ETag") or "").strip('"'),
            _http_time(stamp),
        )
        return found, _heard_chunks(answer, offset - begin, min(size, end - offset))


def part_bytes(size: int) -> int:
    """Bytes of each part of an object of that size."""
    return max(PART, -(-size // PARTS))


def _chunks(result: GetResult, size: int) -> Iterator[memoryview]:
    stream = iter(result.stream(min_chunk_size=CHUNK)) if size else iter(())
    while size:
        with told():
            data = next(stream, None)
        if data is None:
            raise Fault("transient", f"the store's answer broke off {size} bytes before its end")
        size -= len(data)
        yield memoryview(data)


def _heard_chunks(answer: Any, skipped: int, size: int) -> Iterator[memoryview]:
    """So many bytes of an answer, some passed over before: a server that knows no stretches gives all there is."""
    with answer:
        while size > 0:
            with _heard():
                data = answer.read(min(CHUNK, skipped or size))
            if not data:
                raise Fault("transient", f"the store's answer broke off {size} bytes before its end")
            if skipped:
                skipped -= len(data)
            else:
                size -= len(data)
                yield memoryview(data)


@contextmanager
def _heard() -> Iterator[None]:
    """Faults for what the standard library raises."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(10_000).decode("utf-8", "replace")
        code, message = CODE.search(body), MESSAGE.search(body)
        raise fault_of_answer(error.code, code[1] if code else "", message[1] if message else "") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError | socket.gaierror):
            raise Fault("host down", NOTHING_ANSWERS) from error
        raise Fault("transient", f"the conversation with the store broke off: {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Fault("transient", f"the conversation with the store broke off: {error}") from error


def _object(meta: ObjectMeta, attributes: Any) -> Object:
    modified = meta["last_modified"].timestamp()
    return Object(
        meta["size"],
        _mtime_ns(attributes.get("mtime"), modified),
        (meta["e_tag"] or "").strip('"'),
        modified,
        attributes.get("Storage-Class") or "",
    )


def _mtime_ns(said: str | None, modified: float) -> int:
    """The time that an object's `mtime` says, as rclone and others write it; else, whole seconds, when it was put."""
    match = STAMP.fullmatch(said or "")
    if match is None:
        return int(modified) * 10**9
    part = int((match[2] or "0").ljust(9, "0"))
    return held_time(int(match[1]) * 10**9 + (-part if match[1].startswith("-") else part))


def mtime_text(mtime_ns: int) -> str:
    """The same, as it is written: seconds, with a fraction of nine digits."""
    sign = "-" if mtime_ns < 0 else ""
    return f"{sign}{abs(mtime_ns) // 10**9}.{abs(mtime_ns) % 10**9:09}"


def _http_time(text: str) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0


def _ms(count: int) -> datetime.timedelta:
    return datetime.timedelta(milliseconds=count)
