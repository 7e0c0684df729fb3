"""Sending joined to its edges: what the sender's process, the DICOM door, the pages and the commands share."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from negatoscope.archive.commitment import CommitmentJudge
from negatoscope.bootstrap import Core
from negatoscope.errors import BadRequest
from negatoscope.model.actor import Actor, Right
from negatoscope.routing import Arrivals, Asked, Commitments, NodeKind, Nodes, Queue
from negatoscope.routing.rules import LARGEST_FILE
from negatoscope.secure import Outgoing
from negatoscope.servers.dicom_commitment import Asker, CommitmentService, Reporter
from negatoscope.servers.dicom_pixels import Transcoder
from negatoscope.servers.sender import Deliverer, Timing, hand_of
from negatoscope.servers.sender_dimse import DimseCarrier
from negatoscope.servers.sender_run import Carrier
from negatoscope.servers.sender_stow import StowCarrier
from negatoscope.servers.worker import Duty, Worker
from negatoscope.sharing import Destination

RULES = "routing.toml"  # in the data folder
HAND = "routing"  # the actor under whose rights what rules and the command line send leaves
HISTORY_S = 90 * 86_400.0  # deliveries that ended well are shown for so long
ANSWER_S = 3600.0  # a node that has not reported on storage commitment is asked again after this


@dataclass(frozen=True, slots=True)
class Sending:
    """The use cases of sending."""

    nodes: Nodes
    queue: Queue
    commitments: Commitments
    arrivals: Arrivals
    judge: CommitmentJudge
    hand: Callable[[str], Actor]
    rules: Path

    def rules_text(self) -> str:
        """The file of rules; "" when there is none. Raises BadRequest when it is no text, or far too long."""
        try:
            with self.rules.open("rb") as file:
                return file.read(LARGEST_FILE + 1).decode()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequest("the file of rules cannot be read as text") from error


def sending(built: Core) -> Sending:
    """On the use cases of a process."""

    def hand(code: str) -> Actor:
        return built.accounts.system_actor(code, HAND, (Right.QUERY, Right.RETRIEVE))

    known = hand_of(hand)
    return Sending(
        Nodes(built.database, built.trail),
        Queue(built.database, built.trail),
        Commitments(built.database),
        Arrivals(built.database, known),
        CommitmentJudge(built.database, built.retrieval, built.packs),
        known,
        built.settings.data / RULES,
    )


def commitment_service(built: Core) -> CommitmentService:
    """Storage commitment as the DICOM door offers it."""
    parts = sending(built)
    return CommitmentService(built.settings.title, parts.commitments, parts.judge, built.limits, built.metrics.count)


@contextmanager
def carriers(built: Core) -> Iterator[dict[NodeKind, Carrier]]:
    """Who takes objects to nodes; pixel children, if any were needed, end on leaving."""
    settings = built.settings
    transcoder = Transcoder(
        built.retrieval, built.limits, settings.pixel_children, settings.pixel_memory, settings.pixel_cpu_s
    )
    try:
        yield {
            NodeKind.DIMSE: DimseCarrier(built.retrieval, transcoder, settings.title, built.limits, Outgoing(settings)),
            NodeKind.DICOMWEB: StowCarrier(built.retrieval, transcoder),
        }
    finally:
        transcoder.close()


def timing_of(built: Core) -> Timing:
    settings = built.settings
    return Timing(
        lease_s=settings.send_lease_s,
        beat_s=min(1.0, settings.send_lease_s / 4),
        retry_s=settings.send_retry_s,
        give_up_s=settings.send_give_up_s,
    )


@contextmanager
def deliverer(built: Core, parts: Sending, timing: Timing | None = None) -> Iterator[Deliverer]:
    """Sends while the context is open."""
    with carriers(built) as by_kind:
        made = Deliverer(
            parts.queue,
            parts.nodes,
            by_kind,
            built.retrieval.locate,
            built.trail.record,
            built.metrics.count,
            timing or timing_of(built),
        )
        made.start()
        try:
            yield made
        finally:
            made.stop()


def duties(built: Core, parts: Sending, timing: Timing) -> tuple[list[Duty], list[Duty]]:
    """What the sender's process does besides sending: what concerns rules, and what waits for peers."""

    def destination_of(asked: Asked) -> Destination:
        return built.accounts.destination_of(asked.title, parts.queue.actor(asked.actor_id))

    secured = Outgoing(built.settings)
    reporter = Reporter(
        built.settings.title,
        parts.commitments,
        parts.judge,
        destination_of,
        secured,
        built.limits,
        timing.retry_s,
        timing.longest_retry_s,
        timing.give_up_s,
    )
    asker = Asker(
        built.settings.title,
        parts.commitments,
        parts.nodes,
        secured,
        built.limits,
        lambda: f"2.25.{uuid.uuid4().int}",
        timing.retry_s,
        timing.longest_retry_s,
        ANSWER_S,
    )

    def route() -> bool:
        try:
            text = parts.rules_text()
        except BadRequest:
            text = "not text"  # judged and shown as any other file that is wrong
        return parts.arrivals.route(text, datetime.now()) > 0

    def forget() -> bool:
        parts.queue.forget_old(HISTORY_S)
        parts.commitments.forget_old(HISTORY_S)
        return False

    own = [Duty("route", min(2.0, max(0.2, built.settings.quiet_s / 2)), route)]
    own.append(Duty("forget-deliveries", 3600.0, forget))
    return own, [Duty("report-commitment", 0.5, reporter.round), Duty("ask-commitment", 0.5, asker.round)]


def run_sender(built: Core, until: threading.Event) -> bool:
    """The sender's process, until the event is set. False: a thread that must live has died."""
    parts, timing = sending(built), timing_of(built)
    workers = [Worker(table, time.monotonic) for table in duties(built, parts, timing)]
    background = [threading.Thread(target=worker.run, name="sender-duties", daemon=True) for worker in workers]
    with deliverer(built, parts, timing) as sends:
        for thread in background:
            thread.start()
        while not until.wait(0.25):
            if not sends.alive or not all(thread.is_alive() for thread in background):
                return False
        for worker in workers:
            worker.stop()
        background[0].join(2.0)
    return True


def echo(built: Core, parts: Sending, node_id: int, by: Actor) -> str:
    """Ask a node whether it is there; why not, as a slug, or "". Raises Forbidden, NotFound."""
    from negatoscope.servers.sender_run import NodeSilent

    node = parts.nodes.get(node_id, by=by)
    try:
        with carriers(built) as by_kind:
            by_kind[node.kind].echo(node)
    except NodeSilent as silent:
        return str(silent)
    parts.nodes.answered(node_id)
    return ""


def locate_or_fail(built: Core, actor: Actor, study_uid: str, series_uid: str | None) -> int:
    """How many instances ``actor`` may read there. Raises Forbidden, NotFound."""
    from negatoscope.sharing import policy

    holdings = built.retrieval.locate(policy.scope(actor, Right.RETRIEVE), study_uid, series_uid)
    return sum(len(holding.instances) for holding in holdings)


__all__ = [
    "Sending",
    "carriers",
    "commitment_service",
    "deliverer",
    "duties",
    "echo",
    "locate_or_fail",
    "run_sender",
    "sending",
]
