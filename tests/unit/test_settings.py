"""Settings come from one place each, and a misspelt one is never silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from negatoscope.bootstrap import child_config, settings_of
from negatoscope.settings import Settings, SettingsError, load


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "negatoscope.toml").write_text('title = "FILE"\nquiet_s = 1.5\nworkers = 3\n')
    environment = {"NEGATOSCOPE_QUIET_S": "2.5", "NEGATOSCOPE_WORKERS": "4", "HOME": "/"}
    settings = load(tmp_path, {"workers": 5, "http": None}, environment)
    assert (settings.title, settings.quiet_s, settings.workers) == ("FILE", 2.5, 5)
    assert settings.http == Settings(data=tmp_path).http


@pytest.mark.parametrize(
    ("file", "environment", "named"),
    [
        ("quite_s = 1", {}, "quite_s"),
        ("", {"NEGATOSCOPE_QUITE_S": "1"}, "NEGATOSCOPE_QUITE_S"),
        ("workers = 'many'", {}, "workers"),
        ("", {"NEGATOSCOPE_SECURE_COOKIES": "perhaps"}, "secure_cookies"),
        ("[limits]\nassociatons_ = 3", {}, "associatons_"),
        ("", {"NEGATOSCOPE_LIMIT_PDU": "1"}, "NEGATOSCOPE_LIMIT_PDU"),
        ("limits = 3", {}, "limits"),
        ("pack_syntax = 'htj2'", {}, "pack_syntax"),
        ("", {"NEGATOSCOPE_LOG_LEVEL": "loud"}, "log_level"),
        ("= =", {}, "negatoscope.toml"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    tmp_path: Path, file: str, environment: dict[str, str], named: str
) -> None:
    (tmp_path / "negatoscope.toml").write_text(file)
    with pytest.raises(SettingsError, match=named):
        load(tmp_path, {}, environment)


def test_limits_are_settings_too(tmp_path: Path) -> None:
    (tmp_path / "negatoscope.toml").write_text("[limits]\nassociations = 300\nartim_s = 5\n")
    settings = load(tmp_path, {}, {"NEGATOSCOPE_LIMIT_ASSOCIATIONS_PER_ADDRESS": "100"})
    assert settings.limits.associations == 300
    assert settings.limits.associations_per_address == 100
    assert settings.limits.artim_s == 5.0


def test_a_child_gets_the_settings_of_its_parent(tmp_path: Path) -> None:
    settings = load(tmp_path, {"database": "postgresql://x"}, {"NEGATOSCOPE_LIMIT_IDLE_S": "7"})
    assert settings_of(child_config(settings, "postgresql://x")) == settings


@pytest.mark.parametrize(
    ("file", "plain", "secure"),
    [
        ("", "127.0.0.1:11112", ""),
        ("dicom_tls = '0.0.0.0:2762'", "", "0.0.0.0:2762"),
        ("dicom_tls = '0.0.0.0:2762'\ndicom = '127.0.0.1:104'", "127.0.0.1:104", "0.0.0.0:2762"),
    ],
)
def test_plain_text_is_served_beside_tls_only_when_it_is_named(
    tmp_path: Path, file: str, plain: str, secure: str
) -> None:
    (tmp_path / "negatoscope.toml").write_text(file)
    settings = load(tmp_path, {}, {})
    assert (settings.dicom, settings.dicom_tls) == (plain, secure)
    assert settings_of(child_config(settings, "")) == settings


def test_a_server_without_any_dicom_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="dicom"):
        load(tmp_path, {"dicom": ""}, {})
