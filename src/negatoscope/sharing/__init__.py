"""Who may, and who is it: roles, policy, accounts, logins."""

from negatoscope.sharing.accounts import COMMAND_LINE, Accounts
from negatoscope.sharing.addresses import HostNames, normalised
from negatoscope.sharing.credentials import SecretKind, kind_of
from negatoscope.sharing.entities import Destination, EntityRow
from negatoscope.sharing.logins import Logins
from negatoscope.sharing.passwords import Passwords
from negatoscope.sharing.people import CredentialRow, EstablishmentRow, UserRow
from negatoscope.sharing.policy import administered, may_administer, quarantine_bounds, require, scope
from negatoscope.sharing.roles import ROLES

__all__ = [
    "COMMAND_LINE",
    "ROLES",
    "Accounts",
    "CredentialRow",
    "Destination",
    "EntityRow",
    "EstablishmentRow",
    "HostNames",
    "Logins",
    "Passwords",
    "SecretKind",
    "UserRow",
    "administered",
    "kind_of",
    "may_administer",
    "normalised",
    "quarantine_bounds",
    "require",
    "scope",
]
