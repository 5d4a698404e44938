"""What all tables of a manifest and of a camera share."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
