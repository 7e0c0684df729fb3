"""What each role may do: one table. Application entities get their rights one by one (``ae add``)."""

from __future__ import annotations

from dataclasses import dataclass

from negatoscope.model.actor import Right, Role


@dataclass(frozen=True, slots=True)
class Powers:
    """The rights of a role, and whether the relation ``readable_study`` shows it anything."""

    rights: frozenset[Right]
    reads_images: bool


ROLES: dict[Role, Powers] = {
    # Runs the platform for all establishments: sees that something is in quarantine, never an image.
    Role.ADMIN: Powers(frozenset({Right.ADMINISTER, Right.QUARANTINE, Right.AUDIT}), reads_images=False),
    # Runs the imaging systems of one establishment, and must see what the modalities sent.
    Role.REFERENT: Powers(
        frozenset({Right.ADMINISTER, Right.QUARANTINE, Right.QUERY, Right.RETRIEVE, Right.WORKLIST}), reads_images=True
    ),
    Role.RADIOGRAPHER: Powers(frozenset({Right.STORE, Right.QUERY, Right.RETRIEVE, Right.WORKLIST}), reads_images=True),
    Role.RADIOLOGIST: Powers(frozenset({Right.STORE, Right.QUERY, Right.RETRIEVE, Right.WORKLIST}), reads_images=True),
    Role.CLINICIAN: Powers(frozenset({Right.QUERY, Right.RETRIEVE}), reads_images=True),
    # Enters orders, imports discs and looks up studies; without ``retrieve`` no pixel leaves.
    Role.SECRETARY: Powers(frozenset({Right.STORE, Right.QUERY, Right.WORKLIST}), reads_images=True),
    Role.DPO: Powers(frozenset({Right.AUDIT}), reads_images=False),
}

# A token bound to one study is for looking at that study, whatever its user may do besides.
STUDY_TOKEN_RIGHTS = frozenset({Right.QUERY, Right.RETRIEVE})

AE_RIGHTS = frozenset({Right.STORE, Right.QUERY, Right.RETRIEVE, Right.WORKLIST})
AE_READS = frozenset({Right.QUERY, Right.RETRIEVE})
