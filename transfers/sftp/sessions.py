"""The SFTP sessions of one host: opened as needed, used again, thrown away when left in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import paramiko

from transfers.agent import Fault
from transfers.sftp.wire import Session
from transfers.ssh.paramiko_client import Connection, ParamikoClient

IDLE_S = 120.0  # after which a session that nobody used is not trusted any more
IDLE_MOST = 8
CONNECTING = 4  # handshakes at the same time: sshd's MaxStartups begins to refuse at 10


class Sessions:
    """The SFTP sessions of one host: each for one thread, used again, and thrown away when left in the middle."""

    def __init__(self, client: ParamikoClient) -> None:
        self.client = client
        self.lock = threading.Lock()
        self.idle: list[tuple[float, Session]] = []
        self.all: set[Session] = set()
        self.connecting = threading.Semaphore(CONNECTING)

    @contextmanager
    def one(self) -> Iterator[Session]:
        session = self._idle() or self._new()
        try:
            yield session
        except Fault:  # said by us, between two answers: the session is as good as before
            self._give_back(session)
            raise
        except BaseException:
            self._end(session)
            raise
        self._give_back(session)

    def beside(self, session: Session) -> Session:
        """Another session, over the same connection where the server allows two."""
        try:
            return self._on(session.connection, owner=False)
        except paramiko.SSHException:
            if not session.alive:
                raise session.lost() from None
            return self._new()

    def close(self) -> None:
        with self.lock:
            sessions, self.all, self.idle = self.all, set(), []
        for session in sessions:
            session.close()

    def _idle(self) -> Session | None:
        old = []
        found = None
        with self.lock:
            while self.idle and found is None:
                since, session = self.idle.pop()
                if session.alive and time.monotonic() - since < IDLE_S:
                    found = session
                else:
                    old.append(session)
        for session in old:
            self._end(session)
        return found

    def _new(self) -> Session:
        with self.connecting:
            connection = self.client.connect()
        try:
            session = self._on(connection, owner=True)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self.client.not_begun(connection, "SFTP", error) from error
        except BaseException:
            connection.close()
            raise
        with self.lock:
            self.all.add(session)
        return session

    def _on(self, connection: Connection, owner: bool) -> Session:
        channel = connection.open_session(timeout=self.client.login.connect_s)
        channel.invoke_subsystem("sftp")
        return Session(connection, channel, self.client.host_name, owner)

    def _give_back(self, session: Session) -> None:
        with self.lock:
            keep = session.alive and session in self.all and len(self.idle) < IDLE_MOST
            if keep:
                self.idle.append((time.monotonic(), session))
        if not keep:
            self._end(session)

    def _end(self, session: Session) -> None:
        with self.lock:
            self.all.discard(session)
        session.close()
