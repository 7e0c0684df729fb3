"""The command line: parse, call a use case, print. A command that fails says so in one line and exits with 1."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from negatoscope import __version__, serve
from negatoscope.archive.quarantine import Quarantine
from negatoscope.audit.heads import verify_trail
from negatoscope.bootstrap import Core, core, database_of
from negatoscope.cli_orders import add_commands as add_orders
from negatoscope.cli_sending import add_commands as add_sending
from negatoscope.db import EmbeddedPostgreSQLError
from negatoscope.errors import NegatoscopeError, title
from negatoscope.importing import import_media
from negatoscope.model.actor import Right, Role
from negatoscope.model.certificate import of_pem
from negatoscope.model.source import Door, Source
from negatoscope.pki import PEER_DAYS, Authority, PkiError
from negatoscope.settings import Settings, SettingsError, load
from negatoscope.sharing import COMMAND_LINE, normalised

Command = Callable[[argparse.Namespace, Settings], int]
_DURATION = re.compile(r"([0-9]+)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Failure(Exception):
    """Ends the command with this one line on standard error."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["child"]:
        return serve.child(given[1], given[2:])
    options = _parser().parse_args(given)
    logging.getLogger().addHandler(logging.NullHandler())  # a command says what it has to say itself; serve logs
    try:
        return int(options.command(options, _settings(options)))
    except NegatoscopeError as error:
        return _fail(f"{title(error)} {error}".strip())
    except (Failure, SettingsError, EmbeddedPostgreSQLError, OSError) as error:
        return _fail(str(error))
    except psycopg.Error:  # the server went away in the middle
        return _fail("the database cannot be reached")
    except KeyboardInterrupt:
        return 130


def _fail(message: str) -> int:
    print("negatoscope: " + " ".join(message.split()), file=sys.stderr)
    return 1


def _settings(options: argparse.Namespace) -> Settings:
    given = {
        name: getattr(options, name, None)
        for name in ("database", "objects", "http", "dicom", "dicom_tls", "hl7", "workers")
    }
    return load(options.data, given)


@contextmanager
def _core(settings: Settings) -> Iterator[Core]:
    with database_of(settings) as (url, _), core(settings, url, connections=4) as built:
        yield built


# Commands --------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    return serve.serve(settings)


def _demo(options: argparse.Namespace, settings: Settings) -> int:
    from negatoscope.demonstration import fill

    with _core(settings) as built:
        fill(built, lambda line: print(line, flush=True))
    return 0


def _establishment_add(options: argparse.Namespace, settings: Settings) -> int:
    with _core(settings) as built:
        built.accounts.add_establishment(options.code, options.name, options.oid, options.finess, by=COMMAND_LINE)
    return 0


def _ae_add(options: argparse.Namespace, settings: Settings) -> int:
    try:
        rights = frozenset(Right(right.strip()) for right in options.rights.split(","))
    except ValueError:
        raise Failure("--rights takes store, query, retrieve, worklist, separated by commas") from None
    with _core(settings) as built:
        built.accounts.add_entity(
            options.title,
            options.establishment,
            rights,
            options.host,
            options.port,
            tls=options.tls,
            certificates=[_fingerprint(text) for text in options.certificate],
            by=COMMAND_LINE,
        )
    return 0


def _fingerprint(text: str) -> str:
    """Of a PEM file, or given as such."""
    path = Path(text)
    try:
        return of_pem(path.read_text(encoding="ascii", errors="replace")).fingerprint if path.is_file() else text
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None


def _ae_secure(options: argparse.Namespace, settings: Settings) -> int:
    host = None if options.host is None else normalised(options.host)
    with _core(settings) as built:
        rows = [
            row
            for row in built.accounts.entities(by=COMMAND_LINE)
            if (row.title, row.code) == (options.title, options.establishment) and host in (None, row.host)
        ]
        if len(rows) != 1:
            raise Failure("no such application entity" if not rows else "several have this title: name the --host")
        built.accounts.secure_entity(
            rows[0].actor_id,
            tls=rows[0].tls if options.tls is None else options.tls,
            bind=[_fingerprint(text) for text in options.bind],
            unbind=[_fingerprint(text) for text in options.unbind],
            by=COMMAND_LINE,
        )
    return 0


