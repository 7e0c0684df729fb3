"""Who is turned away at a door is in the audit trail."""

from __future__ import annotations

import json
from pathlib import Path

from pynetdicom import AE

from negatoscope.audit import Refusals
from negatoscope.model.actor import Right
from negatoscope.servers.dicom import DicomServer
from negatoscope.sharing import COMMAND_LINE
from security.estate import Estate, estate

VERIFICATION = "1.2.840.10008.1.1"


def refusals_of(made: Estate, door: str) -> set[tuple[str, str, int]]:
    with made.built.database.unit(None) as unit:
        rows = unit.execute("SELECT event FROM audit_event ORDER BY sequence").fetchall()
    events = [json.loads(row["event"]) for row in rows]
    return {
        (event["actor_name"], event["detail"]["reason"], event["detail"]["count"])
        for event in events
        if event["door"] == door and event["detail"].get("what") == "refused"
    }


def test_associations_that_are_turned_away_are_audited(database_url: str, tmp_path: Path) -> None:
    with estate(database_url, tmp_path) as made:
        made.accounts.add_entity("ELSEWHERE", "A", [Right.STORE], "192.0.2.1", by=COMMAND_LINE)
        with Refusals(made.built.trail, lambda: 0.0, every_s=0.0) as refusals:
            server = DicomServer(
                ("127.0.0.1", 0),
                "NEGATOSCOPE",
                made.built.store,
                lambda calling, called, address, identity: made.accounts.actor_of_title(calling, address, called),
                refused=lambda title, reason, address: refusals.note(title, reason, "dimse", address),
            )
            server.start()
            for title, called in (("STRANGER", "NEGATOSCOPE"), ("ELSEWHERE", "NEGATOSCOPE"), ("STRANGER", "OTHER")):
                entity = AE(ae_title=title)
                entity.add_requested_context(VERIFICATION)
                before = len(refusals_of(made, "dimse"))
                assert entity.associate("127.0.0.1", server.address[1], ae_title=called).is_rejected
                refusals.write_due()
                for _ in range(200):
                    if len(refusals_of(made, "dimse")) > before:
                        break
            server.stop()
        assert refusals_of(made, "dimse") == {
            ("STRANGER", "title-or-address", 1),
            ("ELSEWHERE", "title-or-address", 1),
            ("STRANGER", "called-title", 1),
        }


def test_requests_that_a_role_does_not_allow_are_audited(database_url: str, tmp_path: Path) -> None:
    with estate(database_url, tmp_path) as made:
        bearer = {"Authorization": f"Bearer {made.tokens['clinician']}"}
        assert made.client.get("/administration/users", headers=bearer).status_code == 404
        made.app.state.refusals.write_due(all_of_them=True)
        assert made.client.get("/api/nodes", headers=bearer).status_code == 403
        made.app.state.refusals.write_due(all_of_them=True)
        assert refusals_of(made, "page") == {("clinician", "role:administration", 1)}
        assert refusals_of(made, "dicomweb") == {("clinician", "role:api", 1)}
        assert made.client.get("/nothing", headers=bearer).status_code == 404
        made.app.state.refusals.write_due(all_of_them=True)
        assert len(refusals_of(made, "page")) == 1, "an address that does not exist is nobody's refusal"
