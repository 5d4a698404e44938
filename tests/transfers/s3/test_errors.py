"""What an S3 server answers is told by its kind, with a sentence and without the client's own dump."""

from __future__ import annotations

import pytest

from transfers.errors import BY_KIND
from transfers.s3.errors import Missing, fault_of_answer, fault_of_text


def answer(status: int, code: str, message: str = "something") -> str:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
    return f"Generic S3 error: Server returned non-2xx status code: {status} Words: {body}\n\nDebug source:\n{{secret}}"


def inner(kind: str) -> str:
    return f"Generic S3 error: HTTP error: error sending request\n\nDebug source:\nHttpError {{ kind: {kind}, source"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (answer(403, "AccessDenied"), "refused"),
        (answer(403, ""), "refused"),
        (answer(403, "RequestTimeTooSkewed"), "refused"),
        (answer(401, ""), "refused"),
        (answer(301, "PermanentRedirect"), "refused"),
        (answer(404, "NoSuchBucket"), "refused"),
        (answer(404, "NoSuchKey"), "source missing"),
        (answer(404, ""), "source missing"),
        (answer(404, "NoSuchUpload"), "transient"),
        (answer(403, "InvalidObjectState"), "refused"),
        (answer(400, "RequestTimeout"), "transient"),
        (answer(400, "ExpiredToken"), "refused"),
        (answer(400, "EntityTooLarge"), "unsupported"),
        (answer(409, "OperationAborted"), "transient"),
        (answer(412, "PreconditionFailed"), "conflict"),
        (answer(416, "InvalidRange"), "source changed"),
        (answer(429, ""), "congested"),
        (answer(500, "InternalError"), "transient"),
        (answer(500, ""), "transient"),
        (answer(502, ""), "transient"),
        (answer(503, "SlowDown"), "congested"),
        (answer(503, ""), "congested"),
        (answer(507, "XMinioStorageFull"), "no space"),
        (answer(403, "QuotaExceeded"), "no space"),
        (answer(501, "NotImplemented"), "unsupported"),
        (inner("Connect"), "host down"),
        (inner("ConnectionReset"), "transient"),
        (inner("Timeout"), "transient"),
        (inner("Interrupted"), "transient"),
        ("something that nobody thought of", "transient"),
    ],
)
def test_each_answer_is_of_its_kind(text: str, kind: str) -> None:
    fault = fault_of_text(text, "GenericError")
    assert fault.kind == kind
    assert kind in BY_KIND
    assert "secret" not in fault.text
    assert "\n" not in fault.text


def test_missing_objects_are_told_from_missing_buckets() -> None:
    assert isinstance(fault_of_answer(404, "NoSuchKey", ""), Missing)
    assert not isinstance(fault_of_answer(404, "NoSuchBucket", ""), Missing)


def test_what_is_said_is_what_the_server_said() -> None:
    fault = fault_of_text(answer(400, "InvalidArgument", "no such part"), "GenericError")
    assert fault.text == "no such part (status 400, InvalidArgument)"
    assert fault.facts == {"status": 400, "code": "InvalidArgument"}


def test_want_of_a_key_is_said_as_that() -> None:
    text = "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token - status code: 403 Forbidden"
    fault = fault_of_text(text, "GenericError")
    assert fault.kind == "refused"
    assert "AWS_ACCESS_KEY_ID" in fault.text


@pytest.mark.parametrize(
    ("name", "kind"),
    [("AlreadyExistsError", "conflict"), ("NotSupportedError", "unsupported"), ("PanicException", "transient")],
)
def test_what_obstore_says_itself_is_told_by_its_type(name: str, kind: str) -> None:
    assert fault_of_text("anything at all", name).kind == kind
