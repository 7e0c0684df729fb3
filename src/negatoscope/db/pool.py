"""Connections, and units of work bounded by row security."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests
from psycopg_pool.base import AttemptWithBackoff

from negatoscope.errors import Unavailable
from negatoscope.model.actor import Scope

Unit = psycopg.Connection[DictRow]
# The pool tries a lost database again after 1, 2, 4... seconds: an archive that is back must be used at once.
AttemptWithBackoff.INITIAL_DELAY = 0.1
AttemptWithBackoff.DELAY_BACKOFF = 1.5
_IDLE_S = 1.0  # a connection unused for longer is asked whether it still lives
_WARM = 4  # connections kept beside the pool
_WARM_S = 600.0  # after which one goes back to the pool, which ends the old


class _Connection(psycopg.Connection[DictRow]):
    """Remembers its row security setting, so that it is sent only when it changes."""

    wall: str | None = None
    used_at: float = 0.0
    warm_since: float = 0.0  # 0: it came from the pool


class Database:
    """Implements ``archive.ports.Transactions`` on psycopg. Thread-safe.

    Connections are in autocommit and have taken the role ``negatoscope_app``: they own no table, so row
    security holds for them. The setting ``negatoscope.establishments`` says what it lets through.

    The pool hands out whichever was unused for longest. So a few are kept beside it, the last used first:
    their backends have plans and pages at hand, which halves the time of a short statement.
    """

    def __init__(self, url: str, *, size: int = 16, wait_s: float = 10.0) -> None:
        self.url = url
        self._warm: list[_Connection] = []
        self._asking = 0  # threads that wait for the pool: a connection that comes back is theirs
        self._mutex = threading.Lock()
        self._closed = False
        self._pool: ConnectionPool[_Connection] = ConnectionPool(
            url,
            connection_class=_Connection,
            kwargs={"autocommit": True, "row_factory": dict_row},
            min_size=1,
            max_size=size,
            timeout=wait_s,
            max_waiting=200,
            configure=_configure,
            check=_check,
            reconnect_timeout=30.0,
            open=True,
        )

    def close(self) -> None:
        self._closed = True
        self._cool()
        self._pool.close(timeout=2.0)

    @contextmanager
    def unit(self, establishments: Sequence[int] | None) -> Iterator[Unit]:
        """One transaction seeing these establishments; ``None``: all, for our own jobs only.

        Raises:
            Unavailable: no database, or no free connection in time. Nothing was committed, unless the
                connection broke in COMMIT itself: whoever retries must be idempotent.
        """
        with self._connection(_wall(establishments)) as connection, connection.transaction():
            yield connection

    @contextmanager
    def statements(self, establishments: Sequence[int] | None) -> Iterator[Unit]:
        """No transaction around: each statement commits by itself, a pipeline as a whole, in one round trip.

        Raises: as :meth:`unit`.
        """
        with self._connection(_wall(establishments)) as connection:
            yield connection

    @contextmanager
    def reading(self, scope: Scope) -> Iterator[Unit]:
        """Single statements (no transaction: one round trip less) behind the wall of the scope's establishment."""
        with self._connection(str(scope.actor.establishment_id)) as connection:
            yield connection

    @contextmanager
    def _connection(self, wall: str) -> Iterator[_Connection]:
        try:
            connection = self._take()
            try:
                if connection.wall != wall:
                    connection.execute("SELECT set_config('negatoscope.establishments', %s, false)", (wall,))
                    connection.wall = wall
                yield connection
            finally:
                self._give_back(connection)
        except (PoolTimeout, PoolClosed, TooManyRequests, psycopg.OperationalError) as error:
            if isinstance(error, psycopg.OperationalError) and not _is_outage(error):
                raise
            self._cool()  # what broke one has broken all
            raise Unavailable("the index cannot be reached") from error

    def _take(self) -> _Connection:
        while (connection := self._warm_or_ask()) is not None:
            try:
                _check(connection)
            except psycopg.Error:
                self._pool.putconn(connection)  # which replaces it
            else:
                return connection
        try:
            connection = self._pool.getconn()
        finally:
            with self._mutex:
                self._asking -= 1
        connection.warm_since = 0.0
        return connection

    def _warm_or_ask(self) -> _Connection | None:
        """A warm connection; None: the caller is counted among those that ask the pool."""
        with self._mutex:
            if self._warm:
                return self._warm.pop()
            self._asking += 1
            return None

    def _give_back(self, connection: _Connection) -> None:
        now = connection.used_at = time.monotonic()
        connection.warm_since = connection.warm_since or now
        sound = not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
        with self._mutex:
            room = len(self._warm) < _WARM and not self._asking and not self._closed
            if sound and room and now - connection.warm_since < _WARM_S:
                self._warm.append(connection)
                return
        self._pool.putconn(connection)

    def _cool(self) -> None:
        with self._mutex:
            cooled, self._warm = self._warm, []
        for connection in cooled:
            self._pool.putconn(connection)


def _wall(establishments: Sequence[int] | None) -> str:
    return "*" if establishments is None else ",".join(map(str, establishments))


def _is_outage(error: psycopg.OperationalError) -> bool:
    """Lost connections and shutdowns (classes 08, 57P, 53), not deadlocks (40) or bad statements."""
    state = error.sqlstate
    return state is None or state[:2] in ("08", "53") or state.startswith("57P")


def _configure(connection: _Connection) -> None:
    connection.execute("SET ROLE negatoscope_app")
    connection.execute("SET client_encoding TO 'UTF8'")


def _check(connection: _Connection) -> None:
    if time.monotonic() - connection.used_at > _IDLE_S:
        connection.execute("SELECT 1")
