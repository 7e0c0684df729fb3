"""What the pages are given: kept as ``app.state.pages``, built by ``bootstrap``."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from negatoscope.archive.ports import Transactions
from negatoscope.archive.quarantine import Quarantine
from negatoscope.archive.retrieve import Retrieval
from negatoscope.audit.trail import Trail
from negatoscope.settings import Settings
from negatoscope.sharing import Accounts, Logins
from negatoscope.web.pages.figures import FigureReader


@dataclass(frozen=True, slots=True)
class PageServices:
    """Use cases behind the pages. All of them block: handlers run in the thread pool."""

    settings: Settings
    database: Transactions
    retrieval: Retrieval
    trail: Trail
    accounts: Accounts
    logins: Logins
    quarantine: Quarantine
    figures: FigureReader = field(default_factory=FigureReader)


def pages_of(request: Request) -> PageServices:
    """The services of the application that ``request`` came to."""
    services: PageServices = request.app.state.pages
    return services
