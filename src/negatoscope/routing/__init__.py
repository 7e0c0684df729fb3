"""Sending: remote nodes, rules on arrival, the durable queue, storage commitment."""

from negatoscope.routing.arrival import Arrivals, RulesFile
from negatoscope.routing.commitments import Asked, CommitmentRow, Commitments, ToAsk
from negatoscope.routing.nodes import NewNode, Node, NodeKind, Nodes
from negatoscope.routing.queue import Became, Claimed, DeliveryRow, Note, Priority, Queue, State, Wanted
from negatoscope.routing.rules import Rule, read_rules

__all__ = [
    "Arrivals",
    "Asked",
    "Became",
    "Claimed",
    "CommitmentRow",
    "Commitments",
    "DeliveryRow",
    "NewNode",
    "Node",
    "NodeKind",
    "Nodes",
    "Note",
    "Priority",
    "Queue",
    "Rule",
    "RulesFile",
    "State",
    "ToAsk",
    "Wanted",
    "read_rules",
]
