"""What hosts have in common where no agent runs: SFTP, buckets, stores that programs speak to."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

from transfers.agent import Fault
from transfers.errors import TransferError, from_fault, from_os_error
from transfers.hosts import Host, Opened, Receipt, Stop, Want, never


class ThroughHere:
    """A host whose bytes all pass through this machine."""

    def carry(
        self: Host, wants: Iterable[Want], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        """The bytes come here and go back: what the far side copies by itself, if it can, is of unknown digest."""
        frames = self.read(wants)
        try:
            for result in self.land(frames, proof, stop):
                assert not isinstance(result, Opened)  # a reader opens nothing to be filled
                yield result
        finally:
            if isinstance(frames, Generator):
                frames.close()


class Diskless(ThroughHere):
    """A mass store that is no disk. Here faults become its errors: what is not the network's or this machine's is the
    store's."""

    name: str
    kind = "store"
    side = "store"

    @contextmanager
    def _border(self, phase: str) -> Iterator[None]:
        try:
            yield
        except Fault as fault:
            fault.phase = fault.phase or phase
            raise self._error(fault) from fault
        except OSError as error:
            raise from_os_error(error, self.name, "local", phase) from error

    def _error(self, fault: Fault) -> TransferError:
        error = from_fault(fault, self.name)
        if error.host == self.name and error.side not in {"route", "local"}:
            error.side = self.side
        return error