def _authority(settings: Settings) -> Authority:
    return Authority(settings.data / "tls" / "authority")


def _pki_init(options: argparse.Namespace, settings: Settings) -> int:
    folder, authority = settings.data / "tls", _authority(settings)
    try:
        authority.create(options.name)
        issued = authority.issue(settings.title, folder, options.host, stem="certificate")
    except PkiError as error:
        raise Failure(str(error)) from None
    authorities = folder / "authorities.pem"
    authorities.write_text(authority.certificate.read_text())
    print(f"{authorities}\n{issued.certificate}\n{issued.known_as.fingerprint}")
    return 0


def _pki_issue(options: argparse.Namespace, settings: Settings) -> int:
    try:
        issued = _authority(settings).issue(options.name, options.out, options.host, options.days)
    except PkiError as error:
        raise Failure(str(error)) from None
    print(f"{issued.certificate}\n{issued.key}\n{issued.known_as.fingerprint}")
    return 0


def _pki_revoke(options: argparse.Namespace, settings: Settings) -> int:
    try:
        _authority(settings).revoke(options.certificate)
    except PkiError as error:
        raise Failure(str(error)) from None
    return 0


def _user_add(options: argparse.Namespace, settings: Settings) -> int:
    password = None
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\n") if not sys.stdin.isatty() else getpass.getpass("Password: ")
    with _core(settings) as built:
        built.accounts.add_user(options.name, Role(options.role), options.establishment, password, by=COMMAND_LINE)
    return 0


def _token_create(options: argparse.Namespace, settings: Settings) -> int:
    with _core(settings) as built:
        print(built.accounts.create_token(options.user, options.ttl, options.study, by=COMMAND_LINE))
    return 0


def _import(options: argparse.Namespace, settings: Settings) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    counts = {"stored": 0, "already stored": 0, "quarantined": 0, "skipped": 0, "refused": 0}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    hidden = not console.is_terminal
    with _core(settings) as built, Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        actor = built.accounts.system_actor(options.establishment)
        source = Source(
            actor.actor_id,
            actor.establishment_id,
            actor.establishment_code,
            actor.authority_oid,
            actor.name,
            "",
            Door.IMPORT,
        )
        bar = progress.add_task("import", total=None)
        for imported in import_media(options.path, built.store, source):
            if imported.result is not None:
                name = {"created": "stored"}.get(imported.result.outcome, imported.result.outcome.replace("-", " "))
            else:
                name = "refused" if imported.refused else "skipped"
            counts[name] += 1
            progress.update(bar, advance=1)
            if imported.reason:
                print(f"{imported.path}: {name}: {imported.reason}")
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if refused := counts["refused"]:
        raise Failure("1 file was refused" if refused == 1 else f"{refused} files were refused")
    return 0


def _quarantine_list(options: argparse.Namespace, settings: Settings) -> int:
    with _core(settings) as built:
        quarantine = Quarantine(built.database, built.containers, built.trail)
        after = 0
        while page := quarantine.listed(None, resolved=options.all, after=after):
            for row in page:
                print(
                    json.dumps(
                        {
                            "id": row.quarantine_id,
                            "sop_instance_uid": row.sop_instance_uid,
                            "study_instance_uid": row.study_uid,
                            "patient_id": row.patient_identifier,
                            "reason": row.reason,
                            "sha256": row.sha256,
                            "received_at": row.received_at.isoformat(),
                        }
                    )
                )
            after = page[-1].quarantine_id
    return 0


