"""Certificates of application entities: who is believed, and how a destination is reached."""

from __future__ import annotations

import pytest

from accounts_world import add
from negatoscope.errors import BadRequest, NotFound
from negatoscope.model.actor import Right, Role
from negatoscope.sharing import COMMAND_LINE, Accounts


def test_a_title_with_a_certificate_is_believed_from_that_certificate_alone(accounts: Accounts) -> None:
    one, two = "ab" * 32, "cd" * 32
    bound = accounts.add_entity("CT1", "A", [Right.STORE], certificates=[one], by=COMMAND_LINE)
    accounts.add_entity("CT2", "A", [Right.STORE], by=COMMAND_LINE)

    def who(title: str, certificate: str | None) -> bool:
        return accounts.actor_of_title(title, "192.0.2.1", "X", certificate) is not None

    assert who("CT1", one)
    assert not who("CT1", two)
    assert not who("CT1", None)  # in plain text
    assert who("CT2", None)
    assert not who("CT2", one)  # a certificate that is good, and nobody's
    accounts.secure_entity(bound.actor_id, tls=False, bind=[":".join(["CD"] * 32)], by=COMMAND_LINE)
    assert who("CT1", one)
    assert who("CT1", two)  # both are good while it is being renewed
    accounts.secure_entity(bound.actor_id, tls=False, unbind=[one], by=COMMAND_LINE)
    assert not who("CT1", one)
    assert accounts.entities(by=COMMAND_LINE)[0].certificates == [two]
    accounts.remove_entity(bound.actor_id, by=COMMAND_LINE)
    assert not who("CT1", two)


def test_how_a_destination_is_reached_comes_with_it(accounts: Accounts) -> None:
    actor, one = add(accounts, "dr"), "ab" * 32
    made = accounts.add_entity("WS1", "A", [Right.STORE], "192.0.2.1", 104, by=COMMAND_LINE)
    assert (accounts.destination_of("WS1", actor).tls, accounts.destination_of("WS1", actor).certificates) == (
        False, frozenset(),
    )  # fmt: skip
    accounts.secure_entity(made.actor_id, tls=True, bind=[one], by=COMMAND_LINE)
    found = accounts.destination_of("WS1", actor)
    assert (found.tls, found.certificates) == (True, frozenset({one}))


def test_a_binding_is_well_formed_and_ones_own_to_make(accounts: Accounts) -> None:
    referent = add(accounts, "referent", Role.REFERENT)
    mine = accounts.add_entity("CT1", "A", [Right.STORE], by=referent)
    foreign = accounts.add_entity("CT2", "B", [Right.STORE], by=COMMAND_LINE)
    for wrong in ("", "ab" * 31, "ab" * 33, "zz" * 32):
        with pytest.raises(BadRequest):
            accounts.secure_entity(mine.actor_id, tls=False, bind=[wrong], by=referent)
        with pytest.raises(BadRequest):
            accounts.add_entity("CT3", "A", [Right.STORE], certificates=[wrong], by=referent)
    with pytest.raises(BadRequest):
        accounts.secure_entity(mine.actor_id, tls=True, by=referent)  # it has no port
    with pytest.raises(NotFound):
        accounts.secure_entity(mine.actor_id, tls=False, unbind=["ab" * 32], by=referent)
    with pytest.raises(NotFound):
        accounts.secure_entity(foreign.actor_id, tls=False, bind=["ab" * 32], by=referent)


@pytest.mark.parametrize("count", [15, 16, 17])
def test_an_entity_has_sixteen_certificates_at_most(accounts: Accounts, count: int) -> None:
    made = accounts.add_entity("CT1", "A", [Right.STORE], by=COMMAND_LINE)
    several = [f"{number:064x}" for number in range(count)]
    accounts.secure_entity(made.actor_id, tls=False, bind=several[:10], by=COMMAND_LINE)
    if count <= 16:
        accounts.secure_entity(made.actor_id, tls=False, bind=several[10:], by=COMMAND_LINE)
        return
    with pytest.raises(BadRequest):
        accounts.secure_entity(made.actor_id, tls=False, bind=several[10:], by=COMMAND_LINE)
