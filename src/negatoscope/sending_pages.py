"""Sending as pages and programs are given it: apart, because only the HTTP processes pay for the web's modules."""

from __future__ import annotations

from negatoscope.bootstrap import Core
from negatoscope.errors import BadRequest
from negatoscope.routing import RulesFile
from negatoscope.sending import echo, locate_or_fail, sending
from negatoscope.web.nodes import SendingServices


def web_sending(built: Core) -> SendingServices:
    """What pages and programs are given."""
    parts = sending(built)

    def rules() -> RulesFile:
        try:
            return parts.arrivals.file(parts.rules_text())
        except BadRequest as error:
            return RulesFile((), str(error))

    return SendingServices(
        parts.nodes,
        parts.queue,
        rules,
        lambda node_id, by: echo(built, parts, node_id, by),
        lambda actor, study_uid, series_uid: locate_or_fail(built, actor, study_uid, series_uid),
    )
