"""What can be wrong with what a registry is to be made of, or with the file that it would replace."""

from __future__ import annotations

from manifests.errors import InputError


class RegistryError(InputError):
    """A registry cannot be made as was asked; nothing was changed. Its text is a sentence fit for people."""
