"""Requests with one small data set, or none: gathered within a bound, run when whole, every failure an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from negatoscope.dicom.json_model import to_json
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.tags import SPECIFIC_CHARACTER_SET
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, transfer_syntax
from negatoscope.dicom.values import character_sets
from negatoscope.dicom.walk import walk
from negatoscope.errors import LimitExceeded, NegatoscopeError
from negatoscope.servers.dicom_link import Gone
from negatoscope.servers.dicom_store import PROCESSING_FAILURE, where
from negatoscope.wire.dimse import Command, response_to
from negatoscope.wire.dul.items import ProtocolViolation

log = logging.getLogger(__name__)

CHARACTER_SET_KEY = "00080005"
_SYNTAXES = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)


def takes(syntax: str) -> bool:
    """Transfer syntaxes of what is gathered."""
    return syntax in _SYNTAXES


class Gathered:
    """Implements ``dicom_store.Exchange``.

    Args:
        limit: bytes of the data set; a longer one is drained and refused.
        run: given the data set; its response, or None when that is sent already.
        refuse: the response to an error of ours.
    """

    def __init__(
        self,
        command: Command,
        limit: int,
        run: Callable[[bytes], Command | None],
        refuse: Callable[[NegatoscopeError], Command],
    ) -> None:
        self._command, self._limit, self._run, self._refuse = command, limit, run, refuse
        self._data = bytearray()
        self._excess = False

    def write(self, fragments: Sequence[memoryview]) -> None:
        for fragment in fragments:
            self._excess = self._excess or len(self._data) + len(fragment) > self._limit
            if not self._excess:
                self._data += fragment

    def finish(self) -> Command | None:
        """Raises Gone and ProtocolViolation, nothing else."""
        try:
            if self._excess:
                raise LimitExceeded(f"this data set has {self._limit} bytes at most")
            return self._run(bytes(self._data))
        except (Gone, ProtocolViolation):
            raise
        except NegatoscopeError as error:
            response = self._refuse(error)
            log.warning("request refused: %s, status 0x%04X", type(error).__name__, response.status)
            return response
        except Exception as error:  # noqa: BLE001  # a server answers whatever happened behind it
            log.error("request failed: %s", where(error))
            return response_to(self._command, PROCESSING_FAILURE, "internal error")

    def abort(self) -> None:
        self._data.clear()


def read_data_set(data: bytes, syntax: str, limits: Limits) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A data set as DICOM JSON without its character set, and that character set.

    Raises:
        InvalidObject and its kinds: no data set.
    """
    found = to_json(data, syntax, None, limits)
    sets: tuple[str, ...] = ()
    if found.pop(CHARACTER_SET_KEY, None) is not None:
        for element in walk(data, transfer_syntax(syntax), limits):
            if element.tag == SPECIFIC_CHARACTER_SET:
                sets = character_sets(bytes(data[element.offset : element.end]))
                break
    return found, sets