def _quarantine_get(options: argparse.Namespace, settings: Settings) -> int:
    with _core(settings) as built:
        quarantine = Quarantine(built.database, built.containers, built.trail)
        row = quarantine.get(None, options.id)
        partial = options.out.with_name(f".{options.out.name}.{uuid.uuid4().hex}")
        try:
            with partial.open("xb") as file:
                for block in quarantine.part10(row, COMMAND_LINE, "cli"):
                    file.write(block)
            partial.replace(options.out)
        finally:
            partial.unlink(missing_ok=True)
    return 0


@contextmanager
def _progress(text: str) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for work whose end is not known beforehand."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description} {task.completed:.0f}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(text, total=None)
        yield lambda done: progress.update(bar, completed=done)


def _scrub(options: argparse.Namespace, settings: Settings) -> int:
    with _core(settings) as built, _progress("objects verified") as progress:
        report = built.scrubber().everything(lambda so_far: progress(so_far.objects))
    for damage in report.found:
        print(
            json.dumps(
                {
                    "kind": damage.kind,
                    "container": damage.container.value,
                    "container_id": damage.container_id,
                    "offset": damage.offset,
                    "sop_instance_uid": damage.sop_instance_uid,
                    "study_instance_uid": damage.study_uid,
                }
            )
        )
    print(f"{report.packs} packs, {report.objects} objects, {report.bytes} bytes read; {len(report.found)} damaged")
    if report.found:
        raise Failure(f"{len(report.found)} damaged")
    return 0


def _rebuild_index(options: argparse.Namespace, settings: Settings) -> int:
    with _core(settings) as built, _progress("packs and records read") as progress:
        rebuilt = built.rebuild(lambda so_far: progress(so_far.packs + so_far.records))
    print(
        f"{rebuilt.series} series of {rebuilt.instances} instances from {rebuilt.packs} packs, "
        f"{rebuilt.records} objects from segments, {rebuilt.unreadable} unreadable files"
    )
    if rebuilt.unreadable:
        raise Failure(f"{rebuilt.unreadable} files could not be read")
    return 0


def _verify_audit(options: argparse.Namespace, settings: Settings) -> int:
    with _core(settings) as built:
        verification = verify_trail(built.database, settings.data)
    if verification.finding is not None:
        raise Failure(f"the audit trail was altered: {verification.finding}")
    print(f"{verification.head.sequence} audit events verified")
    return 0


