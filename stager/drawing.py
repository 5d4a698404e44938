"""Plain data as tables of a terminal. Nothing here asks the database.

All text from outside passes `cell`, so that no name of a file can draw on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stager.counts import counted
from stager.durations import duration
from stager.recalls.telling import lines as recalls
from stager.status import MOST_COUNTED, HostRow, QueueRow, RouteRow, Row, Snapshot

if TYPE_CHECKING:
    from stager.showing import ShownHost

MOST_WHY = 300  # characters of a host's trouble: some clients say much
ANY_WIDTH = 10_000  # columns: wider than any table
STATE_STYLES = {
    "complete": "green",
    "running": "cyan",
    "held": "red",
    "paused": "yellow",
    "cancelled": "dim",
}


def cell(text: object, style: str = "") -> Text:
    """Text that cannot do anything but be read: control characters and lone surrogates are escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    return Text(shown, style=style)


def size(count: float | None) -> str:
    """Bytes in powers of 1000, as disks are sold: `1.41 GB`; `-` for unknown."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"


def table(columns: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A plain table; a column given as (heading, "right") is set to the right."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in columns:
        heading, side = column if isinstance(column, tuple) else (column, "left")
        drawn.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    return drawn


def status(snapshot: Snapshot, width: int) -> Table:
    """The percent-complete table: a line a dataset where there is room, else three."""
    wide = _wide_status(snapshot)
    return (
        wide
        if Console(width=ANY_WIDTH, emoji=False).measure(wide).maximum <= width
        else _narrow_status(snapshot, width)
    )


def _state(row: Row) -> Text:
    state = "evicted" if row.is_evicted else row.state
    return cell(state, STATE_STYLES.get(state, ""))


def _files(row: Row) -> str:
    return f"{row.files['done']}/{row.files['total']}"


def _bytes(row: Row) -> str:
    return f"{size(row.bytes['done'])} / {size(row.bytes['total'])}"


def _percent(row: Row) -> str:
    if row.is_evicted:  # of nothing
        return "-"
    return f"{row.percent:.1f}" if row.percent not in (0.0, 100.0) else f"{row.percent:.0f}"


def _wide_status(snapshot: Snapshot) -> Table:
    columns: list[str | tuple[str, str]] = [
        "Dataset",
        "Kind",
        "From",
        "To",
        ("Files", "right"),
        ("Bytes", "right"),
    ]
    columns += [("%", "right"), ("Rate", "right"), ("ETA", "right"), "Lead", "State"]
    drawn = table(columns, [])
    for row in snapshot.datasets:
        rate = f"{size(row.rate_bytes_per_s)}/s" if row.rate_bytes_per_s else "-"
        drawn.add_row(
            cell(row.dataset), cell(row.kind), cell(row.source), cell(row.destination), cell(_files(row)),
            cell(_bytes(row)), cell(_percent(row)), cell(rate), cell(duration(row.eta_s)), cell(row.lead), _state(row),
        )  # fmt: skip
    return drawn


def _narrow_status(snapshot: Snapshot, width: int) -> Table:
    """Three lines a dataset: itself, where it comes from, where it goes to."""
    drawn = table(["Dataset", ("Files", "right"), ("%", "right"), "Lead", "State"], [])
    others = [[_amounts(row), cell(_percent(row)), cell(row.lead), _progress(row)] for row in snapshot.datasets]
    widths = [[max(map(len, one.plain.split("\n"))) for one in each] for each in others]
    taken = sum(map(max, zip(*widths, strict=True)))
    room = max(20, width - taken - 15)  # what is between five columns, and beside them
    for row, rest in zip(snapshot.datasets, others, strict=True):
        lead = f"  {row.kind} "
        route = _folded(lead, row.source, room) + _folded(f"{'to':>{len(lead) - 1}} ", row.destination, room)
        where = Text("\n").join([cell(row.dataset), *(Text(line, style="dim") for line in route)])
        drawn.add_row(where, *rest)
    return drawn


def _amounts(row: Row) -> Text:
    return Text("\n").join(
        [cell(_files(row)), cell(size(row.bytes["done"]), "dim"), cell(f"of {size(row.bytes['total'])}", "dim")]
    )


def _progress(row: Row) -> Text:
    lines = [_state(row)]
    if row.rate_bytes_per_s:
        lines.append(cell(f"{size(row.rate_bytes_per_s)}/s", "dim"))
    if row.eta_s is not None:
        lines.append(cell(f"ETA {duration(row.eta_s)}", "dim"))
    return Text("\n").join(lines)


def _folded(lead: str, text: str, room: int) -> list[str]:
    """The text in lines of at most `room` columns, the first after `lead`, the others set in as far."""
    shown, step = cell(text).plain, max(8, room - len(lead))
    pieces = [shown[start : start + step] for start in range(0, len(shown), step)]
    return [(lead if number == 0 else " " * len(lead)) + piece for number, piece in enumerate(pieces)]


def remarks(snapshot: Snapshot) -> list[Text]:
    """What the table cannot hold: hosts in trouble, what is held, missing, excluded and evicted, the last error,
    refused manifests."""
    lines = [cell(trouble(host), "red") for host in snapshot.hosts if host.kind]
    told = {host.problem for host in snapshot.hosts if host.kind} | {host.no_room for host in snapshot.hosts}
    for row in snapshot.datasets:
        counts = [f"{row.files[state]} {state}" for state in ("held", "missing") if row.files[state]] + _left_out(row)
        error = None if row.last_error in told or _is_told(row, snapshot.hosts) else row.last_error
        if counts or error:
            said = ", ".join(counts) + (": " if counts and error else "") + (error or "")
            lines.append(cell(f"{row.manifest} ({row.kind}): {said}"))
        if row.findings:
            lines.append(cell(f"{row.manifest} ({row.kind}): {findings(row)}; `stager registry check` tells them"))
    lines += [cell(host.no_room, "yellow") for host in snapshot.hosts if host.no_room]
    lines += [cell(line) for line in recalls(snapshot.recalls)]
    lines += [cell(queue(one), "red") for one in snapshot.queues]
    lines += [cell(f"refused {one['file']}: {one['problem']}", "red") for one in snapshot.refused]
    if any(row.percent_of == "files" for row in snapshot.datasets):
        lines.append(
            cell(
                "% is of bytes proven; of files where bytes are not known before the work is done"
                " (chops, missing files).",
                "dim",
            )
        )
    return lines


def _is_told(row: Row, hosts: Sequence[HostRow]) -> bool:
    """Whether a row's last error is that of one of its files with a host whose trouble is told of."""
    return any(host.holds_up(row.hosts) and f" - {host.kind} at the " in (row.last_error or "") for host in hosts)


