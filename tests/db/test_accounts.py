"""Accounts on a real PostgreSQL: who is it, who may change that, and every change in the audit trail."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

import psycopg
import pytest

from accounts_world import PASSWORD, Clock, add, journal
from negatoscope.audit import Trail, verify_trail
from negatoscope.db import Database
from negatoscope.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
)
from negatoscope.model.actor import ActorKind, Right, Role
from negatoscope.sharing import COMMAND_LINE, Accounts, Logins
from negatoscope.sharing.accounts import KEEP_S, LONGEST_TTL_S

# Establishments and users ------------------------------------------------------------------------


def test_an_establishment_is_added_once(accounts: Accounts) -> None:
    assert [row.code for row in accounts.establishments()] == ["A", "B"]
    assert accounts.establishment("A").authority_oid == "2.25.1"
    accounts.add_establishment("C", "C", "2.25.3", "750000001", by=COMMAND_LINE)
    assert accounts.establishment("C").finess == "750000001"
    with pytest.raises(Conflict):
        accounts.add_establishment("A", "A", "2.25.1", by=COMMAND_LINE)
    for finess in ("75000000", "7500000011", "75000000!"):
        with pytest.raises(BadRequest):
            accounts.add_establishment("D", "D", "2.25.3", finess, by=COMMAND_LINE)
    for code in ("Z", "\0"):
        with pytest.raises(NotFound):
            accounts.establishment(code)


def test_a_user_has_the_rights_of_the_role(accounts: Accounts) -> None:
    actor = add(accounts, "dr")
    assert (actor.kind, actor.role, actor.establishment_code) == (ActorKind.USER, Role.RADIOLOGIST, "A")
    assert actor.rights == {Right.STORE, Right.QUERY, Right.RETRIEVE, Right.WORKLIST}
    with pytest.raises(Conflict):
        add(accounts, "dr", code="B")
    with pytest.raises(NotFound):
        add(accounts, "other", code="Z")
    with pytest.raises(BadRequest):
        accounts.add_user("weak", Role.CLINICIAN, "A", "short", by=COMMAND_LINE)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
def test_only_administrators_add_users_and_establishments(accounts: Accounts, role: Role) -> None:
    by = add(accounts, "somebody", role)
    with pytest.raises(Forbidden):
        accounts.add_user("more", Role.ADMIN, "A", by=by)
    with pytest.raises(Forbidden):
        accounts.add_establishment("C", "C", "2.25.3", by=by)
    with pytest.raises(Forbidden):
        accounts.set_disabled("somebody", True, by=by)


def test_an_administrator_sees_all_users_and_a_referent_those_of_the_establishment(accounts: Accounts) -> None:
    admin, referent = add(accounts, "admin", Role.ADMIN), add(accounts, "referent", Role.REFERENT)
    add(accounts, "dr-b", code="B")
    assert [user.name for user in accounts.users(by=admin)] == ["admin", "referent", "dr-b"]
    assert [user.name for user in accounts.users(by=referent)] == ["admin", "referent"]
    with pytest.raises(Forbidden):
        accounts.users(by=add(accounts, "dr"))


def test_a_user_speaks_a_language(accounts: Accounts) -> None:
    actor = add(accounts, "dr")
    assert accounts.language_of(actor) == "fr"
    accounts.set_language(actor, "en")
    assert accounts.language_of(actor) == "en"
    assert accounts.language_of(COMMAND_LINE) == ""
    with pytest.raises(BadRequest):
        accounts.set_language(actor, "xx")


def test_every_change_is_in_the_audit_trail_with_whoever_made_it(accounts: Accounts, database: Database) -> None:
    admin = add(accounts, "admin", Role.ADMIN)
    accounts.add_user("dr", Role.RADIOLOGIST, "A", by=admin)
    accounts.set_password("dr", PASSWORD, by=admin)
    accounts.set_disabled("dr", True, by=admin)
    accounts.set_disabled("dr", False, by=admin)
    entity = accounts.add_entity("CT1", "A", [Right.STORE], by=admin)
    accounts.change_entity(entity.actor_id, [Right.QUERY], by=admin)
    accounts.remove_entity(entity.actor_id, by=admin)
    accounts.create_token("dr", 60, by=COMMAND_LINE)
    assert journal(database)[3:] == [
        ("admin", "account-administration", "dr"),
        ("admin", "account-administration", "dr"),
        ("admin", "account-administration", "dr"),
        ("admin", "account-administration", "dr"),
        ("admin", "ae-administration", "CT1"),
        ("admin", "ae-administration", "CT1"),
        ("admin", "ae-administration", "CT1"),
        ("command line", "token-administration", "dr"),
    ]
    assert verify_trail(database).finding is None


def test_a_change_that_fails_leaves_neither_row_nor_event(accounts: Accounts, database: Database) -> None:
    before = journal(database)
    with pytest.raises(Conflict):
        accounts.add_establishment("A", "A", "2.25.1", by=COMMAND_LINE)
    assert journal(database) == before


# Demonstrations ----------------------------------------------------------------------------------


def test_demonstration_accounts_exist_in_a_demonstration_folder_only(
    accounts: Accounts, logins: Logins, database: Database
) -> None:
    assert not accounts.is_demonstration()
    with pytest.raises(PreconditionFailed):
        accounts.add_user("demo", Role.RADIOLOGIST, "A", by=COMMAND_LINE, demonstration=True)
    with pytest.raises(BadRequest):
        accounts.add_user("demo", Role.RADIOLOGIST, "A", by=COMMAND_LINE)
    assert accounts.demonstrations() == []
    accounts.mark_demonstration()
    accounts.mark_demonstration()
    assert accounts.is_demonstration()
    accounts.add_user("demo", Role.RADIOLOGIST, "A", by=COMMAND_LINE, demonstration=True)
    add(accounts, "dr")
    assert [user.name for user in accounts.demonstrations()] == ["demo"]
    assert logins.enter_demonstration("demo", "192.0.2.1").name == "demo"
    assert accounts.actor_of_secret(accounts.create_token("demo", 60, by=COMMAND_LINE)) is not None
    for login in ("dr", "nobody", "\0"):
        with pytest.raises(Forbidden):
            logins.enter_demonstration(login, "192.0.2.1")
    with database.unit(None) as unit:  # the same rows in a folder that is not a demonstration
        unit.execute("DELETE FROM installation WHERE key = 'demonstration'")
    with pytest.raises(PreconditionFailed):
        accounts.create_token("demo", 60, by=COMMAND_LINE)
    with pytest.raises(Forbidden):
        logins.enter_demonstration("demo", "192.0.2.1")
    assert accounts.demonstrations() == []


# Tokens and sessions -----------------------------------------------------------------------------


def test_a_token_is_its_user_and_only_its_digest_is_kept(accounts: Accounts, database: Database) -> None:
    actor = add(accounts, "dr")
    secret = accounts.create_token("dr", 60, by=COMMAND_LINE)
    found = accounts.actor_of_secret(secret)
    assert found is not None
    assert found == replace(actor, session=found.session)
    assert uuid.UUID(found.session)
    with database.unit(None) as unit:
        kept = str(unit.execute("SELECT * FROM credential").fetchall()) + str(journal(database))
    assert secret not in kept
    assert secret[4:] not in kept


def test_two_tokens_of_a_user_are_two_sessions(accounts: Accounts) -> None:
    add(accounts, "dr")
    first, second = (accounts.actor_of_secret(accounts.create_token("dr", 60, by=COMMAND_LINE)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.session != second.session


def test_a_token_bound_to_a_study_reads_it_and_does_nothing_else(accounts: Accounts) -> None:
    add(accounts, "dr")
    actor = accounts.actor_of_secret(accounts.create_token("dr", 60, "2.25.5", by=COMMAND_LINE))
    assert actor is not None
    assert actor.only_study_uid == "2.25.5"
    assert actor.rights == {Right.QUERY, Right.RETRIEVE}
    with pytest.raises(Forbidden):
        accounts.create_token("dr", 60, by=actor)
    with pytest.raises(BadRequest):
        accounts.create_token("dr", 60, "../x", by=COMMAND_LINE)


@pytest.mark.parametrize("secret", ["", "x", "ngt_" + "x" * 43, "ngs_" + "x" * 43, "\0", "é" * 47])
def test_an_unknown_secret_is_nobody(accounts: Accounts, secret: str) -> None:
    assert accounts.actor_of_secret(secret) is None
    assert accounts.known_actor(secret) is None


def test_a_token_expires_by_the_clock_of_the_database(accounts: Accounts, database: Database, clock: Clock) -> None:
    add(accounts, "dr")
    secret = accounts.create_token("dr", 0.2, by=COMMAND_LINE)
    assert accounts.actor_of_secret(secret) is not None
    clock.now += 0.2  # what is remembered ends with the token, not after KEEP_S
    time.sleep(0.25)
    assert accounts.actor_of_secret(secret) is None
    long = accounts.create_token("dr", 3600, by=COMMAND_LINE)
    with database.unit(None) as unit:
        unit.execute("UPDATE credential SET expires_at = now() - interval '1 microsecond' WHERE expires_at > now()")
    assert accounts.actor_of_secret(long) is None


@pytest.mark.parametrize(
    ("ttl_s", "taken"),
    [
        (-1, False),
        (0, False),
        (1, True),
        (LONGEST_TTL_S - 1, True),
        (LONGEST_TTL_S, True),
        (LONGEST_TTL_S + 1, False),
        (float("nan"), False),
        (float("inf"), False),
    ],
)
def test_a_token_lives_up_to_a_year(accounts: Accounts, ttl_s: float, taken: bool) -> None:
    add(accounts, "dr")
    if taken:
        assert accounts.actor_of_secret(accounts.create_token("dr", ttl_s, by=COMMAND_LINE))
    else:
        with pytest.raises(BadRequest):
            accounts.create_token("dr", ttl_s, by=COMMAND_LINE)


def test_an_administrator_does_not_become_a_reader_by_a_token(accounts: Accounts) -> None:
    admin, actor = add(accounts, "admin", Role.ADMIN), add(accounts, "dr")
    with pytest.raises(Forbidden):
        accounts.create_token("dr", 60, by=admin)
    with pytest.raises(NotFound):
        accounts.create_token("nobody", 60, by=COMMAND_LINE)
    signed_in = accounts.actor_of_secret(accounts.open_session(actor, 60))
    assert signed_in is not None
    token = accounts.create_token("dr", 60, by=signed_in)
    assert accounts.actor_of_secret(token) is not None


def test_a_token_does_not_beget_a_longer_one(accounts: Accounts) -> None:
    actor = add(accounts, "dr")
    by_token = accounts.actor_of_secret(accounts.create_token("dr", 60, by=COMMAND_LINE))
    assert by_token is not None
    for by in (by_token, actor):
        with pytest.raises(Forbidden):
            accounts.create_token("dr", 3600, by=by)


def test_what_is_known_needs_no_query_for_two_seconds(
    accounts: Accounts, database: Database, trail: Trail, clock: Clock
) -> None:
    actor = add(accounts, "dr")
    secret = accounts.open_session(actor, 60)
    assert accounts.known_actor(secret) is None
    accounts.actor_of_secret(secret)
    other = Accounts(database, trail, monotonic=clock)  # another process
    other.set_disabled("dr", True, by=COMMAND_LINE)
    assert accounts.actor_of_secret(secret) == accounts.known_actor(secret) is not None
    clock.now += KEEP_S
    assert accounts.actor_of_secret(secret) is None
    assert other.actor_of_secret(secret) is None


def test_disabling_ends_every_session_and_token_at_once_and_enabling_brings_none_back(accounts: Accounts) -> None:
    actor = add(accounts, "dr")
    secrets = [accounts.open_session(actor, 60), accounts.create_token("dr", 60, by=COMMAND_LINE)]
    assert all(accounts.actor_of_secret(secret) for secret in secrets)
    accounts.set_disabled("dr", True, by=COMMAND_LINE)
    assert not any(accounts.actor_of_secret(secret) for secret in secrets)
    with pytest.raises(NotFound):
        accounts.create_token("dr", 60, by=COMMAND_LINE)
    accounts.set_disabled("dr", False, by=COMMAND_LINE)
    assert not any(accounts.actor_of_secret(secret) for secret in secrets)


def test_a_closed_session_is_over_and_closing_it_twice_is_no_error(accounts: Accounts, database: Database) -> None:
    actor = add(accounts, "dr")
    secret = accounts.open_session(actor, 60)
    assert accounts.actor_of_secret(secret)
    for one in (secret, secret, "nonsense", "é"):
        accounts.close_session(one, actor, "192.0.2.1")
    assert accounts.actor_of_secret(secret) is None
    assert [what for _, what, _ in journal(database)].count("logout") == 1


def test_a_rotated_session_has_another_secret_and_the_same_end(accounts: Accounts, database: Database) -> None:
    actor = add(accounts, "dr")
    secret, token = accounts.open_session(actor, 60), accounts.create_token("dr", 60, by=COMMAND_LINE)
    fresh = accounts.rotate_session(secret)
    assert fresh is not None
    assert accounts.actor_of_secret(secret) is None
    assert accounts.actor_of_secret(fresh) is not None
    assert accounts.rotate_session(secret) is None
    assert accounts.rotate_session(token) is None
    assert accounts.actor_of_secret(token) is not None
    with database.unit(None) as unit:
        rows = unit.execute("SELECT DISTINCT expires_at FROM credential WHERE kind = 'session'").fetchall()
    assert len(rows) == 1


def test_a_user_lists_and_revokes_their_own_tokens_and_nobody_elses(accounts: Accounts) -> None:
    actor, other = add(accounts, "dr"), add(accounts, "other")
    secret = accounts.create_token("dr", 60, "2.25.5", by=COMMAND_LINE)
    assert accounts.actor_of_secret(secret)
    (row,) = accounts.credentials("dr", by=actor)
    assert (row.kind, row.only_study_uid) == ("token", "2.25.5")
    with pytest.raises(Forbidden):
        accounts.credentials("dr", by=other)
    with pytest.raises(Forbidden):
        accounts.revoke("dr", row.credential_id, by=other)
    with pytest.raises(NotFound):
        accounts.revoke("other", row.credential_id, by=other)
    accounts.revoke("dr", row.credential_id, by=actor)
    assert accounts.actor_of_secret(secret) is None
    assert accounts.credentials("dr", by=actor) == []
    with pytest.raises(NotFound):
        accounts.revoke("dr", row.credential_id, by=COMMAND_LINE)


def test_old_credentials_are_deleted_after_a_month(accounts: Accounts, database: Database) -> None:
    actor = add(accounts, "dr")
    for _ in range(3):
        accounts.open_session(actor, 60)
    with database.unit(None) as unit:
        unit.execute(
            "UPDATE credential SET expires_at = now() - interval '29 days'"
            " WHERE secret_sha256 = (SELECT min(secret_sha256) FROM credential)"
        )
        unit.execute(
            "UPDATE credential SET expires_at = now() - interval '31 days'"
            " WHERE secret_sha256 = (SELECT max(secret_sha256) FROM credential)"
        )
    accounts.forget_old()
    with database.unit(None) as unit:
        assert len(unit.execute("SELECT 1 FROM credential").fetchall()) == 2


# Application entities ----------------------------------------------------------------------------


def test_an_application_entity_is_known_by_title_and_address(accounts: Accounts) -> None:
    anywhere = accounts.add_entity("CT1", "A", [Right.STORE], by=COMMAND_LINE)
    here = accounts.add_entity("CT1", "B", [Right.QUERY], "::ffff:192.0.2.1", 11112, by=COMMAND_LINE)
    named = accounts.add_entity("CT1", "B", [Right.STORE], "ct1.example", by=COMMAND_LINE)

    def who(title: str, address: str) -> int | None:
        found = accounts.actor_of_title(title, address, "NEGATOSCOPE")
        return found.actor_id if found else None

    assert who("CT1", "192.0.2.9") == anywhere.actor_id
    assert who(" CT1 ", "192.0.2.1") == here.actor_id
    assert who("CT1", "192.0.2.77") == named.actor_id
    for title in ("CT2", "ct1", "", "CT1\0", "CTé"):
        assert who(title, "192.0.2.1") is None
    with pytest.raises(Conflict):
        accounts.add_entity("CT1", "B", [Right.STORE], by=COMMAND_LINE)
    with pytest.raises(Conflict):
        accounts.add_entity("CT1", "A", [Right.STORE], "192.0.2.1", by=COMMAND_LINE)


def test_a_peer_at_the_wrong_address_is_nobody(accounts: Accounts) -> None:
    accounts.add_entity("CT1", "A", [Right.STORE], "192.0.2.1", by=COMMAND_LINE)
    assert accounts.actor_of_title("CT1", "192.0.2.1", "X") is not None
    assert accounts.actor_of_title("CT1", "192.0.2.2", "X") is None


def test_each_association_is_a_session_and_leaves_a_trace_of_when(accounts: Accounts) -> None:
    entity = accounts.add_entity("CT1", "A", [Right.STORE], by=COMMAND_LINE)
    assert accounts.entities(by=COMMAND_LINE)[0].last_seen_at is None
    first, second = accounts.actor_of_title("CT1", "192.0.2.1"), accounts.actor_of_title("CT1", "192.0.2.1")
    assert first is not None
    assert second is not None
    assert first.session != second.session
    assert replace(first, session="") == entity
    assert accounts.entities(by=COMMAND_LINE)[0].last_seen_at is not None


def test_a_referent_administers_the_entities_of_the_establishment_and_sees_no_other(accounts: Accounts) -> None:
    referent = add(accounts, "referent", Role.REFERENT)
    mine = accounts.add_entity("CT1", "A", [Right.STORE], by=referent)
    foreign = accounts.add_entity("CT2", "B", [Right.STORE], by=COMMAND_LINE)
    with pytest.raises(Forbidden):
        accounts.add_entity("CT3", "B", [Right.STORE], by=referent)
    for unseen in (foreign.actor_id, 999_999):
        with pytest.raises(NotFound):
            accounts.change_entity(unseen, [Right.QUERY], by=referent)
        with pytest.raises(NotFound):
            accounts.remove_entity(unseen, by=referent)
    assert [row.title for row in accounts.entities(by=referent)] == ["CT1"]
    accounts.change_entity(mine.actor_id, [Right.QUERY, Right.RETRIEVE], "192.0.2.1", 104, by=referent)
    (row,) = accounts.entities(by=referent)
    assert (row.host, row.port, row.rights) == ("192.0.2.1", 104, frozenset({Right.QUERY, Right.RETRIEVE}))
    accounts.add_entity("CT1", "A", [Right.STORE], "192.0.2.2", by=referent)
    with pytest.raises(Conflict):
        accounts.change_entity(mine.actor_id, [Right.QUERY], "192.0.2.2", by=referent)
    accounts.remove_entity(mine.actor_id, by=referent)
    assert accounts.actor_of_title("CT1", "192.0.2.1") is None
    with pytest.raises(Forbidden):
        accounts.entities(by=add(accounts, "dr"))


def test_images_move_to_an_entity_of_the_same_establishment_that_has_an_address(accounts: Accounts) -> None:
    actor = add(accounts, "dr")
    accounts.add_entity("WS1", "A", [Right.STORE], "192.0.2.1", 104, by=COMMAND_LINE)
    accounts.add_entity("WS2", "B", [Right.STORE], "192.0.2.2", 104, by=COMMAND_LINE)
    accounts.add_entity("WS3", "A", [Right.STORE], by=COMMAND_LINE)
    accounts.add_entity("WS4", "A", [Right.STORE], "192.0.2.4", by=COMMAND_LINE)
    found = accounts.destination_of("WS1 ", actor)
    assert (found.title, found.host, found.port) == ("WS1", "192.0.2.1", 104)
    for title in ("WS2", "WS3", "WS4", "WS5", "\0"):
        with pytest.raises(NotFound):
            accounts.destination_of(title, actor)


def test_what_is_imported_is_stored_by_one_hand_an_establishment(accounts: Accounts) -> None:
    first, again, other = (accounts.system_actor(code) for code in ("A", "A", "B"))
    assert first == again
    assert (first.kind, first.rights, first.establishment_code) == (ActorKind.SYSTEM, frozenset({Right.STORE}), "A")
    assert other.actor_id != first.actor_id
    with pytest.raises(NotFound):
        accounts.system_actor("Z")


def test_the_database_itself_refuses_an_ambiguous_title(accounts: Accounts, database: Database) -> None:
    first = accounts.add_entity("CT1", "A", [Right.STORE], by=COMMAND_LINE)
    second = accounts.add_entity("CT2", "B", [Right.STORE], by=COMMAND_LINE)
    with pytest.raises(psycopg.errors.UniqueViolation), database.unit(None) as unit:
        unit.execute("UPDATE application_entity SET title = 'CT1' WHERE actor_id = %s", (second.actor_id,))
    assert first.actor_id != second.actor_id