# Grammar ---------------------------------------------------------------------------------------------


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("a duration is a number and s, m, h or d")
    return float(match[1]) * _UNITS[match[2]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as every other failure."""
        print(f"negatoscope: {message}. Help: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder of everything")
    shared.add_argument("--database", metavar="URL", help="PostgreSQL to use instead of the embedded one")
    parser = _Parser(prog="negatoscope", description="The shared PACS of a territory.")
    parser.add_argument("--version", action="version", version=f"negatoscope {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(words: str, command: Command, text: str, into: Any = commands) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = into.add_parser(words, parents=[shared], help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    def group(word: str, text: str) -> Any:
        return commands.add_parser(word, help=text).add_subparsers(
            required=True, metavar="ACTION", parser_class=_Parser
        )

    sub = add("serve", _serve, "serve DICOM and HTTP until SIGTERM")
    sub.add_argument("--http", metavar="HOST:PORT", help="where HTTP is served")
    sub.add_argument("--dicom", metavar="HOST:PORT", help="where DICOM is served in plain text")
    sub.add_argument("--dicom-tls", metavar="HOST:PORT", help="where DICOM is served over TLS")
    sub.add_argument("--hl7", metavar="HOST:PORT", help="not served yet")
    sub.add_argument("--objects", metavar="URL", help="not used yet")
    sub.add_argument("--workers", type=int, metavar="N", help="HTTP processes")

    add("demo", _demo, "load demonstration establishments, people and real images")

    sub = add("add", _establishment_add, "add an establishment", group("establishment", "establishments"))
    sub.add_argument("code", help="short name, as used by the other commands")
    sub.add_argument("--name", required=True, help="as people know it")
    sub.add_argument("--oid", required=True, help="assigning authority of its patient identifiers")
    sub.add_argument("--finess", help="FINESS number, 9 characters")

    actions = group("ae", "application entities")
    sub = add("add", _ae_add, "add an application entity", actions)
    sub.add_argument("title", help="its AE title")
    sub.add_argument("--establishment", required=True, metavar="CODE", help="the one it belongs to")
    sub.add_argument("--host", help="the only address it may call from; without it any address")
    sub.add_argument("--port", type=int, help="where it listens, as a move destination")
    sub.add_argument("--rights", default="store,query,retrieve,worklist", help="separated by commas")

    sub.add_argument(
        "--certificate", action="append", default=[], metavar="FILE", help="it calls over TLS with this one alone"
    )
    sub.add_argument("--tls", action="store_true", help="it is called over TLS")
    sub = add("secure", _ae_secure, "change the certificates of an application entity", actions)
    sub.add_argument("title", help="its AE title")
    sub.add_argument("--establishment", required=True, metavar="CODE", help="the one it belongs to")
    sub.add_argument("--host", help="which one, when several have the title")
    sub.add_argument("--bind", action="append", default=[], metavar="FILE", help="PEM file, or SHA-256 fingerprint")
    sub.add_argument("--unbind", action="append", default=[], metavar="FILE", help="PEM file, or SHA-256 fingerprint")
    sub.add_argument("--tls", action=argparse.BooleanOptionalAction, help="whether it is called over TLS")

    actions = group("pki", "certificates for tests and first steps, by openssl")
    sub = add("init", _pki_init, "make an authority, and a certificate of this server", actions)
    sub.add_argument("--name", default="Negatoscope test authority", help="of the authority")
    sub.add_argument("--host", action="append", default=[], help="a name or address of this server")
    sub = add("issue", _pki_issue, "make a key and a certificate for a peer; print its fingerprint", actions)
    sub.add_argument("name", help="of the peer, as its AE title")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="where both are written")
    sub.add_argument("--host", action="append", default=[], help="a name or address of the peer")
    sub.add_argument("--days", type=int, default=PEER_DAYS, help="how long it is good")
    sub = add("revoke", _pki_revoke, "put a certificate on the revocation list", actions)
    sub.add_argument("certificate", type=Path, help="PEM file")

    sub = add("add", _user_add, "add a user", group("user", "users"))
    sub.add_argument("name", help="login")
    sub.add_argument("--role", required=True, choices=[role.value for role in Role], help="what the user may do")
    sub.add_argument("--establishment", required=True, metavar="CODE", help="the one it belongs to")
    sub.add_argument("--password-stdin", action="store_true", help="read a password; without one: tokens only")

    sub = add("create", _token_create, "print a bearer token", group("token", "tokens"))
    sub.add_argument("--user", required=True, metavar="NAME", help="whose rights it has")
    sub.add_argument("--ttl", type=_duration, default=3600.0, help="time to live, as 30m, 1h, 7d")
    sub.add_argument("--study", metavar="UID", help="the only study it opens")

    sub = add("import", _import, "import a folder, a ZIP or a disc")
    sub.add_argument("path", type=Path, help="folder, ZIP, DICOMDIR or file")
    sub.add_argument("--establishment", required=True, metavar="CODE", help="the one it belongs to")

    actions = group("quarantine", "objects kept aside")
    sub = add("list", _quarantine_list, "one JSON object a line", actions)
    sub.add_argument("--all", action="store_true", help="resolved ones too")
    sub = add("get", _quarantine_get, "write one to a file", actions)
    sub.add_argument("id", type=int, help="as listed")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help="DICOM file to write")

    add_sending(add, group, _core)
    add_orders(add, group, _core)

    add("scrub", _scrub, "read the whole store and compare it with its checksums")
    add("rebuild-index", _rebuild_index, "fill an empty index from the store alone")
    add("verify-audit", _verify_audit, "verify the chain of the audit trail")
    return parser


if __name__ == "__main__":
    sys.exit(main())