def _left_out(row: Row) -> list[str]:
    """What is in no total: `3 excluded`, `8 evicted`; where too many were evicted to be counted, at least how many."""
    excluded, evicted = row.files["excluded"], row.files["evicted"]
    if MOST_COUNTED <= evicted < excluded:
        return [f"{excluded} excluded (at least {evicted} of them evicted)"]
    counts = {"excluded": excluded - evicted, "evicted": evicted}
    return [f"{count} {word}" for word, count in counts.items() if count]


def findings(row: Row) -> str:
    """How many things were found in the files of a manifest: `2 failures and 32 warnings`."""
    words = {"fail": "failure", "warn": "warning"}
    counts = [(row.findings[severity], word) for severity, word in words.items() if row.findings.get(severity)]
    more = "at least " if sum(row.findings.values()) >= MOST_COUNTED else ""
    return more + " and ".join(counted(*one) for one in counts) + " in files"


def queue(row: QueueRow) -> str:
    """`queue isr: 36 triggers wait: /lsst/jo: Permission denied (deliver) - ...`."""
    waiting = counted(row.triggers, "trigger waits", "triggers wait")
    return f"queue {row.queue}: {waiting}: {row.problem}"


def trouble(host: HostRow) -> str:
    """A sentence about a host that cannot be used: for how long, what waits for it, when it is looked at next, why."""
    said = _trouble(host.kind, host.troubled_s, host.next_look_s, _waits(host))
    why = (host.problem or "").removeprefix(f"{host.host}: ")
    more = "... (`stager hosts` has all of it)" if len(why) > MOST_WHY else ""
    return f"{host.host}: {said}: {why[:MOST_WHY]}{more}"


def _trouble(kind: str | None, seconds: float | None, look_s: float | None, waits: str = "") -> str:
    look = f"next look in {duration(look_s)}" if look_s else "the next look is due"
    return f"{kind} for {duration(seconds)} now{waits}; {look}"


