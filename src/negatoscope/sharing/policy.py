"""Who may: the only place that decides access.

Two halves. :func:`scope` judges what depends on the actor alone (role, rights, purpose) and may say
``Forbidden``: the answer is the same for every study, so it tells nothing of any. Which studies are in reach
is the SQL relation ``readable_study`` (migration 0001), joined into every query: what it leaves out is not
there, ``NotFound`` for everybody it is not for.
"""

from __future__ import annotations

from negatoscope.errors import Forbidden
from negatoscope.model.actor import Actor, ActorKind, Purpose, Right, Role, Scope


def require(actor: Actor, right: Right) -> None:
    """Raises ``Forbidden`` when ``actor`` has not that right at all."""
    if right not in actor.rights:
        raise Forbidden(f"this needs the right '{right}'")


def scope(actor: Actor, right: Right, purpose: Purpose = Purpose.NORMAL) -> Scope:
    """The bounds within which ``actor`` may use ``right`` for ``purpose``.

    Raises:
        Forbidden: the actor has not the right, or the purpose is not open to anybody yet.
    """
    require(actor, right)
    if purpose is not Purpose.NORMAL:
        raise Forbidden(f"the purpose '{purpose}' is not open")
    return Scope(actor, purpose)


def administered(actor: Actor) -> int | None:
    """The establishment that ``actor`` administers; ``None``: all of them.

    Raises:
        Forbidden: it administers nothing.
    """
    require(actor, Right.ADMINISTER)
    return None if actor.kind is ActorKind.SYSTEM or actor.role is Role.ADMIN else actor.establishment_id


def may_administer(actor: Actor, establishment_id: int) -> None:
    """Raises ``Forbidden`` when that establishment is not ``actor``'s to administer."""
    if administered(actor) not in (None, establishment_id):
        raise Forbidden("this establishment is not yours to administer")


def audit_bounds(actor: Actor) -> str | None:
    """The code of the establishment whose events ``actor`` may read; ``None``: all.

    Raises:
        Forbidden: none.
    """
    require(actor, Right.AUDIT)
    return None if actor.kind is ActorKind.SYSTEM or actor.role is Role.ADMIN else actor.establishment_code


def quarantine_bounds(actor: Actor, *, export: bool) -> int | None:
    """The establishment whose quarantine ``actor`` may list, or with ``export`` take data sets from; ``None``: all.

    Listing needs ``quarantine``; taking the data set out is reading an image, so it needs ``retrieve`` too.

    Raises:
        Forbidden: none.
    """
    require(actor, Right.QUARANTINE)
    if export:
        require(actor, Right.RETRIEVE)
    return None if actor.kind is ActorKind.SYSTEM or actor.role is Role.ADMIN else actor.establishment_id
