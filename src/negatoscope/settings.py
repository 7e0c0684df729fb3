"""One frozen object; each field has unit, default and help. ``docs/settings.md`` is generated from it.

Read from the environment (``NEGATOSCOPE_<NAME>``) over ``DATA/negatoscope.toml`` over the defaults.
Unknown keys are refused: a misspelt setting must not be silently ignored.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

PREFIX = "NEGATOSCOPE_"
NOT_SETTINGS = {"NEGATOSCOPE_CACHE", "NEGATOSCOPE_CORPUS"}  # of the tools and the tests, not of a server


class SettingsError(Exception):
    """A setting is unknown or cannot be read; the message names it and the file or variable."""


def setting(default: Any, text: str, unit: str = "") -> Any:
    return field(default=default, metadata={"help": text, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    data: Path = field(metadata={"help": "folder of everything the server keeps", "unit": ""})
    database: str = setting("", "PostgreSQL URL; empty: embedded PostgreSQL in the data folder")
    objects: str = setting("", "URL of the object store; empty: DATA/packs")
    http: str = setting("127.0.0.1:8080", "address of the HTTP server", "host:port")
    dicom: str = setting("127.0.0.1:11112", "address of the DICOM server", "host:port")
    hl7: str = setting("127.0.0.1:2575", "address of the HL7 server (not served yet)", "host:port")
    workers: int = setting(1, "HTTP processes", "processes")
    title: str = setting("NEGATOSCOPE", "our AE title; associations that call another are rejected")
    secure_cookies: bool = setting(False, "mark session cookies Secure; set it when people come over HTTPS")
    trusted_proxies: str = setting("", "addresses whose X-Forwarded-For is believed, comma separated")
    quiet_s: float = setting(30.0, "a series without new instances for this long is packed", "seconds")
    pack_syntax: str = setting("", "recompress on packing: empty (as received), htj2k or jpeg-ls, lossless")
    reserve_bytes: int = setting(256 << 20, "free space kept back: below it objects are refused", "bytes")
    segment_bytes: int = setting(256 << 20, "a segment longer than this is sealed", "bytes")
    group_commit_s: float = setting(0.0, "longest wait for company before a commit", "seconds")
    scrub_interval_s: float = setting(30 * 86400.0, "the whole store is verified at least this often", "seconds")
    retired_grace_s: float = setting(600.0, "bytes no longer referred to are deleted after this", "seconds")
    session_s: float = setting(8 * 3600.0, "browser session length", "seconds")
    disclosure_window_s: float = setting(
        300.0, "one audit event covers an actor's reads of a study this long", "seconds"
    )
    pixel_children: int = setting(2, "processes that decode pixels", "processes")
    pixel_memory: int = setting(1 << 30, "address space of one pixel child", "bytes")
    pixel_cpu_s: int = setting(20, "CPU time of one pixel job", "seconds")
    log_level: str = setting("info", "debug, info, warning or error")


def load(data: Path, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Settings of ``data``: defaults, then its file, then the environment, then ``given`` (command line).

    Raises:
        SettingsError: unknown key, or a value of the wrong kind.
    """
    environment = os.environ if environment is None else environment
    kinds = get_type_hints(Settings)
    names = {f.name for f in fields(Settings)} - {"data"}
    values: dict[str, Any] = {}
    file = data / "negatoscope.toml"
    if file.exists():
        try:
            from_file = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file}: {error}") from error
        if unknown := sorted(set(from_file) - names):
            raise SettingsError(f"{file}: unknown setting {unknown[0]}")
        values |= from_file
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable not in NOT_SETTINGS:
            name = variable[len(PREFIX) :].lower()
            if name not in names:
                raise SettingsError(f"unknown setting {variable}")
            values[name] = text
    values |= {name: value for name, value in given.items() if value is not None}
    return Settings(data=data, **{name: _read(name, value, kinds[name]) for name, value in values.items()})


def _read(name: str, value: Any, kind: type) -> Any:
    if kind is bool and isinstance(value, str):
        if value.lower() not in ("true", "false", "1", "0"):
            raise SettingsError(f"{name}: true or false, not {value!r}")
        return value.lower() in ("true", "1")
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{name}: {value!r} is not a {kind.__name__}") from error
