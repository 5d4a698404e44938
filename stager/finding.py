"""Where the configuration and the database are. Standard library only, so that `stager status` starts at once."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from manifests.errors import ManifestError, Problem

SYSTEM_CONFIG = Path("/etc/stager/stager.toml")
DEFAULT_DATABASE = "sqlite:///stager.db"
MAX_CONFIG_BYTES = 1 << 20


class ConfigError(ManifestError):
    """A configuration that cannot be used: all its problems at once."""


def find_config(given: str | None) -> Path:
    """The configuration file: the one given, `$STAGER_CONFIG`, `stager.toml` here, or the system's.

    Raises ConfigError when there is none, saying where it was looked for.
    """
    named = given or os.environ.get("STAGER_CONFIG")
    places = [Path(named)] if named else [Path("stager.toml"), SYSTEM_CONFIG]
    for place in places:
        if place.is_file():
            return place.absolute()
    looked = " nor ".join(str(place) for place in places)
    raise config_error(f"there is no {looked}; `stager init` writes one, `-c FILE` names one")


def read_toml(path: Path) -> dict[str, Any]:
    """The document in a TOML file of at most 1 MiB; ConfigError names the line of a mistake."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise config_error(f"larger than {MAX_CONFIG_BYTES} bytes", path)
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise config_error(f"cannot be read: {error}", path) from error


def config_error(text: str, path: Path | None = None) -> ConfigError:
    """A configuration with this one problem."""
    return ConfigError((Problem("", text),), str(path) if path else "the configuration")


def database_url(config: Path, document: dict[str, Any]) -> str:
    """The database's URL, a relative SQLite file taken as beside the configuration."""
    section = document.get("stager", {})
    url = section.get("database", DEFAULT_DATABASE) if isinstance(section, dict) else DEFAULT_DATABASE
    prefix = "sqlite:///"
    if isinstance(url, str) and url.startswith(prefix) and not url.startswith(prefix + "/"):
        return prefix + str(config.parent / url.removeprefix(prefix))
    return str(url)
