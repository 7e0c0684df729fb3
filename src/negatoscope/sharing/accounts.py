"""Users, tokens, sessions, application entities: who somebody is, and who may change that.

Every change is checked against ``by``, and committed together with its audit event. ``COMMAND_LINE`` is
whoever has the data folder in hand; a door never passes it on behalf of a peer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import psycopg
from psycopg.rows import DictRow

from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import BadRequest, Conflict, Forbidden, NotFound, PreconditionFailed
from negatoscope.model.actor import Actor, ActorKind, Right, Role
from negatoscope.model.event import AuditEvent, EventAction
from negatoscope.queries import load_queries
from negatoscope.sharing import entities, journal, people, policy
from negatoscope.sharing.addresses import HostNames, Resolver
from negatoscope.sharing.credentials import KnownSecrets, SecretKind, digest, kind_of, new_secret
from negatoscope.sharing.entities import Destination, EntityRow
from negatoscope.sharing.passwords import Passwords, check_policy
from negatoscope.sharing.people import CredentialRow, EstablishmentRow, UserRow, actor_of
from negatoscope.sharing.ports import Journal, Unit, Units
from negatoscope.sharing.roles import AE_READS, ROLES, STUDY_TOKEN_RIGHTS

QUERIES = load_queries("negatoscope.sharing")
KEEP_S = 2.0  # another process honours a revoked secret for at most this long
LONGEST_TTL_S = 366 * 86_400.0  # of a token
DEMO_LOGIN = "demo"  # never an ordinary user's: its tokens exist in demonstration folders only

COMMAND_LINE = Actor(
    actor_id=0,
    kind=ActorKind.SYSTEM,
    name="command line",
    role=None,
    establishment_id=0,
    establishment_code="",
    authority_oid="",
    rights=frozenset({Right.ADMINISTER, Right.QUARANTINE, Right.RETRIEVE, Right.AUDIT}),
)


class Accounts:
    """Thread-safe; one a process. Methods raise ``Unavailable`` when the database cannot be reached."""

    def __init__(
        self,
        units: Units,
        trail: Journal,
        *,
        monotonic: Callable[[], float],
        passwords: Passwords | None = None,
        resolve: Resolver | None = None,
    ) -> None:
        self._units, self._trail = units, trail
        self._passwords = passwords or Passwords()
        self._resolve = resolve or HostNames(monotonic)
        self._known = KnownSecrets(monotonic, KEEP_S)

    # Who is it? ----------------------------------------------------------------------------------

    def actor_of_secret(self, secret: str) -> Actor | None:
        """The actor of a token or session; ``None`` when it is unknown, expired, revoked or its user disabled.

        One query; expiry by database time. The answer is kept for ``KEEP_S``, which is how long another
        process may go on after a revocation; in this process it ends at once.
        """
        if kind_of(secret) is None:
            return None
        key = digest(secret)
        if known := self._known.get(key):
            return known
        generation = self._known.generation
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["actor_of_secret"], {"secret_sha256": key}).fetchone()
        if row is None:
            return None
        actor = actor_of(row, session=str(row["credential_id"]))
        if only := row["only_study_uid"]:
            actor = replace(actor, rights=actor.rights & STUDY_TOKEN_RIGHTS, only_study_uid=only)
        self._known.put(key, actor, row["left_s"], generation)
        return actor

    def known_actor(self, secret: str) -> Actor | None:
        """As :meth:`actor_of_secret`, from memory alone: never blocks, ``None`` when the database must be asked."""
        return self._known.get(digest(secret)) if kind_of(secret) else None

    def actor_of_title(
        self, title: str, address: str, called: str = "", certificate: str | None = None
    ) -> Actor | None:
        """The application entity that calls by ``title`` from ``address``; ``None``: reject the association.

        The row of the peer's host wins over the row for any address. ``called`` is not judged here: which
        title is ours is the server's to know. Each call is a new ``session``. ``certificate``: the fingerprint of
        the one that the peer has shown over TLS, which must then be bound to the title; without, none may be.
        """
        title = title.strip(" ")
        if not title.isascii() or "\0" in title:
            return None
        with self._units.unit(None) as unit:
            rows = unit.execute(QUERIES["entities_by_title"], {"title": title}).fetchall()
        row = entities.matching(rows, address, self._resolve)
        if row is None or not entities.vouched(row, certificate):
            return None
        if row["stale"]:
            with self._units.unit(None) as unit:
                unit.execute(QUERIES["entity_seen"], {"actor_id": row["actor_id"]})
        return actor_of(row, session=uuid.uuid4().hex)

    def destination_of(self, title: str, actor: Actor) -> Destination:
        """Where ``actor`` may have images moved to: an application entity of its own establishment.

        Raises:
            NotFound: unknown, foreign, disabled, or without an address (C-MOVE 0xA801).
        """
        with self._units.unit(None) as unit:
            rows = unit.execute(QUERIES["entities_by_title"], {"title": title.strip(" ").replace("\0", "")}).fetchall()
        for row in rows:
            mine = row["establishment_id"] == actor.establishment_id and not row["disabled"]
            if mine and row["host"] is not None and row["port"] is not None:
                certificates = frozenset(row["certificates"])
                return Destination(row["actor_id"], row["title"], row["host"], row["port"], row["tls"], certificates)
        raise NotFound("move destination unknown")

    def system_actor(
        self, establishment_code: str, name: str = "import", rights: Collection[Right] = (Right.STORE,)
    ) -> Actor:
        """Our own hand in an establishment, made at first use: what ``import`` stores is its. Reads as ``rights`` say.

        Raises:
            NotFound: no such establishment.
        """
        with self._units.unit(None) as unit:
            place = _establishment(unit, establishment_code)
            key = {"name": name, "establishment_id": place.establishment_id}
            unit.execute(QUERIES["lock_name"], {"name": f"system:{place.establishment_id}:{name}"})
            row = unit.execute(QUERIES["system_actor"], key).fetchone()
            actor_id = (
                row["actor_id"]
                if row
                else _add_actor(unit, ActorKind.SYSTEM, name, None, place, sorted(rights), bool(AE_READS & set(rights)))
            )
        return _made(actor_id, ActorKind.SYSTEM, name, None, place, rights)

    # Establishments ------------------------------------------------------------------------------

    def add_establishment(
        self, code: str, name: str, authority_oid: str, finess: str | None = None, *, by: Actor
    ) -> int:
        """Its id.

        Raises:
            Forbidden: not for ``by``.
            BadRequest: a field is not well formed.
            Conflict: the code is taken.
        """
        _platform_only(by)
        people.check_establishment(code, name, authority_oid)
        if finess is not None and not (finess.isascii() and finess.isalnum() and len(finess) == 9):
            raise BadRequest("a FINESS number has 9 letters or digits")
        values = {"code": code, "name": name, "authority_oid": authority_oid, "finess": finess}
        with self._units.unit(None) as unit:
            row = _inserted(unit, "add_establishment", values, f"the establishment {code} exists")
            self._administered(unit, by, EventAction.CREATE, "establishment-administration", code)
        return int(row["establishment_id"])

    def establishments(self) -> list[EstablishmentRow]:
        with self._units.unit(None) as unit:
            return [EstablishmentRow(**row) for row in unit.execute(QUERIES["establishments"])]

    def establishment(self, code: str) -> EstablishmentRow:
        """Raises ``NotFound``."""
        with self._units.unit(None) as unit:
            return _establishment(unit, code)

    # Users ---------------------------------------------------------------------------------------

    def add_user(
        self,
        login: str,
        role: Role,
        establishment_code: str,
        password: str | None = None,
        *,
        by: Actor,
        display_name: str = "",
        demonstration: bool = False,
        language: str = "fr",
    ) -> Actor:
        """A new user; without a password one that has tokens only.

        Raises:
            Forbidden: only the platform's administrators and the command line add users.
            BadRequest: login, name or password is not acceptable.
            NotFound: no such establishment.
            Conflict: the login is taken.
            PreconditionFailed: a demonstration account outside a demonstration folder.
        """
        _platform_only(by)
        people.check_login(login)
        people.check_display_name(display_name or login)
        people.check_language(language)
        if login == DEMO_LOGIN and not demonstration:
            raise BadRequest(f"the login {DEMO_LOGIN} is kept for demonstrations")
        password_hash = None
        if password is not None:
            check_policy(login, password)
            password_hash = self._passwords.hash(password)
        powers = ROLES[role]
        with self._units.unit(None) as unit:
            if demonstration and not _is_demonstration(unit):
                raise PreconditionFailed("demonstration accounts exist in a demonstration folder only")
            place = _establishment(unit, establishment_code)
            try:
                actor_id = _add_actor(
                    unit, ActorKind.USER, login, role, place, sorted(powers.rights), powers.reads_images
                )
            except psycopg.errors.UniqueViolation as error:
                raise Conflict(f"the login {login} is taken") from error
            values = {"actor_id": actor_id, "display_name": display_name or login, "password_hash": password_hash}
            unit.execute(QUERIES["add_user_account"], values | {"demonstration": demonstration, "language": language})
            self._administered(
                unit, by, EventAction.CREATE, "account-administration", login,
                role=role.value, establishment=establishment_code,
            )  # fmt: skip
        return _made(actor_id, ActorKind.USER, login, role, place, powers.rights)

    def users(self, *, by: Actor) -> list[UserRow]:
        """All users to an administrator, those of its establishment to a referent. Raises ``Forbidden``."""
        with self._units.unit(None) as unit:
            rows = unit.execute(QUERIES["users"], {"establishment_id": policy.administered(by)}).fetchall()
        return [UserRow(**row | {"role": Role(row["role"])}) for row in rows]

    def set_password(self, login: str, password: str, *, by: Actor, current: str | None = None) -> None:
        """A new password for ``login``; every session and token of the user ends.

        Who changes their own proves it with the ``current`` one: a stolen token must not become an account.

        Raises:
            Forbidden: neither the user with the right current password nor an administrator.
            BadRequest: too short, too long, too easy.
            NotFound: no such user.
        """
        if current is not None and by.kind is ActorKind.USER and by.name == login:
            with self._units.unit(None) as unit:
                kept = _user(unit, login)["password_hash"]
            if not self._passwords.verify(kept, current):
                raise Forbidden("this is not the current password")
        else:
            _platform_only(by)
        check_policy(login, password)
        password_hash = self._passwords.hash(password)
        with self._units.unit(None) as unit:
            row = _user(unit, login)
            unit.execute(QUERIES["set_password"], {"actor_id": row["actor_id"], "password_hash": password_hash})
            unit.execute(QUERIES["revoke_all"], {"actor_id": row["actor_id"]})
            self._administered(unit, by, EventAction.UPDATE, "account-administration", login, change="password")
        self._known.forget()

    def set_disabled(self, login: str, disabled: bool, *, by: Actor) -> None:
        """Disable (all sessions and tokens end at once) or enable again. Raises ``Forbidden``, ``NotFound``."""
        _platform_only(by)
        with self._units.unit(None) as unit:
            row = _user(unit, login)
            unit.execute(QUERIES["set_disabled"], {"actor_id": row["actor_id"], "disabled": disabled})
            if disabled:
                unit.execute(QUERIES["revoke_all"], {"actor_id": row["actor_id"]})
            change = "disabled" if disabled else "enabled"
            self._administered(unit, by, EventAction.UPDATE, "account-administration", login, change=change)
        self._known.forget()

    def language_of(self, actor: Actor) -> str:
        """The language a user chose; ``""`` for an actor that is no user."""
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["language"], {"actor_id": actor.actor_id}).fetchone()
        return row["language"] if row else ""

    def set_language(self, actor: Actor, language: str) -> None:
        """Raises ``BadRequest`` for a language we do not speak."""
        people.check_language(language)
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["set_language"], {"actor_id": actor.actor_id, "language": language})

    # Demonstration folders -----------------------------------------------------------------------

    def mark_demonstration(self) -> None:
        """This folder is for demonstrations from now on: users may be entered without a password."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["mark_demonstration"])

    def is_demonstration(self) -> bool:
        with self._units.unit(None) as unit:
            return _is_demonstration(unit)

    def demonstrations(self) -> list[UserRow]:
        """The accounts that anybody may enter with one click; none outside a demonstration folder."""
        with self._units.unit(None) as unit:
            if not _is_demonstration(unit):
                return []
            rows = unit.execute(QUERIES["users"], {"establishment_id": None}).fetchall()
        users = [UserRow(**row | {"role": Role(row["role"])}) for row in rows]
        return [user for user in users if user.demonstration and not user.disabled]

    # Application entities ------------------------------------------------------------------------

    def add_entity(
        self,
        title: str,
        establishment_code: str,
        rights: Collection[Right],
        host: str | None = None,
        port: int | None = None,
        *,
        tls: bool = False,
        certificates: Collection[str] = (),
        by: Actor,
    ) -> Actor:
        """A peer that may associate. Without ``host`` from any address, and then it is no move destination.

        With ``certificates`` (SHA-256 fingerprints) it may call over TLS with one of them and in no other way.
        ``tls``: we call it over TLS.

        Raises:
            Forbidden: the establishment is not ``by``'s to administer.
            BadRequest: a field is not well formed.
            NotFound: no such establishment.
            Conflict: this title is known at this host (or for any address).
        """
        title, host = entities.check_title(title), entities.check_host(host, port)
        kept, bound = entities.check_rights(rights), entities.check_certificates(certificates, tls, port)
        with self._units.unit(None) as unit:
            place = _establishment(unit, establishment_code)
            policy.may_administer(by, place.establishment_id)
            kind, reads = ActorKind.APPLICATION_ENTITY, bool(AE_READS & set(rights))
            actor_id = _add_actor(unit, kind, title, None, place, kept, reads)
            values = {"actor_id": actor_id, "title": title, "host": host, "port": port, "tls": tls}
            _inserted(unit, "add_entity", values, f"the application entity {title} is known there")
            for one in bound:
                unit.execute(QUERIES["bind_certificate"], {"actor_id": actor_id, "fingerprint": one})
            self._entity_changed(unit, by, EventAction.CREATE, title, place.code, host, port, kept)
        return _made(actor_id, kind, title, None, place, rights)

    def change_entity(
        self, actor_id: int, rights: Collection[Right], host: str | None = None, port: int | None = None, *, by: Actor
    ) -> None:
        """Raises as :meth:`add_entity`; ``NotFound`` also when it is not ``by``'s to see."""
        host, kept = entities.check_host(host, port), entities.check_rights(rights)
        with self._units.unit(None) as unit:
            row = _entity(unit, actor_id, by)
            _inserted(
                unit, "change_entity", {"actor_id": actor_id, "host": host, "port": port},
                f"the application entity {row['title']} is known there",
            )  # fmt: skip
            reads = bool(AE_READS & set(rights))
            unit.execute(QUERIES["change_entity_rights"], {"actor_id": actor_id, "rights": kept, "reads_images": reads})
            self._entity_changed(unit, by, EventAction.UPDATE, row["title"], row["code"], host, port, kept)

    def secure_entity(
        self, actor_id: int, *, tls: bool, bind: Collection[str] = (), unbind: Collection[str] = (), by: Actor
    ) -> None:
        """How it is reached, and by which certificates it is known from now on: see :meth:`add_entity`.

        Raises:
            Forbidden, NotFound: not ``by``'s to see; or a fingerprint to ``unbind`` is not bound.
            BadRequest: a fingerprint is not well formed, there are too many, or no port for TLS.
        """
        with self._units.unit(None) as unit:
            row = _entity(unit, actor_id, by)
            kept = set(row["certificates"])
            gone = set(entities.check_certificates(unbind, tls, row["port"]))
            if not gone <= kept:
                raise NotFound("no such certificate is bound")
            added = set(entities.check_certificates(bind, tls, row["port"])) - kept
            entities.check_certificates(kept - gone | added, tls, row["port"])
            unit.execute(QUERIES["set_entity_tls"], {"actor_id": actor_id, "tls": tls})
            for query, changed in (("unbind_certificate", gone - added), ("bind_certificate", added)):
                for one in sorted(changed):
                    unit.execute(QUERIES[query], {"actor_id": actor_id, "fingerprint": one})
            self._administered(
                unit, by, EventAction.UPDATE, "ae-administration", row["title"], establishment=row["code"],
                tls=str(tls).lower(), bound=",".join(sorted(added)), unbound=",".join(sorted(gone)),
            )  # fmt: skip

    def remove_entity(self, actor_id: int, *, by: Actor) -> None:
        """Its associations are rejected from now on; what it sent stays, with its name. Raises as ``change_entity``."""
        with self._units.unit(None) as unit:
            row = _entity(unit, actor_id, by)
            unit.execute(QUERIES["remove_entity"], {"actor_id": actor_id})
            unit.execute(QUERIES["set_disabled"], {"actor_id": actor_id, "disabled": True})
            self._administered(
                unit, by, EventAction.DELETE, "ae-administration", row["title"], establishment=row["code"]
            )

    def entities(self, *, by: Actor) -> list[EntityRow]:
        """All to an administrator, those of its establishment to a referent. Raises ``Forbidden``."""
        with self._units.unit(None) as unit:
            rows = unit.execute(QUERIES["entities"], {"establishment_id": policy.administered(by)}).fetchall()
        return [EntityRow(**row | {"rights": frozenset(map(Right, row["rights"]))}) for row in rows]

    # Tokens and sessions -------------------------------------------------------------------------

    def create_token(self, login: str, ttl_s: float, only_study_uid: str | None = None, *, by: Actor) -> str:
        """A bearer token of ``login``, shown this once; with ``only_study_uid`` it sees that study and nothing else.

        Raises:
            Forbidden: neither the user, signed in, nor the command line. An administrator must not become a
                reader this way, and a token must not beget a longer one.
            BadRequest: the time to live or the UID is out of bounds.
            NotFound: no such user, or disabled.
            PreconditionFailed: a demonstration account outside a demonstration folder.
        """
        himself = by.kind is ActorKind.USER and by.name == login and not by.only_study_uid
        if not himself and by.kind is not ActorKind.SYSTEM:
            raise Forbidden("a token is made by its user, signed in, or on the command line")
        if not 0 < ttl_s <= LONGEST_TTL_S:
            raise BadRequest(f"a token lives up to {LONGEST_TTL_S / 86_400:.0f} days")
        if only_study_uid is not None and not is_valid_uid(only_study_uid):
            raise BadRequest("the study is named by a UID")
        secret = new_secret(SecretKind.TOKEN)
        with self._units.unit(None) as unit:
            if himself and not _is_session(unit, by.session):
                raise Forbidden("a token is made by its user, signed in, or on the command line")
            row = _user(unit, login)
            if row["disabled"]:
                raise NotFound(f"no user {login}")
            if (row["demonstration"] or login == DEMO_LOGIN) and not _is_demonstration(unit):
                raise PreconditionFailed("demonstration accounts have tokens in a demonstration folder only")
            _add_credential(unit, secret, SecretKind.TOKEN, row["actor_id"], ttl_s, only_study_uid)
            event = journal.administered(
                by, EventAction.CREATE, "token-administration", login,
                ttl_s=int(ttl_s), only_study_uid=only_study_uid or "",
            )  # fmt: skip
            self._trail.append(unit, [event])
        return secret

    def open_session(self, actor: Actor, ttl_s: float) -> str:
        """A new session for somebody who has just proved who they are (``Logins``): never an old id made good."""
        secret = new_secret(SecretKind.SESSION)
        with self._units.unit(None) as unit:
            _add_credential(unit, secret, SecretKind.SESSION, actor.actor_id, ttl_s, actor.only_study_uid)
        return secret

    def rotate_session(self, secret: str) -> str | None:
        """Another secret for the same session until the same time; the old one ends. ``None``: there was none."""
        if kind_of(secret) is not SecretKind.SESSION:
            return None
        fresh = new_secret(SecretKind.SESSION)
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["revoke_secret"], {"secret_sha256": digest(secret)}).fetchone()
            if row is None:
                return None
            unit.execute(QUERIES["replace_session"], row | {"secret_sha256": digest(fresh)})
        self._known.forget()
        return fresh

    def close_session(self, secret: str, actor: Actor, address: str) -> None:
        """Sign out. A secret that is not good any more is no error."""
        if kind_of(secret) is not SecretKind.SESSION:
            return
        with self._units.unit(None) as unit:
            if unit.execute(QUERIES["revoke_secret"], {"secret_sha256": digest(secret)}).fetchone():
                self._trail.append(unit, [journal.logged_out(actor, address)])
        self._known.forget()

    def credentials(self, login: str, *, by: Actor) -> list[CredentialRow]:
        """Tokens and sessions of ``login`` that still work. Raises ``Forbidden``, ``NotFound``."""
        if by.name != login or by.kind is not ActorKind.USER:
            _platform_only(by)
        with self._units.unit(None) as unit:
            actor_id = _user(unit, login)["actor_id"]
            return [CredentialRow(**row) for row in unit.execute(QUERIES["credentials"], {"actor_id": actor_id})]

    def revoke(self, login: str, credential_id: uuid.UUID, *, by: Actor) -> None:
        """End one token or session. Raises ``Forbidden``; ``NotFound`` when it is not there or not ``login``'s."""
        if by.name != login or by.kind is not ActorKind.USER:
            _platform_only(by)
        with self._units.unit(None) as unit:
            key = {"credential_id": credential_id, "actor_id": _user(unit, login)["actor_id"]}
            if unit.execute(QUERIES["revoke_credential"], key).fetchone() is None:
                raise NotFound("no such token")
            self._administered(unit, by, EventAction.DELETE, "token-administration", login)
        self._known.forget()

    def forget_old(self) -> None:
        """Delete credentials that ended a month ago. For the worker, daily."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["forget_credentials"])

    # ---------------------------------------------------------------------------------------------

    def _administered(
        self, unit: Unit, by: Actor, action: EventAction, what: str, subject: str, **detail: str | int
    ) -> None:
        events: list[AuditEvent] = [journal.administered(by, action, what, subject, **detail)]
        self._trail.append(unit, events)

    def _entity_changed(
        self, unit: Unit, by: Actor, action: EventAction, title: str, code: str,
        host: str | None, port: int | None, rights: list[str],
    ) -> None:  # fmt: skip
        self._administered(
            unit, by, action, "ae-administration", title,
            establishment=code, host=host or "any", port=port or 0, rights=",".join(rights),
        )  # fmt: skip


def _platform_only(by: Actor) -> None:
    if policy.administered(by) is not None:
        raise Forbidden("only the platform's administrators may do this")


def _establishment(unit: Unit, code: str) -> EstablishmentRow:
    row = unit.execute(QUERIES["establishment_by_code"], {"code": code.replace("\0", "")}).fetchone()
    if row is None:
        raise NotFound("no such establishment")
    return EstablishmentRow(**row)


def _user(unit: Unit, login: str) -> DictRow:
    row = unit.execute(QUERIES["user_by_login"], {"login": login.replace("\0", "")}).fetchone()
    if row is None:
        raise NotFound("no such user")
    return row


def _entity(unit: Unit, actor_id: int, by: Actor) -> DictRow:
    mine = policy.administered(by)
    row = unit.execute(QUERIES["entity_by_id"], {"actor_id": actor_id}).fetchone()
    if row is None or mine not in (None, row["establishment_id"]):
        raise NotFound("no such application entity")
    return row


def _is_session(unit: Unit, session: str) -> bool:
    return bool(session and unit.execute(QUERIES["session"], {"credential_id": session}).fetchone())


def _is_demonstration(unit: Unit) -> bool:
    row = unit.execute(QUERIES["is_demonstration"]).fetchone()
    return bool(row and row["demonstration"])


def _inserted(unit: Unit, query: str, values: Mapping[str, object], taken: str) -> DictRow:
    """Run an INSERT or UPDATE; its row, if it returns one. Raises ``Conflict(taken)`` when a unique name is taken."""
    try:
        cursor = unit.execute(QUERIES[query], values)
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(taken) from error
    return (cursor.fetchone() if cursor.description else None) or {}


def _add_actor(
    unit: Unit, kind: ActorKind, name: str, role: Role | None, place: EstablishmentRow,
    rights: list[str], reads_images: bool,
) -> int:  # fmt: skip
    values = {
        "kind": kind.value,
        "name": name,
        "role": role.value if role else None,
        "establishment_id": place.establishment_id,
        "rights": [str(right) for right in rights],
        "reads_images": reads_images,
    }
    row = unit.execute(QUERIES["add_actor"], values).fetchone()
    assert row is not None
    return int(row["actor_id"])


def _add_credential(
    unit: Unit, secret: str, kind: SecretKind, actor_id: int, ttl_s: float, only_study_uid: str | None
) -> None:
    values = {"secret_sha256": digest(secret), "kind": kind.value, "actor_id": actor_id}
    unit.execute(QUERIES["add_credential"], values | {"only_study_uid": only_study_uid, "ttl_s": ttl_s})


def _made(
    actor_id: int, kind: ActorKind, name: str, role: Role | None, place: EstablishmentRow, rights: Collection[Right]
) -> Actor:
    return Actor(actor_id, kind, name, role, place.establishment_id, place.code, place.authority_oid, frozenset(rights))
