"""The pure parts of sharing: roles, policy, addresses, secrets, passwords."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.errors import BadRequest, Forbidden, TooManyRequests
from negatoscope.model.actor import Actor, ActorKind, Purpose, Right, Role
from negatoscope.sharing import COMMAND_LINE, ROLES, HostNames, Passwords, entities, passwords, policy
from negatoscope.sharing import addresses as addresses_module
from negatoscope.sharing import credentials as credentials_module
from negatoscope.sharing.addresses import counted, normalised
from negatoscope.sharing.credentials import KnownSecrets, SecretKind, digest, kind_of, new_secret
from negatoscope.sharing.people import check_display_name, check_establishment, check_language, check_login
from negatoscope.sharing.roles import AE_RIGHTS, STUDY_TOKEN_RIGHTS


def actor(role: Role | None, kind: ActorKind = ActorKind.USER, establishment_id: int = 1) -> Actor:
    rights = ROLES[role].rights if role else frozenset({Right.STORE})
    return Actor(5, kind, "x", role, establishment_id, "A", "2.25.1", rights)


# Roles and policy --------------------------------------------------------------------------------

S, Q, R, W, ADMINISTER, QUARANTINE, AUDIT = (
    Right.STORE,
    Right.QUERY,
    Right.RETRIEVE,
    Right.WORKLIST,
    Right.ADMINISTER,
    Right.QUARANTINE,
    Right.AUDIT,
)


@pytest.mark.parametrize(
    ("role", "rights", "reads"),
    [
        (Role.ADMIN, {ADMINISTER, QUARANTINE, AUDIT}, False),
        (Role.REFERENT, {ADMINISTER, QUARANTINE, Q, R, W}, True),
        (Role.RADIOGRAPHER, {S, Q, R, W}, True),
        (Role.RADIOLOGIST, {S, Q, R, W}, True),
        (Role.CLINICIAN, {Q, R}, True),
        (Role.SECRETARY, {S, Q, W}, True),
        (Role.DPO, {AUDIT}, False),
    ],
)
def test_a_role_has_these_rights_and_no_other(role: Role, rights: set[Right], reads: bool) -> None:
    assert ROLES[role].rights == frozenset(rights)
    assert ROLES[role].reads_images is reads


def test_every_role_has_its_row() -> None:
    assert set(ROLES) == set(Role)


def test_no_application_entity_and_no_study_token_administers() -> None:
    powerful = {ADMINISTER, QUARANTINE, AUDIT}
    assert not powerful & AE_RIGHTS
    assert not powerful & STUDY_TOKEN_RIGHTS
    assert Right.STORE not in STUDY_TOKEN_RIGHTS


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("right", Right)
def test_a_scope_is_given_for_the_rights_of_the_role_and_refused_for_all_others(role: Role, right: Right) -> None:
    if right in ROLES[role].rights:
        scope = policy.scope(actor(role), right)
        assert scope.parameters() == {"actor_id": 5, "purpose": "normal", "only_study_uid": None}
    else:
        with pytest.raises(Forbidden):
            policy.scope(actor(role), right)


@pytest.mark.parametrize("purpose", [p for p in Purpose if p is not Purpose.NORMAL])
def test_purposes_that_are_not_open_yet_are_refused(purpose: Purpose) -> None:
    with pytest.raises(Forbidden):
        policy.scope(actor(Role.RADIOLOGIST), Right.QUERY, purpose)


def test_an_administrator_has_the_platform_and_a_referent_an_establishment() -> None:
    assert policy.administered(actor(Role.ADMIN)) is None
    assert policy.administered(COMMAND_LINE) is None
    assert policy.administered(actor(Role.REFERENT, establishment_id=3)) == 3
    policy.may_administer(actor(Role.ADMIN), 3)
    policy.may_administer(actor(Role.REFERENT, establishment_id=3), 3)
    with pytest.raises(Forbidden):
        policy.may_administer(actor(Role.REFERENT, establishment_id=3), 4)
    with pytest.raises(Forbidden):
        policy.administered(actor(Role.RADIOLOGIST))


def test_an_administrator_lists_the_quarantine_and_takes_nothing_out_of_it() -> None:
    assert policy.quarantine_bounds(actor(Role.ADMIN), export=False) is None
    with pytest.raises(Forbidden):
        policy.quarantine_bounds(actor(Role.ADMIN), export=True)
    assert policy.quarantine_bounds(actor(Role.REFERENT), export=True) == 1
    assert policy.quarantine_bounds(COMMAND_LINE, export=True) is None
    with pytest.raises(Forbidden):
        policy.quarantine_bounds(actor(Role.RADIOLOGIST), export=False)


# Addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("CT1.Example.", "ct1.example"),
        (" ct1 ", "ct1"),
    ],
)
def test_an_address_has_one_spelling(given: str, expected: str) -> None:
    assert normalised(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_attempts_are_counted_by_address_or_ipv6_network(given: str, expected: str) -> None:
    assert counted(given) == expected


class Names:
    """A resolver that a test changes, and a clock."""

    def __init__(self) -> None:
        self.now, self.asked = 0.0, 0
        self.answer = frozenset({"::ffff:192.0.2.1"})

    def clock(self) -> float:
        return self.now

    def ask(self, name: str) -> frozenset[str]:
        self.asked += 1
        return self.answer


def test_a_host_name_is_asked_once_a_minute() -> None:
    names = Names()
    resolve = HostNames(names.clock, 60.0, names.ask)
    assert resolve("ct1") == resolve("ct1") == {"192.0.2.1"}
    names.answer = frozenset()
    names.now = 59.9
    assert resolve("ct1") == {"192.0.2.1"}
    names.now = 60.0
    assert resolve("ct1") == frozenset()
    assert names.asked == 2


def test_the_memory_of_host_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses_module, "REMEMBERED", 2)
    names = Names()
    resolve = HostNames(names.clock, 60.0, names.ask)
    for name in ("a", "b", "b", "a"):
        resolve(name)
    assert names.asked == 2
    resolve("c")
    resolve("a")
    assert names.asked == 4


def test_the_system_resolves_names_and_says_nothing_of_those_it_does_not_know() -> None:
    resolve = HostNames(lambda: 0.0)
    assert resolve("localhost") & {"127.0.0.1", "::1"}
    assert resolve("no-such-host.invalid") == frozenset()
    assert resolve("x" * 300) == frozenset()


def row(host: str | None, disabled: bool = False) -> dict[str, object]:
    return {"host": host, "disabled": disabled}


@pytest.mark.parametrize(
    ("rows", "address", "expected"),
    [
        ([row(None)], "192.0.2.9", 0),
        ([row("192.0.2.1")], "192.0.2.1", 0),
        ([row("192.0.2.1")], "::ffff:192.0.2.1", 0),
        ([row("192.0.2.1")], "192.0.2.9", None),
        ([row("2001:db8::1")], "2001:DB8:0::1", 0),
        ([row("ct1.example")], "192.0.2.77", 0),
        ([row("ct1.example")], "192.0.2.78", None),
        ([row(None), row("192.0.2.1")], "192.0.2.1", 1),
        ([row("192.0.2.1"), row(None)], "192.0.2.1", 0),
        ([row(None), row("192.0.2.1")], "192.0.2.9", 0),
        ([row(None), row("192.0.2.1", disabled=True)], "192.0.2.1", None),
        ([row(None, disabled=True)], "192.0.2.1", None),
        ([], "192.0.2.1", None),
    ],
)
def test_the_row_of_the_peers_host_wins_over_the_row_for_any_address(
    rows: list[dict[str, object]], address: str, expected: int | None
) -> None:
    found = entities.matching(rows, address, lambda name: frozenset({"192.0.2.77"}))
    assert found is (None if expected is None else rows[expected])


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["A", "A" * 15, "A" * 16, "CT 1", " CT1 "])
def test_an_ae_title_of_one_to_sixteen_characters_is_taken(title: str) -> None:
    assert entities.check_title(title) == title.strip()


@pytest.mark.parametrize("title", ["", "   ", "A" * 17, "A\\B", "A\nB", "É", "A\0"])
def test_other_ae_titles_are_refused(title: str) -> None:
    with pytest.raises(BadRequest):
        entities.check_title(title)


@pytest.mark.parametrize("port", [1, 2, 65_534, 65_535, None])
def test_a_port_in_its_range_is_taken(port: int | None) -> None:
    assert entities.check_host("::ffff:192.0.2.1", port) == "192.0.2.1"
    assert entities.check_host("ct1.example", port) == "ct1.example"


@pytest.mark.parametrize(
    ("host", "port"),
    [("h", 0), ("h", 65_536), (None, 104), ("", 1), ("a b", 1), ("-h", None), ("h" * 254, None), ("http://h", None)],
)
def test_other_hosts_and_ports_are_refused(host: str | None, port: int | None) -> None:
    with pytest.raises(BadRequest):
        entities.check_host(host, port)


def test_application_entities_have_at_least_one_right_and_only_theirs() -> None:
    assert entities.check_rights([Right.STORE, Right.QUERY, Right.STORE]) == ["query", "store"]
    for rights in ([], [Right.ADMINISTER], [Right.STORE, Right.AUDIT]):
        with pytest.raises(BadRequest):
            entities.check_rights(rights)


@pytest.mark.parametrize(("length", "taken"), [(0, False), (1, True), (2, True), (63, True), (64, True), (65, False)])
def test_a_login_has_one_to_sixty_four_characters(length: int, taken: bool) -> None:
    if taken:
        check_login("a" * length)
    else:
        with pytest.raises(BadRequest):
            check_login("a" * length)


@pytest.mark.parametrize("login", ["a b", "é", ".a", "a.", "a\0", "a\n", "<a>"])
def test_other_logins_are_refused(login: str) -> None:
    with pytest.raises(BadRequest):
        check_login(login)


@pytest.mark.parametrize(("length", "taken"), [(0, False), (1, True), (199, True), (200, True), (201, False)])
def test_a_display_name_has_up_to_two_hundred_characters(length: int, taken: bool) -> None:
    if taken:
        check_display_name("é" * length)
    else:
        with pytest.raises(BadRequest):
            check_display_name("é" * length)


@pytest.mark.parametrize(
    ("code", "name", "oid"),
    [("", "N", "2.25.1"), ("A" * 33, "N", "2.25.1"), ("A B", "N", "2.25.1"), ("A", "", "2.25.1"), ("A", "N", "2.025")],
)
def test_an_establishment_needs_a_code_a_name_and_an_oid(code: str, name: str, oid: str) -> None:
    check_establishment("A" * 32, "N", "2.25.1")
    with pytest.raises(BadRequest):
        check_establishment(code, name, oid)


def test_languages_are_those_we_speak() -> None:
    check_language("fr")
    with pytest.raises(BadRequest):
        check_language("xx")


# Secrets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SecretKind)
def test_a_secret_has_256_random_bits_and_says_what_it_is(kind: SecretKind) -> None:
    secret = new_secret(kind)
    assert kind_of(secret) is kind
    assert len(secret) == 4 + 43
    assert len({new_secret(kind) for _ in range(100)}) == 100
    assert len(digest(secret)) == 32


@given(st.text(max_size=60))
def test_what_is_no_secret_is_known_by_its_form(text: str) -> None:
    assert kind_of(text) is None
    assert kind_of("ngt_" + "x" * 42) is kind_of("ngt_" + "x" * 44) is kind_of("ngt_" + "x" * 43 + "\n") is None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_known_secret_is_forgotten_after_two_seconds_or_when_it_expires() -> None:
    clock = Clock()
    known = KnownSecrets(clock, 2.0)
    known.put(b"long", COMMAND_LINE, 100.0, known.generation)
    known.put(b"short", COMMAND_LINE, 0.5, known.generation)
    assert known.get(b"long") is known.get(b"short") is COMMAND_LINE
    clock.now = 0.5
    assert known.get(b"short") is None
    clock.now = 1.99
    assert known.get(b"long") is COMMAND_LINE
    clock.now = 2.0
    assert known.get(b"long") is None


def test_a_revocation_also_keeps_out_what_an_earlier_query_brings_back() -> None:
    known = KnownSecrets(Clock(), 2.0)
    before = known.generation
    known.put(b"a", COMMAND_LINE, 10.0, before)
    known.forget()
    known.put(b"b", COMMAND_LINE, 10.0, before)
    assert known.get(b"a") is known.get(b"b") is None
    known.put(b"b", COMMAND_LINE, 10.0, known.generation)
    assert known.get(b"b") is COMMAND_LINE


def test_the_memory_of_secrets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials_module, "REMEMBERED", 2)
    known = KnownSecrets(Clock(), 2.0)
    for name in (b"1", b"2"):
        known.put(name, COMMAND_LINE, 10.0, known.generation)
    assert known.get(b"1") is COMMAND_LINE
    known.put(b"3", COMMAND_LINE, 10.0, known.generation)
    assert known.get(b"1") is None
    assert known.get(b"3") is COMMAND_LINE


# Passwords ---------------------------------------------------------------------------------------

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.mark.parametrize(
    ("length", "taken"), [(11, False), (12, True), (13, True), (255, True), (256, True), (257, False)]
)
def test_a_password_has_twelve_to_256_characters(length: int, taken: bool) -> None:
    password = ("abcdefgh" * 40)[:length]
    if taken:
        passwords.check_policy("dr", password)
    else:
        with pytest.raises(BadRequest):
            passwords.check_policy("dr", password)


@pytest.mark.parametrize("password", ["radiologist-a", "Radiologist-A ", "aaaaaaaaaaaaaa", "abcabcabcabcabc"])
def test_a_password_is_not_the_login_nor_three_letters(password: str) -> None:
    with pytest.raises(BadRequest):
        passwords.check_policy("radiologist-a", password)


def test_a_password_is_kept_as_argon2id_and_verified() -> None:
    kept = Passwords().hash("correct horse battery")
    assert kept.startswith("$argon2id$")
    assert Passwords().verify(kept, "correct horse battery")
    assert not Passwords().verify(kept, "correct horse batterz")


@pytest.mark.parametrize("password", ["", "x", "\0", "\ud800", "é" * 300])
def test_no_password_is_right_for_nobody_or_for_a_broken_hash(password: str) -> None:
    checker = Passwords(QUICK)
    checker.prepare()
    assert not checker.verify(None, password)
    assert not checker.verify("not a hash", password)


def test_a_password_over_the_limit_never_fits_even_if_its_start_does() -> None:
    checker = Passwords(QUICK)
    kept = checker.hash("x" * 256)
    assert checker.verify(kept, "x" * 256)
    assert not checker.verify(kept, "x" * 257)


def test_hashes_with_other_parameters_are_outdated() -> None:
    assert Passwords().is_outdated(QUICK.hash("x"))
    assert not Passwords(QUICK).is_outdated(QUICK.hash("x"))


def test_only_so_many_passwords_are_hashed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAIT_S", 0.05)
    started, gate = threading.Semaphore(0), threading.Event()

    class Slow(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            started.release()
            gate.wait(5)
            return "hashed"

    checker = Passwords(Slow())
    threads = [threading.Thread(target=checker.hash, args=("x",)) for _ in range(passwords.AT_ONCE)]
    for thread in threads:
        thread.start()
        started.acquire()
    with pytest.raises(TooManyRequests):
        checker.hash("x")
    gate.set()
    for thread in threads:
        thread.join()
    assert checker.hash("x") == "hashed"


def test_the_command_line_reads_no_study() -> None:
    assert COMMAND_LINE.actor_id == 0
    assert replace(COMMAND_LINE).rights == {ADMINISTER, QUARANTINE, R, AUDIT}
