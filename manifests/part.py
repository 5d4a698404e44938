"""What all tables of a manifest and of a camera share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .errors import found


class Part(BaseModel):
    """Frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


def _keyword(text: str) -> str:
    if not re.fullmatch("[A-Z0-9_-]{1,8}", text):
        raise ValueError(f"found {found(text)}; expected a FITS keyword, such as EXPTIME")
    return text


Regex = Annotated[str, AfterValidator(_regex)]
Keyword = Annotated[str, AfterValidator(_keyword)]
Keywords = Annotated[tuple[Keyword, ...], Field(min_length=1)]
