"""What obstore and an S3 server say when something goes wrong, as the faults of transfers.agent: the driver's border.

obstore raises a few types of its own with long texts, in which the server's status, code and message stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from transfers.agent import Fault

STATUS = re.compile(r"status code: ([0-9]{3})")
CODE = re.compile(r"<Code>([A-Za-z0-9._-]{1,60})</Code>")
MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
NO_CONNECTION = re.compile(r"kind: Connect\b|dns error")
NOTHING_ANSWERS = "no connection to the store: nothing answers at its endpoint"
METADATA_SERVICE = "169.254.169.254"  # asked by obstore for a key where it was given none
NO_KEY = (
    "there is no key for the store: let `credentials` name a file with one, "
    "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
# What codes mean, whatever their status; the codes of MinIO and Ceph for a store that is full are among them.
BY_CODE = {
    "NoSuchBucket": "refused",
    "NoSuchUpload": "transient",
    "SlowDown": "congested",
    "TooManyRequests": "congested",
    "RequestLimitExceeded": "congested",
    "ServiceUnavailable": "congested",
    "RequestTimeout": "transient",
    "IncompleteBody": "transient",
    "BadDigest": "transient",
    "XAmzContentSHA256Mismatch": "transient",
    "OperationAborted": "transient",
    "ConditionalRequestConflict": "transient",
    "QuotaExceeded": "no space",
    "XMinioStorageFull": "no space",
    "XMinioAdminBucketQuotaExceeded": "no space",
    "InvalidObjectState": "refused",
    "EntityTooLarge": "unsupported",
    "NotImplemented": "unsupported",
    "MethodNotAllowed": "unsupported",
}
BY_STATUS = {
    400: "refused",
    401: "refused",
    403: "refused",
    404: "source missing",
    408: "transient",
    409: "transient",
    411: "unsupported",
    412: "conflict",
    413: "unsupported",
    416: "source changed",
    429: "congested",
    501: "unsupported",
    503: "congested",
    507: "no space",
}
IN_WORDS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidObjectState": "the object is in an archive class: restore it with the store's own tools first",
    "SignatureDoesNotMatch": "the secret key is not the right one",
    "InvalidAccessKeyId": "the store does not know the key",
    "AccessDenied": "the key may not do that",
}


class Missing(Fault):
    """There is no such object, though its bucket is there."""


@contextmanager
def told() -> Iterator[None]:
    """Raise what obstore raises within as a Fault, of no path: keys are no paths. What others raise goes through."""
    try:
        yield
    except BaseException as error:
        if not is_obstores(error):
            raise
        raise fault_of_text(str(error), type(error).__name__) from error


def is_obstores(error: BaseException) -> bool:
    """Whether obstore raised it. Its panics are no Exceptions; wrong paths and configurations are ValueErrors."""
    modules = ("obstore.", "pyo3_runtime")
    return type(error).__module__.startswith(modules) or isinstance(error, OSError | ValueError)


def fault_of_text(text: str, name: str) -> Fault:
    """The Fault that obstore's text means; `name` is the type of what it raised."""
    status, code = _found(STATUS, text), _found(CODE, text)
    if METADATA_SERVICE in text:
        return Fault("refused", NO_KEY)
    if name == "AlreadyExistsError":
        return Fault("conflict", "another object has the name")
    if status:
        return fault_of_answer(int(status), code, _found(MESSAGE, text))
    if NO_CONNECTION.search(text):
        return Fault("host down", NOTHING_ANSWERS)
    if "kind: Timeout" in text or "TimedOut" in text:
        return Fault("transient", "the store did not answer in time")
    if name == "PanicException":
        return Fault("transient", f"obstore failed: {_first_line(text)}")
    if name == "NotSupportedError":
        return Fault("unsupported", _first_line(text))
    if name in {"UnicodeEncodeError", "InvalidPathError", "ValueError", "UnknownConfigurationKeyError"}:
        return Fault("refused", _first_line(text))
    return Fault("transient", f"the conversation with the store broke off: {_first_line(text)}")


def fault_of_answer(status: int, code: str, message: str) -> Fault:
    """The Fault that a server's answer means. 404 of an object, and not of its bucket, is Missing."""
    kind = BY_CODE.get(code) or BY_STATUS.get(status) or ("transient" if status >= 500 else "refused")
    said = IN_WORDS.get(code) or message or "it says no more"
    text = f"{said} (status {status}{', ' + code if code else ''})"
    facts = {"status": status, "code": code}
    if status == 404 and kind == "source missing":
        return Missing(kind, "no such object", facts=facts)
    return Fault(kind, text, facts=facts)


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1) if match else ""


def _first_line(text: str) -> str:
    """The beginning of what obstore said, before it repeats itself for programmers."""
    return text.partition("\n")[0][:300]
