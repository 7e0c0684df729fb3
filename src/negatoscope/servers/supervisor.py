"""One parent: starts the database and the servers, starts again what dies, stops all in order.

It holds the listening sockets, so connections wait in the kernel while a child starts again. A child is
told by the kernel when the supervisor is gone (PR_SET_PDEATHSIG), whatever killed it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from negatoscope.db import EmbeddedPostgreSQL, EmbeddedPostgreSQLError, die_with_parent

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # before a dead child starts again
LONG_LIVED_S = 10.0  # a child that lived this long starts again without waiting
STOP_S = 6.0  # children get this long to end by themselves


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process to keep alive: ``negatoscope child KIND`` with its settings on standard input."""

    name: str
    kind: str
    config: dict[str, Any]
    listener: socket.socket | None = None
    secure_listener: socket.socket | None = None  # the same, over TLS


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    wait_s: float = field(default=FIRST_WAIT_S)


class Supervisor:
    """Runs in the main thread: PR_SET_PDEATHSIG is about the thread that started a child."""

    def __init__(
        self,
        specs: list[ChildSpec],
        postgresql: EmbeddedPostgreSQL | None,
        on_restart: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._children = [_Child(spec) for spec in specs]
        self._postgresql = postgresql
        self._on_restart = on_restart
        self._stopping = False

    def run(self, ready: Callable[[], None]) -> None:
        """Start everything, call ``ready`` once, keep everything alive until SIGTERM or SIGINT."""
        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, self._stop)
        try:
            for child in self._children:
                self._start(child)
            ready()
            while not self._stopping:
                self._look_after(time.monotonic())
                time.sleep(LOOK_EVERY_S)
        finally:
            self._end_all()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _look_after(self, now: float) -> None:
        if self._postgresql and self._postgresql.process and self._postgresql.process.poll() is not None:
            log.error("postgresql_died status=%s", self._postgresql.process.returncode)
            try:
                self._postgresql.start()
                self._on_restart("postgresql")
            except EmbeddedPostgreSQLError:
                log.exception("postgresql_restart_failed")
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                log.error("child_died name=%s status=%s", child.spec.name, child.process.returncode)
                child.process = None
                if now - child.started_at > LONG_LIVED_S:
                    child.wait_s = FIRST_WAIT_S
                child.start_at, child.wait_s = now + child.wait_s, min(child.wait_s * 2, LONGEST_WAIT_S)
            if child.process is None and now >= child.start_at:
                self._start(child)
                self._on_restart(child.spec.name)

    def _start(self, child: _Child) -> None:
        spec = child.spec
        listeners = (spec.listener, spec.secure_listener)
        numbers = ["-" if one is None else str(one.fileno()) for one in listeners]
        child.process = subprocess.Popen(
            [sys.executable, "-m", "negatoscope.cli", "child", spec.kind, *numbers],
            stdin=subprocess.PIPE,
            pass_fds=[one.fileno() for one in listeners if one is not None],
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop the children in order
            preexec_fn=die_with_parent,
        )
        child.started_at = time.monotonic()
        assert child.process.stdin is not None
        try:
            child.process.stdin.write(json.dumps(spec.config).encode())
            child.process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; the next look sees it

    def _end_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("child_killed pid=%d", process.pid)
                process.kill()
                process.wait()
        if self._postgresql:
            self._postgresql.stop(deadline_s=max(2.0, until + 2.0 - time.monotonic()))


def listen(host: str, port: int, backlog: int = 1024) -> socket.socket:
    """A listening socket; pass it to each worker. ``port`` 0 takes a free one (see ``getsockname``)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def listener_of(argument: str) -> socket.socket | None:
    """The listening socket that the supervisor handed down by number; ``-``: none."""
    if argument == "-":
        return None
    listener = socket.socket(fileno=int(argument))
    os.set_inheritable(listener.fileno(), False)
    return listener
