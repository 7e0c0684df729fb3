"""One frozen object; each field has unit, default and help. ``docs/reference/settings.md`` is generated from it.

Read from the environment (``NEGATOSCOPE_<NAME>``, ``NEGATOSCOPE_LIMIT_<NAME>``) over
``DATA/negatoscope.toml`` over the defaults.
Unknown keys are refused: a misspelt setting must not be silently ignored.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits

PREFIX = "NEGATOSCOPE_"
LIMIT_PREFIX = "NEGATOSCOPE_LIMIT_"
# of the tools and the tests, not of a server
NOT_SETTINGS = {"NEGATOSCOPE_CACHE", "NEGATOSCOPE_CORPUS", "NEGATOSCOPE_SHARED"}


class SettingsError(Exception):
    """A setting is unknown or cannot be read; the message names it and the file or variable."""


def setting(default: Any, text: str, unit: str = "", choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "unit": unit, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    data: Path = field(metadata={"help": "folder of everything the server keeps", "unit": ""})
    database: str = setting("", "PostgreSQL URL; empty: embedded PostgreSQL in the data folder")
    objects: str = setting("", "URL of the object store; empty: DATA/packs")
    http: str = setting("127.0.0.1:8080", "address of the HTTP server", "host:port")
    dicom: str = setting(
        "127.0.0.1:11112",
        "address of the DICOM server in plain text; with `dicom_tls` there is none unless it is named",
        "host:port",
    )
    dicom_tls: str = setting("", "address of the DICOM server over TLS; empty: none", "host:port")
    hl7: str = setting("127.0.0.1:2575", "address of the HL7 server (not served yet)", "host:port")
    workers: int = setting(1, "HTTP processes", "processes")
    title: str = setting("NEGATOSCOPE", "our AE title; associations that call another are rejected")
    worklist_own_station: bool = setting(
        False, "show a modality the steps scheduled for its own AE title or for none, whatever it asks for"
    )
    secure_cookies: bool = setting(False, "mark session cookies Secure; set it when people come over HTTPS")
    trusted_proxies: str = setting("", "addresses whose X-Forwarded-For is believed, comma separated")
    tls_certificate: str = setting("tls/certificate.pem", "our certificate chain, PEM, below the data folder")
    tls_key: str = setting("tls/certificate.key.pem", "its key, PEM without a password")
    tls_authorities: str = setting("tls/authorities.pem", "certificates of those who may sign for peers, PEM")
    tls_revocations: str = setting("", "their revocation lists, PEM; empty: none. With it a list of each is needed")
    quiet_s: float = setting(30.0, "a series without new instances for this long is packed", "seconds")
    pack_syntax: str = setting(
        "", "recompress on packing: empty (as received), htj2k or jpeg-ls, lossless", choices=("", "htj2k", "jpeg-ls")
    )
    reserve_bytes: int = setting(256 << 20, "free space kept back: below it objects are refused", "bytes")
    segment_bytes: int = setting(256 << 20, "a segment longer than this is sealed", "bytes")
    scrub_interval_s: float = setting(30 * 86400.0, "the whole store is verified at least this often", "seconds")
    retired_grace_s: float = setting(600.0, "bytes no longer referred to are deleted after this", "seconds")
    send_lease_s: float = setting(15.0, "a delivery whose sender has died is taken over after this", "seconds")
    send_retry_s: float = setting(
        5.0, "first wait after a node did not answer; twice as long each time, to 15 minutes", "seconds"
    )
    send_give_up_s: float = setting(3 * 86_400.0, "a delivery that waits longer for its node is given up", "seconds")
    session_s: float = setting(8 * 3600.0, "browser session length", "seconds")
    disclosure_window_s: float = setting(
        300.0, "one audit event covers an actor's reads of a study this long", "seconds"
    )
    pixel_children: int = setting(2, "processes that decode pixels", "processes")
    pixel_memory: int = setting(1 << 30, "address space of one pixel child", "bytes")
    pixel_cpu_s: int = setting(20, "CPU time of one pixel job", "seconds")
    limits: Limits = field(
        default=DEFAULT_LIMITS,
        metadata={"help": "table [limits] of the file, or NEGATOSCOPE_LIMIT_<NAME>: see limits", "unit": ""},
    )
    log_level: str = setting("info", "debug, info, warning or error", choices=("debug", "info", "warning", "error"))


def load(data: Path, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Settings of ``data``: defaults, then its file, then the environment, then ``given`` (command line).

    Raises:
        SettingsError: unknown key, or a value of the wrong kind.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    file = data / "negatoscope.toml"
    if file.exists():
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file}: {error}") from error
        limits = values.pop("limits", {})
        if not isinstance(limits, dict):
            raise SettingsError(f"{file}: limits is a table")
    for variable, text in environment.items():
        if variable in NOT_SETTINGS:
            continue
        if variable.startswith(LIMIT_PREFIX):
            name = variable[len(LIMIT_PREFIX) :].lower()
            _known(variable, name, Limits)
            limits[name] = text
        elif variable.startswith(PREFIX):
            name = variable[len(PREFIX) :].lower()
            _known(variable, name, Settings)
            values[name] = text
    values |= {name: value for name, value in given.items() if value is not None}
    return build(data, values, limits)


def _known(variable: str, name: str, kind: type) -> None:
    if name not in get_type_hints(kind):
        raise SettingsError(f"unknown setting {variable}")


def build(data: Path, values: Mapping[str, Any], limits: Mapping[str, Any]) -> Settings:
    """Settings of named values, each read as its kind. Raises SettingsError."""
    if values.get("dicom_tls") and "dicom" not in values:
        values = {**values, "dicom": ""}
    known = {name: kind for name, kind in get_type_hints(Settings).items() if name not in ("data", "limits")}
    settings = Settings(
        data=data,
        limits=Limits(**_read_all(limits, get_type_hints(Limits), "limit")),
        **_read_all(values, known, "setting"),
    )
    for one in fields(Settings):
        choices, value = one.metadata.get("choices"), getattr(settings, one.name)
        if choices and value not in choices:
            raise SettingsError(f"{one.name}: {', '.join(filter(None, choices))}, not {value!r}")
    if not settings.dicom and not settings.dicom_tls:
        raise SettingsError("dicom: host:port, here or in dicom_tls")
    return settings


def _read_all(values: Mapping[str, Any], kinds: Mapping[str, type], what: str) -> dict[str, Any]:
    if unknown := sorted(set(values) - set(kinds)):
        raise SettingsError(f"unknown {what} {unknown[0]}")
    return {name: _read(name, value, kinds[name]) for name, value in values.items()}


def _read(name: str, value: Any, kind: type) -> Any:
    if kind is bool and isinstance(value, str):
        if value.lower() not in ("true", "false", "1", "0"):
            raise SettingsError(f"{name}: true or false, not {value!r}")
        return value.lower() in ("true", "1")
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{name}: {value!r} is not a {kind.__name__}") from error
