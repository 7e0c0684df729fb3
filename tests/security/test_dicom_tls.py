"""H10 at the DICOM door: what BCP 195 takes is taken and nothing else, a title needs its certificate."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import ssl
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dimse_fakes import CT, EXPLICIT, IMPLICIT, TITLE, VERIFICATION, MemoryReceiver
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.pki import Issued
from negatoscope.servers.dicom_client import AssociationRefused, PeerUnavailable, Proposal, associate
from negatoscope.servers.dicom_tls import (
    CHUNK,
    CIPHERS,
    DONT_WAIT,
    LOOK_S,
    STEP,
    SecureConnection,
    Secured,
    TlsFiles,
    TlsKeys,
    TlsRefused,
    TlsUnusable,
)
from negatoscope.wire.dul.items import PresentationContext
from negatoscope.wire.dul.pdu import AssociateRequest, encode_associate_request
from tls_world import SecureServer, secure_server, world

ECHO = ((VERIFICATION, (IMPLICIT,)), (CT, (EXPLICIT,)))
REQUEST = encode_associate_request(AssociateRequest(TITLE, "CT_A", (PresentationContext(1, CT, (EXPLICIT,)),)))


@pytest.fixture(scope="module")
def server() -> Iterator[SecureServer]:
    with secure_server() as one:
        yield one


def proposal(title: str, own: Issued) -> Proposal:
    return Proposal(TITLE, title, ECHO, secured=world().secured(own, world().server))


def echo(address: tuple[str, int], title: str, own: Issued) -> int:
    with associate(address, proposal(title, own)) as sender:
        return sender.echo()


# ---- who is let in --------------------------------------------------------------------------


@pytest.mark.parametrize(("title", "name"), [("CT_A", "ct_a"), ("CT_B", "ct_b"), ("RSA", "rsa")])
def test_a_title_with_its_certificate_is_let_in(server: SecureServer, title: str, name: str) -> None:
    assert echo(server.address, title, getattr(world(), name)) == 0


@pytest.mark.parametrize(("title", "name"), [("CT_A", "ct_b"), ("CT_B", "ct_a"), ("CT_C", "ct_a")])
def test_a_good_certificate_opens_no_title_but_its_own(server: SecureServer, title: str, name: str) -> None:
    with pytest.raises(AssociationRefused) as refused:
        echo(server.address, title, getattr(world(), name))
    assert refused.value.reject.reason == 3  # calling AE title not recognized


@pytest.mark.parametrize(
    ("name", "why"),
    [("expired", "expired"), ("revoked", "revoked"), ("foreign", "unknown ca"), ("alone", "unknown ca")],
)
def test_a_certificate_that_is_not_good_is_refused_and_the_peer_told_why(
    server: SecureServer, name: str, why: str
) -> None:
    before = server.counts["dicom_tls_refused_total"]
    with pytest.raises(PeerUnavailable, match=why):
        echo(server.address, "CT_A", getattr(world(), name))
    assert server.counts["dicom_tls_refused_total"] == before + 1


def context(own: Issued | None, *, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Of a peer that is not ours."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(world().authority.certificate)
    made.minimum_version, made.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, most
    if own is not None:
        made.load_cert_chain(own.certificate, own.key)
    return made


def wrapped(server: SecureServer, how: ssl.SSLContext) -> ssl.SSLSocket:
    return how.wrap_socket(socket.create_connection(server.address, timeout=10), server_hostname="localhost")


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_a_certificate_nothing_is_heard(server: SecureServer, most: ssl.TLSVersion) -> None:
    refusal = pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|handshake.failure")
    with refusal, wrapped(server, context(None, most=most)) as connection:
        connection.sendall(REQUEST)
        connection.recv(1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_before_1_2_are_refused(server: SecureServer, version: ssl.TLSVersion) -> None:
    old = context(world().ct_a, most=version)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        wrapped(server, old)


def all_ciphers() -> list[str]:
    """What this machine's openssl can do in TLS 1.2, the worst included."""
    listed = subprocess.run(
        ["openssl", "ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.strip().split(":") if not name.startswith(("TLS_", "PSK", "SRP"))]


@pytest.mark.parametrize("own", ["ct_a", "rsa"])
def test_of_all_cipher_suites_of_tls_1_2_those_of_bcp_195_alone_are_taken(own: str) -> None:
    """Nor do they depend on the key of the server: both kinds are tried."""
    taken = set()
    with secure_server(files=world().files(getattr(world(), own))) as server:
        for name in all_ciphers():
            one = context(getattr(world(), own), most=ssl.TLSVersion.TLSv1_2)
            one.set_ciphers(f"{name}:@SECLEVEL=0")
            with contextlib.suppress(ssl.SSLError), wrapped(server, one) as connection:
                taken.add((connection.cipher() or ("",))[0])
    kind = "RSA" if own == "rsa" else "ECDSA"
    assert taken == {name for name in CIPHERS if f"-{kind}-" in name}
    assert len(all_ciphers()) > 20


def test_what_is_agreed_upon_is_1_3_where_the_peer_can(server: SecureServer) -> None:
    with wrapped(server, context(world().ct_a)) as connection:
        assert connection.version() == "TLSv1.3"
        assert not connection.session_reused


def test_renegotiation_is_refused() -> None:
    own = world().ct_a
    with secure_server(replace(DEFAULT_LIMITS, artim_s=1.0)) as server:
        command = [
            "openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2", "-msg",
            "-cert", str(own.certificate), "-key", str(own.key), "-CAfile", str(world().authority.certificate),
        ]  # fmt: skip
        done = subprocess.run(command, input="R\n", capture_output=True, text=True, timeout=20, check=False)
    assert "RENEGOTIATING" in done.stdout + done.stderr
    assert "no_renegotiation" in done.stdout
    assert done.stdout.count(", ServerHello\n") == 1


@pytest.mark.parametrize("data", [REQUEST, b"GET / HTTP/1.1\r\n\r\n", bytes(200), b"\x16\x03\x01\xff\xff" + bytes(99)])
def test_what_is_no_tls_gets_an_alert_or_nothing(server: SecureServer, data: bytes) -> None:
    """A request in plain text above all: no PDU is answered."""
    before = server.counts["dicom_associations_total"]
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(100):
                answer += piece
    assert answer[:1] in (b"", b"\x15")  # alert, RFC 8446 5.1
    assert len(answer) <= 7
    assert server.counts["dicom_associations_total"] == before


def test_there_is_no_plain_port_beside_it(server: SecureServer) -> None:
    with pytest.raises(AssertionError, match="not started"):
        _ = server.server.address


# ---- whom we call ---------------------------------------------------------------------------


def test_a_peer_with_another_certificate_than_the_bound_one_is_not_called(server: SecureServer) -> None:
    secured = world().secured(world().ct_a, world().ct_b)
    with pytest.raises(PeerUnavailable, match="not one that is bound"):
        associate(server.address, Proposal(TITLE, "CT_A", ECHO, secured=secured))


def test_without_a_bound_certificate_the_host_must_be_in_it() -> None:
    here = world()
    anyone = Secured(TlsKeys(here.files(here.ct_a)))
    with secure_server() as good, associate(good.address, Proposal(TITLE, "CT_A", ECHO, secured=anyone)) as sender:
        assert sender.echo() == 0
    with secure_server(files=here.files(here.elsewhere)) as other, pytest.raises(PeerUnavailable, match=r"(?i)address"):
        associate(other.address, Proposal(TITLE, "CT_A", ECHO, secured=anyone))


@pytest.mark.parametrize("name", ["expired", "revoked", "foreign", "alone"])
def test_a_called_peer_whose_certificate_is_not_good_hears_nothing(name: str) -> None:
    here, own = world(), getattr(world(), name)
    with secure_server(files=replace(here.files(own), revocations=None)) as bad:
        with pytest.raises(PeerUnavailable, match=r"expired|revoked|certificate"):
            associate(bad.address, Proposal(TITLE, "CT_A", ECHO, secured=here.secured(here.ct_a, own)))
        assert bad.counts["dicom_tls_associations_total"] == 0


def test_a_called_peer_that_speaks_plain_text_or_nothing_hears_no_request() -> None:
    quick = replace(DEFAULT_LIMITS, artim_s=1.0)
    asked = replace(proposal("CT_A", world().ct_a), limits=quick)
    for says in (b"\x02\0\0\0\0\x04", b""):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            heard: list[bytes] = []

            def answer(listening: socket.socket = listening, says: bytes = says, heard: list[bytes] = heard) -> None:
                connection, _ = listening.accept()
                with connection:
                    heard.append(connection.recv(10_000))
                    connection.sendall(says)
                    heard.append(connection.recv(10_000))

            peer = threading.Thread(target=answer)
            peer.start()
            began = time.monotonic()
            with pytest.raises(PeerUnavailable):
                associate(listening.getsockname(), asked)
            assert time.monotonic() - began < 5
            peer.join(10)
        assert heard[0][:1] == b"\x16"
        assert TITLE.encode() not in b"".join(heard)


# ---- limits ---------------------------------------------------------------------------------


def is_closed(connection: socket.socket) -> bool:
    if not select.select([connection], [], [], 0)[0]:
        return False
    try:
        return connection.recv(1) == b""
    except OSError:
        return True


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    machine = context(world().ct_a).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        machine.do_handshake()
    return outgoing.read()


def test_two_hundred_halves_of_handshakes_hold_no_thread_and_slow_nobody() -> None:
    """H1 over TLS: nothing said, a byte, half of a hello, a whole one; all are gone at ARTIM."""
    hello, artim_s = client_hello(), 2.0
    with secure_server(replace(DEFAULT_LIMITS, artim_s=artim_s)) as server, contextlib.ExitStack() as stack:
        assert echo(server.address, "CT_A", world().ct_a) == 0
        threads, times = threading.active_count(), []
        said = [b"", hello[:1], hello[: len(hello) // 2], hello]
        sockets = [stack.enter_context(socket.create_connection(server.address)) for _ in range(200)]
        opened = time.monotonic()
        for number, one in enumerate(sockets):
            with contextlib.suppress(OSError):  # dropped already: over 64 the oldest goes
                one.sendall(said[number % 4])
        while time.monotonic() < opened + artim_s - 0.7:
            began = time.monotonic()
            assert echo(server.address, "CT_A", world().ct_a) == 0
            times.append(time.monotonic() - began)
            assert threading.active_count() <= threads + 1  # the good peer's, which may just be ending
        assert statistics.quantiles(times, n=20)[-1] < 0.25  # with two handshakes in this one interpreter
        time.sleep(max(opened + artim_s + 0.7 - time.monotonic(), 0))
        # Those with a whole hello were sent ours: it is read before the end is seen.
        for one in sockets:
            with contextlib.suppress(OSError):
                one.settimeout(1)
                while one.recv(10_000):
                    pass
        assert server.counts["dicom_unfinished_dropped_total"] >= 200 - 64


@pytest.mark.parametrize("count", [3, 4, 5])
def test_unfinished_handshakes_are_bounded_and_the_oldest_is_dropped(count: int) -> None:
    limits = replace(DEFAULT_LIMITS, unfinished_associations=4)
    with secure_server(limits) as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(server.address)) for _ in range(count)]
        until = time.monotonic() + 5
        while server.counts["dicom_connections_total"] < count and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        assert [is_closed(one) for one in sockets] == [number < count - 4 for number in range(count)]


def test_the_time_of_the_handshake_counts_towards_the_request() -> None:
    with secure_server(replace(DEFAULT_LIMITS, artim_s=1.0)) as server:
        began = time.monotonic()
        with wrapped(server, context(world().ct_a)) as connection:
            with contextlib.suppress(OSError):
                while connection.recv(100):
                    pass
            assert 0.5 < time.monotonic() - began < 3


# ---- bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 2, STEP - 12, STEP, CHUNK, 5_000_002])
def test_what_is_sent_arrives(size: int) -> None:
    receiver, data = MemoryReceiver(), bytes(index * 7 % 251 for index in range(1000)) * (size // 1000 + 1)
    with secure_server(receiver=receiver) as server, associate(server.address, proposal("CT_A", world().ct_a)) as one:
        for number in range(3):
            assert one.store(CT, f"1.2.{number + 1}", EXPLICIT, data[:size]).status == 0
    assert [kept.data == data[:size] for kept in receiver.kept] == [True] * 3


def pair() -> tuple[SecureConnection, SecureConnection]:
    """Two ends, the handshake done."""
    here = world()
    ends = socket.socketpair()
    ours = SecureConnection(ends[0], TlsKeys(here.files()).server(), server_side=True)
    theirs = SecureConnection(
        ends[1], TlsKeys(here.files(here.ct_a)).client(by_name=True), server_side=False, host="localhost"
    )
    other = threading.Thread(target=theirs.handshake, args=(10.0,))
    other.start()
    ours.handshake(10.0)
    other.join()
    for one in (ours, theirs):
        one.setblocking(True)
    return ours, theirs


def test_a_reader_that_does_not_read_costs_two_records_and_loses_nothing() -> None:
    ours, theirs = pair()
    data = bytes(range(256)) * 40_000
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while taken < len(data):
            taken += ours.sendmsg([data[taken : taken + 100_000]], (), DONT_WAIT)
    assert 0 < taken < len(data)
    assert len(ours._unsent) <= STEP + 2 * 256  # and what TLS adds
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(theirs.recv(70_000))

    reader = threading.Thread(target=read)
    reader.start()
    ours.sendall(data[taken:])
    reader.join(20)
    assert received == data


def test_what_was_taken_leaves_before_an_answer_is_waited_for() -> None:
    ours, theirs = pair()
    data, taken = bytes(10_000_000), 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += ours.sendmsg([data], (), DONT_WAIT)
    answered: list[bytes] = []
    waiting = threading.Thread(target=lambda: answered.append(ours.recv(10)))
    waiting.start()
    got = 0
    while got < taken:
        got += len(theirs.recv(100_000))
    theirs.sendall(b"answer")
    waiting.join(10)
    assert answered == [b"answer"]


def test_bytes_that_are_decrypted_already_are_told_of() -> None:
    ours, theirs = pair()
    theirs.sendall(b"x" * 1000)
    assert ours.recv(10) == b"x" * 10
    assert ours.pending()
    assert ours.recv(2000) == b"x" * 990
    assert not ours.pending()
    with pytest.raises(BlockingIOError):
        ours.recv(10, DONT_WAIT)


def test_an_end_is_an_end_with_and_without_notice() -> None:
    ours, theirs = pair()
    theirs.sendall(b"last")
    theirs.close()
    assert ours.recv(10) == b"last"
    assert ours.recv(10) == b""
    ours, theirs = pair()
    theirs._below.close()
    assert ours.recv(10) == b""


def test_a_record_that_was_touched_ends_the_connection() -> None:
    ours, theirs = pair()
    theirs._tls.write(b"order")
    record = bytearray(theirs._out.read())
    record[-1] ^= 1
    theirs._below.sendall(record)
    with pytest.raises(TlsRefused):
        ours.recv(10)
    with contextlib.suppress(OSError):
        assert ours.recv(10, DONT_WAIT) == b""


# ---- files ----------------------------------------------------------------------------------


def copied(folder: Path) -> TlsFiles:
    files = world().files()
    assert files.revocations is not None
    for path, name in ((files.certificate, "c"), (files.key, "k"), (files.authorities, "a"), (files.revocations, "r")):
        shutil.copy(path, folder / name)
    return TlsFiles(folder / "c", folder / "k", folder / "a", folder / "r")


@pytest.mark.parametrize("name", ["certificate", "key", "authorities", "revocations"])
@pytest.mark.parametrize("content", [None, "", "nonsense"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    files = copied(tmp_path)
    path = getattr(files, name)
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(TlsUnusable, match=str(path)):
        TlsKeys(files)


def test_a_key_with_a_password_or_of_another_certificate_is_refused(tmp_path: Path) -> None:
    files = copied(tmp_path)
    command = ["openssl", "pkey", "-in", str(files.key), "-aes256", "-passout", "pass:x", "-out", str(tmp_path / "e")]
    subprocess.run(command, check=True, capture_output=True)
    for key in (tmp_path / "e", world().ct_b.key):
        with pytest.raises(TlsUnusable):
            TlsKeys(replace(files, key=key))


def test_files_that_change_take_effect_and_broken_ones_do_not(tmp_path: Path) -> None:
    now = [0.0]
    files, here = copied(tmp_path), world()
    keys = TlsKeys(files, lambda: now[0])
    first = keys.server()
    shutil.copy(here.rsa.certificate, files.certificate)
    now[0] += LOOK_S
    assert keys.server() is first  # the key is not of this certificate
    shutil.copy(here.rsa.key, files.key)
    assert keys.server() is first  # not looked at again so soon
    now[0] += LOOK_S
    assert keys.server() is not first
    assert keys.certificate == here.rsa.known_as