def _waits(host: HostRow) -> str:
    counts = [(host.files, "file"), (host.triggers, "trigger")]
    words = [counted(*one) for one in counts if one[0]]
    return f"; {' and '.join(words)} {'wait' if host.files + host.triggers > 1 else 'waits'} for it" if words else ""


def whys(snapshot: Snapshot) -> list[Text]:
    """A sentence for each route that has work or worked lately, each host that is paused, and each that is reached
    over a network: why it goes as it goes."""
    lines = [cell(_route(route)) for route in snapshot.routes]
    for host in snapshot.hosts:
        if host.paused:
            why = f" ({host.reason})" if host.reason else ""
            lines.append(cell(f"{host.host} is paused by an operator{why}{_waits(host)}", "yellow"))
        if host.reached:
            lines.append(cell(f"{host.host} is reached by {host.reached}", "dim"))
    return lines or [cell("no route has work or worked lately", "dim")]


def _route(route: RouteRow) -> str:
    """`a > b: 4 streams (the configuration says so), 45 MB/s, limited to 200 MB/s; closed until 20:00`."""
    name = f"{route.source} > {route.destination}"
    words = [route.why]
    if route.streams is not None:
        words = [f"{counted(route.streams, 'stream')} ({route.why})"]
    if route.rate_bytes_per_s:
        words.append(f"{size(route.rate_bytes_per_s)}/s")
    if route.bytes_per_s:
        words.append(f"limited to {size(route.bytes_per_s)}/s")
    said = [", ".join(words)]
    if route.closed_until:
        said.append(f"closed until {route.closed_until}")
    elif route.hours:
        said.append(f"open {route.hours}")
    if route.failures:
        said.append(f"the last {route.failures} tries failed" if route.failures > 1 else "the last try failed")
    if not route.busy and route.ago_s is not None:
        said.append(f"last worked {duration(route.ago_s)} ago")
    if route.waiting:
        said.append(f"{counted(route.waiting, 'file')} to come")
    return f"{name}: {'; '.join(said)}"


def hosts(shown: Sequence[ShownHost]) -> Table:
    """The hosts, some lines each: what they are, and what was learned of them."""
    drawn = table(["Host", "State", "What"], [])
    for host in shown:
        style = {"reachable": "green", "down": "red", "in trouble": "red", "paused": "yellow"}.get(host.state, "")
        first = cell(f"{host.kind}, {host.root}")
        what = Text("\n").join([first, *(cell(line, "dim") for line in _facts(host))])
        drawn.add_row(cell(host.name), cell(host.state, style), what)
    return drawn


def _facts(host: ShownHost) -> list[str]:
    seen = host.checked
    if seen is None:
        return [f"by {host.reached}"] if host.reached else []
    about = dict(seen.about)
    by = [about.pop(key) for key in ("client", "far") if about.get(key)]
    lines = [
        ", ".join(by) if seen.round_trip_s else "",
        *(f"{key} {value}" for key, value in about.items() if key != "fallback"),
    ]
    room = [f"{size(seen.free)} of {size(seen.total)} free"] if seen.total is not None else []
    if seen.clock_offset_s is not None and abs(seen.clock_offset_s) >= 0.05:
        room.append(f"clock {seen.clock_offset_s:+.1f} s")
    if seen.round_trip_s:
        room.append(f"round trip {seen.round_trip_s * 1000:.3g} ms")
    speed = [("up", seen.up_bytes_per_s), ("down", seen.down_bytes_per_s)]
    room += [f"{word} {size(rate)}/s" for word, rate in speed if rate is not None]
    return [line for line in (*lines, ", ".join(room)) if line]


def about_hosts(shown: Sequence[ShownHost]) -> list[Text]:
    """A sentence for each problem of a host, and for what else is worth a word."""
    lines = []
    for host in shown:
        if host.problem and host.trouble:
            why = host.problem.removeprefix(f"{host.name}: ")
            said = _trouble(host.trouble, host.troubled_s, host.next_look_s)
            lines.append(cell(f"{host.name}: {said}: {why}", "red"))
        elif host.problem:
            lines.append(cell(host.problem, "red"))
        if host.state == "paused":
            lines.append(cell(f"{host.name} is paused by an operator{f' ({host.reason})' if host.reason else ''}"))
        lines += [cell(host.no_room, "yellow")] if host.no_room else []
        lines += [cell(line) for line in recalls([host.recalls])] if host.recalls else []
        lines += [cell(remark, "yellow") for remark in (host.checked.remarks if host.checked else ())]
    return lines
