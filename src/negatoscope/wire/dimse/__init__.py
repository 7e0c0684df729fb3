"""PS3.7 messages: ``commands`` is the codec and its tables, ``messages`` their order."""

from negatoscope.wire.dimse.commands import Command, Element, decode, encode, request, response_to
from negatoscope.wire.dimse.messages import Message, MessageReader

__all__ = ["Command", "Element", "Message", "MessageReader", "decode", "encode", "request", "response_to"]
