"""What happens in the background: packing, folding of lookups, verification, heads sent away.

One loop, one table of duties. A duty that fails is logged and comes again; it never ends the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from negatoscope.errors import NegatoscopeError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Duty:
    """``run`` every ``every_s`` seconds; when it answers True there is more to do at once."""

    name: str
    every_s: float
    run: Callable[[], bool]
    due_at: float = 0.0


class Worker:
    """Runs in the thread that calls :meth:`run`."""

    def __init__(self, duties: list[Duty], monotonic: Callable[[], float]) -> None:
        self._duties, self._monotonic = duties, monotonic
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        """Until :meth:`stop`, which takes effect between two duties."""
        while not self._stopped.is_set():
            self.round()
            wait = min(duty.due_at for duty in self._duties) - self._monotonic()
            self._stopped.wait(max(wait, 0.05))

    def round(self) -> None:
        """Every duty that is due, once."""
        for duty in self._duties:
            if self._stopped.is_set() or self._monotonic() < duty.due_at:
                continue
            more = False
            try:
                more = duty.run()
            except NegatoscopeError as error:
                log.warning("duty_postponed name=%s error=%s", duty.name, type(error).__name__)
            except Exception:
                log.exception("duty_failed name=%s", duty.name)
            duty.due_at = self._monotonic() + (0.0 if more else duty.every_s)
