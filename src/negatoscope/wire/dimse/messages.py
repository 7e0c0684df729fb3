"""Messages: a command set, then its data set if it announces one, on one context (PS3.7 6.3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from negatoscope.wire.dimse.commands import Command, decode
from negatoscope.wire.dul.events import CommandReceived, DataReceived
from negatoscope.wire.dul.items import NOT_SPECIFIED, ProtocolViolation


@dataclass(frozen=True, slots=True)
class Message:
    """The start of a message; the data set, if ``command.has_data_set``, follows as DataReceived."""

    context_id: int
    command: Command


class MessageReader:
    """Holds a peer to the order of messages. Keeps no data."""

    def __init__(self) -> None:
        self._open: int | None = None  # context whose data set has not ended

    @property
    def in_data_set(self) -> bool:
        return self._open is not None

    def command(self, event: CommandReceived) -> Message:
        """Raises ProtocolViolation: not a command set, or one inside a data set."""
        if self._open is not None:
            raise ProtocolViolation(NOT_SPECIFIED, "a command set came before its forerunner's data set ended")
        message = Message(event.context_id, decode(event.data))
        if message.command.has_data_set:
            self._open = event.context_id
        return message

    def data(self, event: DataReceived) -> None:
        """Raises ProtocolViolation: no data set was announced on this context."""
        if self._open != event.context_id:
            raise ProtocolViolation(NOT_SPECIFIED, f"a data set that no command announced, context {event.context_id}")
        if event.last:
            self._open = None
