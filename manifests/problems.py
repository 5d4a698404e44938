"""What is wrong with a manifest against the configuration: its hosts, its queue, its camera."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from .camera_problems import id_problems
from .cameras import load
from .errors import CameraError, CameraFileError, Problem, shown
from .manifest import Kind, Manifest
from .wording import nearest


def problems(
    manifest: Manifest, hosts: Mapping[str, str], queues: Collection[str], folders: Sequence[Path] = ()
) -> list[Problem]:
    """What is wrong with a manifest against the configuration; `hosts` gives the kind of each ("store", ...).

    `folders` are where cameras of one's own lie. An empty list means it can be submitted.
    """
    return [
        *_host_problems(manifest, hosts),
        *_second_problem(manifest, hosts),
        *_queue_problems(manifest, queues),
        *_camera_problems(manifest, folders),
    ]


# Which end of a manifest is a mass store: (source, destination).
STORES = {
    Kind.COPY: (False, False),
    Kind.CHOP: (False, False),
    Kind.ARCHIVE: (False, True),
    Kind.RESTORE: (True, False),
}


def _host_problems(manifest: Manifest, hosts: Mapping[str, str]) -> Iterator[Problem]:
    ends = (("source", manifest.source), ("destination", manifest.destination))
    for (place, location), wanted in zip(ends, STORES[manifest.kind], strict=True):
        kind = hosts.get(location.host)
        if kind is None:
            yield Problem(
                place,
                f'unknown host "{location.host}"{nearest(location.host, hosts)}; hosts in stager.toml: {_names(hosts)}',
            )
        elif (kind == "store") != wanted:
            expected = "a mass store" if wanted else "no mass store"
            yield Problem(
                place,
                f'"{location.host}" is a host of kind "{kind}"; '
                f'the {place} of a manifest of kind "{manifest.kind}" is {expected}: '
                f"{_advice(manifest.kind, hosts, location.host)}",
            )


def _second_problem(manifest: Manifest, hosts: Mapping[str, str]) -> Iterator[Problem]:
    name = manifest.second
    if name is None or hosts.get(name) == "store":
        return
    if name in hosts:
        yield Problem("second", f'"{name}" is a host of kind "{hosts[name]}"; a second copy lies on a mass store')
    else:
        yield Problem("second", f'unknown host "{name}"{nearest(name, hosts)}; hosts in stager.toml: {_names(hosts)}')


def _advice(kind: Kind, hosts: Mapping[str, str], host: str) -> str:
    if hosts[host] == "store" and kind is Kind.COPY:
        return 'to bring files to a store write kind = "archive", to bring them back kind = "restore"'
    if hosts[host] == "store" and kind is Kind.CHOP:
        return "restore the focal planes to a host first, or archive what was chopped by a manifest of its own"
    stores = [name for name, its in hosts.items() if its == "store"]
    if hosts[host] == "store":
        return f"name another host, one of {_names(name for name in hosts if name not in stores)}"
    return f'name a store, one of {_names(stores)}, or write kind = "copy"'


def _queue_problems(manifest: Manifest, queues: Collection[str]) -> Iterator[Problem]:
    if manifest.trigger is None or manifest.trigger.queue in queues:
        return
    queue = manifest.trigger.queue
    yield Problem(
        "trigger.queue",
        f'unknown queue "{shown(queue, 40)}"{nearest(queue, queues)}; queues in stager.toml: {_names(queues)}',
    )


def _camera_problems(manifest: Manifest, folders: Sequence[Path]) -> Iterator[Problem]:
    if manifest.camera is None:
        for number, excluded in enumerate(manifest.exclusions):
            if excluded.ids:
                yield Problem(
                    f"accept.except, entry {number + 1}",
                    "excludes by ids, which only a camera knows; give `camera`, or a file name",
                )
        return
    try:
        camera = load(manifest.camera, folders)
    except CameraFileError as error:
        for one in error.problems:
            yield Problem(f"camera, {shown(error.where, 200)}{': ' if one.place else ''}{one.place}", one.text)
        return
    except CameraError as error:
        yield Problem("camera", str(error))
        return
    if manifest.kind is Kind.CHOP and camera.chop_rule is None:
        yield Problem("camera", f"{camera.name} does not say how its files are cut; its file needs a table [chop]")
    yield from id_problems(manifest, camera)


def _names(names: Collection[str] | Iterator[str]) -> str:
    return ", ".join(shown(name, 40) for name in sorted(names)) or "none"
