"""What tests share besides fixtures."""

from __future__ import annotations

from dataclasses import dataclass

from negatoscope.db import Database
from negatoscope.model.actor import Actor, Scope
from negatoscope.model.source import Door, Source


@dataclass(frozen=True)
class World:
    """Two establishments that share nothing, each with one radiologist and one application entity."""

    database: Database
    radiologist: dict[str, Actor]  # by establishment code, "A" and "B"
    modality: dict[str, Actor]

    def scope(self, code: str) -> Scope:
        return Scope(self.radiologist[code])

    def source(self, code: str, door: Door = Door.DIMSE) -> Source:
        actor = self.modality[code]
        return Source(actor.actor_id, actor.establishment_id, code, actor.authority_oid, actor.name, "127.0.0.1", door)
