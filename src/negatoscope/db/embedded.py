"""A real PostgreSQL in the data folder: initialised, started and stopped by whoever owns its lock.

It listens on a Unix socket only. Started as root, it runs as a user of its own with one capability,
CAP_DAC_READ_SEARCH, so that a data folder below a private directory still works. It ends by itself
when its parent dies (PR_SET_PDEATHSIG), so a killed supervisor leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import pwd
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg

from negatoscope.db.binaries import postgresql_bin

SUPERUSER = "negatoscope"
DATABASE = "negatoscope"
_CAP_DAC_READ_SEARCH = 2
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_libc = ctypes.CDLL(None, use_errno=True)

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "jit": "off",  # our statements are short: compiling them costs more than running them
    "shared_buffers": "256MB",
    "max_connections": "120",
    "max_wal_size": "2GB",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "work_mem": "16MB",  # a list of 20,000 studies is sorted without a file
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # a failed statement holds patient names; it must not reach a log
    "log_parameter_max_length_on_error": "0",
    "timezone": "UTC",
}


class EmbeddedPostgreSQLError(Exception):
    """PostgreSQL could not be initialised or started; the message names its log file."""


class EmbeddedPostgreSQL:
    """One cluster in ``data/postgres``. Use :meth:`start`, then :attr:`url`, then :meth:`stop`."""

    def __init__(self, data: Path, overrides: Mapping[str, str] | None = None) -> None:
        """``overrides`` of SETTINGS are for tests of what does not depend on durability."""
        self._settings = {**SETTINGS, **(overrides or {})}
        self.data = data.resolve()
        self.cluster = self.data / "postgres"
        self.log = self.data / "log" / "postgresql.log"
        self.sockets = _socket_folder(self.data)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._guest: int | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={self.sockets}"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The postmaster, when this object started it."""
        return self._process

    def own(self) -> bool:
        """Try to become the one process that starts and stops this cluster."""
        if self._lock is not None:
            return True
        self.data.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.data / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def join(self) -> bool:
        """Be a guest of the process that owns this cluster, until :meth:`leave`. False: it is about to stop."""
        self._guest = self._guests_file()
        try:
            fcntl.flock(self._guest, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            os.close(guest)

    def outlast_guests(self) -> None:
        """Wait until nobody else uses the cluster; nobody joins any more before :meth:`stop` is through."""
        self._guest = self._guests_file()
        fcntl.flock(self._guest, fcntl.LOCK_EX)

    def _guests_file(self) -> int:
        return os.open(self.data / "postgres.guests", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def start(self, deadline_s: float = 60.0) -> None:
        """Initialise if need be, start, return when it answers. The lock must be held (:meth:`own`)."""
        if self._lock is None:
            raise EmbeddedPostgreSQLError(f"{self.data} is in use by another process")
        account = _account()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.cluster, self.sockets):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if account:
                os.chown(folder, account.pw_uid, account.pw_gid)
            folder.chmod(0o700)
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise(account)
        until = time.monotonic() + deadline_s
        while True:
            self._spawn(account)
            if self._wait_ready(until):
                break
            # A postmaster of a killed parent may still be on its way out: its pid file is in the way.
            if time.monotonic() > until:
                raise EmbeddedPostgreSQLError(f"PostgreSQL did not start; see {self.log}")
            time.sleep(0.2)
        self._create_database()

    def stop(self, deadline_s: float = 8.0) -> None:
        """Fast shutdown (clients are sent away, a checkpoint is written), then the lock is let go."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(deadline_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)  # immediate: recovered from the log at next start
                process.wait(5)
        self.leave()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _initialise(self, account: pwd.struct_passwd | None) -> None:
        # An initdb that was cut leaves a folder it refuses to touch again: nothing in it was ever used.
        for left in sorted(self.cluster.rglob("*"), reverse=True):
            left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
        with self.log.open("ab") as log:
            done = subprocess.run(
                [
                    postgresql_bin() / "initdb",
                    "--pgdata", self.cluster,
                    "--username", SUPERUSER,
                    "--auth", "trust",  # the socket folder is 0700
                    "--encoding", "UTF8",
                    "--locale-provider", "builtin",
                    "--builtin-locale", "C.UTF-8",
                    "--locale", "C",
                    "--data-checksums",
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                preexec_fn=_become(account),
                check=False,
            )  # fmt: skip
        if done.returncode != 0:
            raise EmbeddedPostgreSQLError(f"initdb failed; see {self.log}")

    def _spawn(self, account: pwd.struct_passwd | None) -> None:
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [postgresql_bin() / "postgres", "-D", self.cluster, "-k", str(self.sockets), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor, which stops us in order
                preexec_fn=_become(account),
            )

    def _wait_ready(self, until: float) -> bool:
        assert self._process is not None
        while time.monotonic() < until:
            if self._process.poll() is not None:
                return False
            try:
                psycopg.connect(self.url.replace(f"/{DATABASE}?", "/postgres?"), connect_timeout=2).close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.02)
        return False

    def _create_database(self) -> None:
        with psycopg.connect(self.url.replace(f"/{DATABASE}?", "/postgres?"), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE}")


def die_with_parent(sent: int = signal.SIGKILL) -> None:
    """Ask the kernel to send us ``sent`` when the parent thread ends (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(_PR_SET_PDEATHSIG, sent, 0, 0, 0)


def _account() -> pwd.struct_passwd | None:
    """As root: the account PostgreSQL runs under, since it refuses to run as root. Else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedPostgreSQLError("started as root, and there is no account 'postgres' or 'nobody' to run PostgreSQL")


def _become(account: pwd.struct_passwd | None) -> Callable[[], None]:
    """What the child does before exec: change user, keep the right to traverse folders, die with us."""

    def change() -> None:
        if account is not None:
            _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            wanted = 1 << _CAP_DAC_READ_SEARCH
            header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
            sets = struct.pack("=6I", wanted, wanted, wanted, 0, 0, 0)  # effective, permitted, inheritable
            if _libc.capset(header, sets) == 0:  # without it only folders open to all will do
                _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0)
        die_with_parent(signal.SIGQUIT)

    return change


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _socket_folder(data: Path) -> Path:
    """Below the data folder when the path fits a Unix socket address (107 bytes), else in the temporary folder."""
    inside = data / "run" / "postgresql"
    if len(os.fsencode(inside)) <= 80:
        return inside
    return Path(tempfile.gettempdir()) / f"negatoscope-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"
