"""Certificates as we know them, held against what openssl says of them."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.model.certificate import fingerprint, of_der, of_pem
from negatoscope.pki import Authority, PkiError
from tls_world import world


def said_by_openssl(path: Path, option: str) -> str:
    command = ["openssl", "x509", "-in", str(path), "-noout", option, "-sha256"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["server", "ct_a", "rsa", "expired", "alone"])
def test_fingerprint_and_end_are_those_that_openssl_sees(name: str) -> None:
    path = getattr(world(), name).certificate
    certificate = of_pem(path.read_text())
    assert certificate.fingerprint == fingerprint(said_by_openssl(path, "-fingerprint"))
    end = datetime.strptime(said_by_openssl(path, "-enddate"), "notAfter=%b %d %H:%M:%S %Y %Z")
    assert certificate.not_after == end.replace(tzinfo=UTC).timestamp()


def test_an_end_after_2049_is_read(tmp_path: Path) -> None:
    """From 2050 on it is written with four digits of the year (RFC 5280 4.1.2.5)."""
    issued = world().authority.issue("late", tmp_path, days=40 * 365)
    assert datetime.fromtimestamp(issued.known_as.not_after, UTC).year > 2050
    assert issued.known_as.days_left(issued.known_as.not_after - 86_400) == 1


@given(st.data())
def test_what_is_no_certificate_is_refused_and_nothing_else_happens(data: st.DataObject) -> None:
    whole = ssl.PEM_cert_to_DER_cert(world().ct_a.certificate.read_text())
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=r"X\.509"):
        of_der(whole[:cut])
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, 160))] = data.draw(st.integers(0, 255))
    try:
        of_der(bytes(changed))
    except ValueError:
        pass  # the only error there may be


@pytest.mark.parametrize("text", ["", "nothing", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----"])
def test_a_file_without_a_certificate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="certificate"):
        of_pem(text)


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(PkiError, match="pki init"):
        authority.issue("CT_A", tmp_path)
    authority.create("Test")
    with pytest.raises(PkiError, match="already"):
        authority.create("Test")
    authority.issue("CT_A", tmp_path / "out")
    with pytest.raises(PkiError, match="there already"):
        authority.issue("CT_A", tmp_path / "out")


@pytest.mark.parametrize("name", ["", "CT/A", "CT\nA", "-x", "é", "a" * 65])
def test_a_name_that_openssl_could_take_for_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PkiError, match="cannot be"):
        world().authority.issue(name, tmp_path)


@pytest.mark.parametrize("host", ["a,DNS:b", "a b", "é.fr", ""])
def test_a_host_that_openssl_could_take_for_two_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(PkiError, match="cannot be"):
        world().authority.issue("CT_A", tmp_path, [host])


def test_keys_are_for_their_owner_alone() -> None:
    for key in (world().server.key, world().authority.folder / "key.pem"):
        assert key.stat().st_mode & 0o077 == 0
