"""A whole archive behind the DICOM door, in this process: two establishments, a real database, real objects."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from negatoscope import bootstrap
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.model.actor import Right
from negatoscope.model.source import Announced, Door, Source
from negatoscope.model.stored import StoreResult
from negatoscope.ordering import worklist_services
from negatoscope.serve import query_retrieve
from negatoscope.servers.dicom import DicomServer
from negatoscope.servers.dicom_client import Sender
from negatoscope.servers.dicom_query_retrieve import QueryRetrieve
from negatoscope.servers.dicom_sending import send_data
from negatoscope.settings import Settings
from negatoscope.sharing import COMMAND_LINE
from negatoscope.wire.dimse import Command, Element, encode, request
from negatoscope.wire.dimse.commands import Value

TITLE = "NEGATOSCOPE"
READER, FOREIGNER, STORER, FINDER = "READER", "FOREIGNER", "STORER", "FINDER"  # of A, B, A, A
_numbers = itertools.count(1)
READING = (Right.STORE, Right.QUERY, Right.RETRIEVE)


@dataclass
class Archive:
    """The door at ``port`` and what is behind it."""

    built: bootstrap.Core
    operations: QueryRetrieve
    port: str
    counts: Counter[str]

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.port)

    def keep(self, data: bytes, syntax: str, code: str = "A") -> StoreResult:
        """Store one data set as establishment ``code`` would."""
        hand = self.built.accounts.system_actor(code)
        source = Source(hand.actor_id, hand.establishment_id, code, hand.authority_oid, hand.name, "", Door.IMPORT)
        reception = self.built.store.begin(source, Announced(syntax))
        reception.write([data])
        return reception.commit()

    def keep_file(self, path: str | Path, code: str = "A", **changes: Any) -> Dataset:
        """Store a Part 10 file, its data set as it is but for ``changes`` (which write it anew)."""
        dataset = pydicom.dcmread(path)
        if changes:
            for name, value in changes.items():
                setattr(dataset, name, value)
            raw = data_set_bytes(dataset)
        else:
            raw = raw_data_set(Path(path).read_bytes())
        self.keep(raw, dataset.file_meta.TransferSyntaxUID, code)
        return dataset

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Audit events of this kind, oldest first."""
        with self.built.database.unit(None) as unit:
            rows = unit.execute("SELECT event FROM audit_event ORDER BY sequence").fetchall()
        return [event for row in rows if (event := orjson.loads(row["event"]))["kind"] == kind]

    def destination(self, title: str, port: int, code: str = "A", host: str = "127.0.0.1") -> None:
        self.built.accounts.add_entity(title, code, [Right.STORE], host, port, by=COMMAND_LINE)


def raw_data_set(file: bytes) -> bytes:
    """What follows the file meta group."""
    length = int.from_bytes(file[140:144], "little")
    assert file[132:140] == b"\x02\x00\x00\x00UL\x04\x00"
    return file[144 + length :]


def data_set_bytes(dataset: Dataset) -> bytes:
    """The data set in its own transfer syntax."""
    syntax = dataset.file_meta.TransferSyntaxUID
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


@contextmanager
def _fresh_database(postgresql: EmbeddedPostgreSQL) -> Iterator[str]:
    """For fixtures of a whole module; ``conftest.fresh_database`` is for those of one test."""
    name = f"dimse_{next(_numbers)}"
    admin = postgresql.url.replace("/negatoscope?", "/postgres?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE negatoscope".encode())
    yield postgresql.url.replace("/negatoscope?", f"/{name}?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def archive(postgresql: EmbeddedPostgreSQL, limits: Limits | None = None) -> Iterator[Archive]:
    """Everything on a fresh database."""
    folder = Path(tempfile.mkdtemp(prefix="negatoscope-dimse-"))
    with ExitStack() as stack:
        url = stack.enter_context(_fresh_database(postgresql))
        settings = Settings(data=folder, database=url, limits=limits or DEFAULT_LIMITS)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        built = stack.enter_context(bootstrap.core(settings, url))
        for code, oid in (("A", "2.25.1001"), ("B", "2.25.1002")):
            built.accounts.add_establishment(code, f"Establishment {code}", oid, by=COMMAND_LINE)
        for title, code, rights in (
            (READER, "A", READING),
            (FOREIGNER, "B", READING),
            (STORER, "A", (Right.STORE,)),
            (FINDER, "A", (Right.QUERY,)),
        ):
            built.accounts.add_entity(title, code, list(rights), by=COMMAND_LINE)
        operations = stack.enter_context(query_retrieve(built))
        counts: Counter[str] = Counter()

        def count(name: str, amount: float) -> None:
            counts[name] += int(amount)
            built.metrics.count(name, amount)

        server = DicomServer(
            ("127.0.0.1", 0),
            TITLE,
            built.store,
            lambda calling, called, address, identity: built.accounts.actor_of_title(calling, address, called),
            built.limits,
            count,
            operations=(*worklist_services(built), operations),
        )
        server.start()
        stack.callback(server.stop)
        yield Archive(built, operations, str(server.address[1]), counts)


def ask(sender: Sender, field: int, identifier: bytes, **values: Value) -> Command:
    """A query or retrieve on the sender's first context; its first response."""
    begin(sender, field, identifier, 1, **values)
    return sender.answer()


def begin(sender: Sender, field: int, identifier: bytes, message_id: int = 1, **values: Value) -> None:
    """Send the request. ``values``: elements of the command set by name."""
    sop_class = sender.contexts[1][0]
    named = {Element[name]: value for name, value in values.items()}
    command = request(field, message_id, {Element.AFFECTED_SOP_CLASS_UID: sop_class, **named}, data_set=True)
    say(sender, 1, command, identifier)


def say(sender: Sender, context_id: int, command: Command, data_set: bytes | None = None) -> None:
    """Any message at all."""
    machine, connection = sender._machine, sender._connection
    connection.sendall(machine.message(context_id, encode(command), command=True))
    if data_set is not None:
        send_data(connection, machine, context_id, [data_set])


def run(command: Sequence[str | Path], timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A peer's program."""
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout_s,
    )
