"""PS3.8 upper layer: :class:`Association` is the machine, ``pdu`` and ``items`` its words."""

from negatoscope.wire.dul.association import Association, Misuse
from negatoscope.wire.dul.items import ProtocolViolation
from negatoscope.wire.dul.states import Role, State

__all__ = ["Association", "Misuse", "ProtocolViolation", "Role", "State"]
