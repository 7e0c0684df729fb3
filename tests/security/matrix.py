"""Who gets through which door: one row a route, by its name. A route without a row fails the build.

Add a row when you add a route: who may (roles and study tokens), what the route names (so that somebody
else's is asked for too), and the statuses that stand for "through".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from negatoscope.model.actor import Role


class Family(Enum):
    """How a route refuses."""

    PUBLIC = "public"  # refuses nobody
    PROGRAM = "program"  # no login 401, role 403, absent or not yours 404
    PAGE = "page"  # no login: to the login page; role, absent or not yours 404


class Names(Enum):
    """What a route's path or query names, besides nothing."""

    STUDY = "study"
    REPORT = "report"  # an instance of a study that is a structured report
    ENTITY = "entity"
    QUARANTINED = "quarantined"
    CREDENTIAL = "credential"
    USER = "user"
    ORDER = "order"
    WORKITEM = "workitem"
    NODE = "node"
    DELIVERY = "delivery"


@dataclass(frozen=True)
class Row:
    family: Family
    roles: frozenset[Role] = frozenset()
    study_token: bool = False  # a token bound to one study gets through, for that study
    names: Names | None = None
    platform: frozenset[Role] = frozenset()  # roles for which no establishment is another's
    foreign_is_empty: bool = False  # a search: not yours and absent are an empty answer, not 404
    through: frozenset[int] = frozenset({200})
    query: dict[str, str] = field(default_factory=dict)  # braces are filled in as in the path
    form: dict[str, str] = field(default_factory=dict)


EVERYONE = frozenset(Role)
READERS = frozenset({Role.REFERENT, Role.RADIOGRAPHER, Role.RADIOLOGIST, Role.CLINICIAN})
SEARCHERS = READERS | {Role.SECRETARY}
STORERS = frozenset({Role.RADIOGRAPHER, Role.RADIOLOGIST, Role.SECRETARY})
ADMINISTRATORS = frozenset({Role.ADMIN, Role.REFERENT})
ADMIN = frozenset({Role.ADMIN})
AUDITORS = frozenset({Role.ADMIN, Role.DPO})
ORDERERS = frozenset({Role.REFERENT, Role.RADIOGRAPHER, Role.RADIOLOGIST, Role.SECRETARY})
REFERENT = frozenset({Role.REFERENT})
SENDERS = frozenset({Role.ADMIN, Role.REFERENT, Role.RADIOGRAPHER, Role.RADIOLOGIST})  # may change what is sent

OK, MOVED, FORM = frozenset({200}), frozenset({303}), frozenset({303, 400, 422})


def _public(through: frozenset[int] = OK, query: dict[str, str] | None = None) -> Row:
    return Row(Family.PUBLIC, EVERYONE, True, through=through, query=query or {})


def _page(roles: frozenset[Role], through: frozenset[int] = OK, form: dict[str, str] | None = None) -> Row:
    return Row(Family.PAGE, roles, through=through, form=form or {})


def _images(query: dict[str, str] | None = None) -> Row:
    return Row(Family.PROGRAM, READERS, True, Names.STUDY, query=query or {})


def _search(names: Names | None = None) -> Row:
    return Row(Family.PROGRAM, SEARCHERS, True, names, foreign_is_empty=True, through=frozenset({200, 204}))


_PER_STUDY = [f"{what}-{level}" for what in ("metadata", "rendered", "thumbnail", "bulkdata", "pixeldata")
              for level in ("instance", "series", "study")]  # fmt: skip
_WADO = {
    "requestType": "WADO",
    "studyUID": "{study_uid}",
    "seriesUID": "{series_uid}",
    "objectUID": "{sop_instance_uid}",
}

ROWS: dict[str, Row] = {
    # Open to whoever reaches the port, and says nothing of anybody
    "health-live": _public(),
    "health-ready": _public(frozenset({200, 503})),
    "metrics": _public(),
    "openapi": _public(),
    "static": _public(frozenset({200, 404})),
    "login": _public(frozenset({200, 303})),
    "sign-in": _public(frozenset({400, 401, 422, 429})),
    "enter-demonstration": _public(frozenset({401})),  # this is no demonstration folder
    "sign-out": _public(MOVED),
    "remember": _public(MOVED),
    "viewer": _public(frozenset({303, 503})),
    "viewer-enter": _public(frozenset({303, 503})),
    "viewer-config": _public(),
    "viewer-file": _public(frozenset({200, 404, 503})),
    # DICOMweb and WADO-URI
    **{name: _images() for name in _PER_STUDY},
    **{name: _images() for name in ("retrieve-study", "retrieve-series", "retrieve-instance", "retrieve-frames")},
    **{name: _images() for name in ("rendered-frames", "thumbnail-frames", "bulkdata")},
    "wado-uri": _images(_WADO),
    "search-studies": _search(),
    "search-series": _search(),
    "search-instances": _search(),
    "search-study-series": _search(Names.STUDY),
    "search-study-instances": _search(Names.STUDY),
    "search-series-instances": _search(Names.STUDY),
    "search-instances-of-series": _search(Names.STUDY),
    "store": Row(Family.PROGRAM, STORERS, through=frozenset({415})),  # an empty body: refused for what it is
    "store-study": Row(Family.PROGRAM, STORERS, through=frozenset({415})),
    # Pages for everybody who signed in
    "start": _page(EVERYONE, MOVED),
    "welcome": _page(EVERYONE),
    "account": _page(EVERYONE),
    "create-token": _page(EVERYONE, frozenset({200, 303, 400, 403, 422})),
    "change-password": _page(EVERYONE, FORM | {200, 403}),
    "revoke-credential": Row(Family.PAGE, EVERYONE, names=Names.CREDENTIAL, platform=EVERYONE, through=MOVED),
    # Pages with images or about them
    "worklist": _page(SEARCHERS),
    "worklist-more": _page(SEARCHERS),
    "worklist-live": _page(SEARCHERS),
    "study": Row(Family.PAGE, SEARCHERS, True, Names.STUDY),
    "study-images": Row(Family.PAGE, READERS, True, Names.STUDY, through=frozenset({200, 303})),
    "series-images": Row(Family.PAGE, READERS, True, Names.STUDY),
    "report": Row(Family.PAGE, READERS, True, Names.REPORT),
    "import": _page(STORERS),
    # Orders
    "orders": _page(ORDERERS),
    "add-order": _page(ORDERERS, FORM | {200}),
    "order": Row(Family.PAGE, ORDERERS, names=Names.ORDER),
    "change-order": Row(
        Family.PAGE, ORDERERS, names=Names.ORDER, through=frozenset({200, 303}), form={"status": "ARRIVED"}
    ),
    "create-order": Row(Family.PROGRAM, ORDERERS, through=frozenset({400})),  # a form is no JSON
    "list-orders": Row(Family.PROGRAM, ORDERERS),
    "read-order": Row(Family.PROGRAM, ORDERERS, names=Names.ORDER),
    "move-order": Row(Family.PROGRAM, ORDERERS, names=Names.ORDER, through=frozenset({400})),
    "cancel-order": Row(Family.PROGRAM, ORDERERS, names=Names.ORDER, through=frozenset({200, 412})),
    "list-performed-steps": Row(Family.PROGRAM, ORDERERS),
    # Workitems: a form is no data set, which is found out after whose the workitem is
    "create-workitem": Row(Family.PROGRAM, ORDERERS, through=frozenset({415})),
    "search-workitems": Row(Family.PROGRAM, ORDERERS),
    "retrieve-workitem": Row(Family.PROGRAM, ORDERERS, names=Names.WORKITEM),
    "update-workitem": Row(Family.PROGRAM, ORDERERS, names=Names.WORKITEM, through=frozenset({415})),
    "change-workitem-state": Row(Family.PROGRAM, ORDERERS, names=Names.WORKITEM, through=frozenset({415})),
    "cancel-workitem": Row(Family.PROGRAM, ORDERERS, names=Names.WORKITEM, through=frozenset({202, 415})),
    # Administration
    "administration": _page(ADMINISTRATORS, frozenset({200, 303})),
    "establishments": _page(ADMINISTRATORS),
    "add-establishment": _page(ADMIN, FORM),
    "applications": _page(ADMINISTRATORS),
    "add-application": _page(ADMINISTRATORS, FORM),
    "application": Row(Family.PAGE, ADMINISTRATORS, names=Names.ENTITY, platform=ADMIN),
    "change-application": Row(Family.PAGE, ADMINISTRATORS, names=Names.ENTITY, platform=ADMIN, through=FORM),
    "remove-application": Row(Family.PAGE, ADMINISTRATORS, names=Names.ENTITY, platform=ADMIN, through=MOVED),
    "users": _page(ADMINISTRATORS),
    "add-user": _page(ADMIN, FORM),
    "disable-user": Row(Family.PAGE, ADMIN, names=Names.USER, platform=ADMIN, through=MOVED),
    "enable-user": Row(Family.PAGE, ADMIN, names=Names.USER, platform=ADMIN, through=MOVED),
    # Sending
    "nodes": _page(ADMINISTRATORS),
    "add-node": _page(ADMINISTRATORS, FORM),
    "change-node": Row(
        Family.PAGE, ADMINISTRATORS, names=Names.NODE, platform=ADMIN, through=MOVED, form={"change": "pause"}
    ),
    "change-delivery": Row(
        Family.PAGE, ADMINISTRATORS, names=Names.DELIVERY, platform=ADMIN, through=MOVED, form={"change": "cancel"}
    ),
    "list-nodes": Row(Family.PROGRAM, ADMINISTRATORS),
    "api-add-node": Row(Family.PROGRAM, ADMINISTRATORS, through=frozenset({400})),  # no body
    "remove-node": Row(Family.PROGRAM, ADMINISTRATORS, names=Names.NODE, platform=ADMIN, through=frozenset({204, 412})),
    **{
        name: Row(Family.PROGRAM, ADMINISTRATORS, names=Names.NODE, platform=ADMIN)
        for name in ("api-echo-node", "api-pause-node", "api-resume-node")
    },
    "list-deliveries": Row(Family.PROGRAM, READERS | {Role.ADMIN}),
    "ask-delivery": Row(Family.PROGRAM, READERS, through=frozenset({400})),  # no body
    "read-delivery": Row(Family.PROGRAM, READERS | {Role.ADMIN}, names=Names.DELIVERY, platform=ADMIN),
    **{
        name: Row(Family.PROGRAM, SENDERS, names=Names.DELIVERY, platform=ADMIN, through=frozenset({200, 412}))
        for name in ("retry-delivery", "release-delivery", "cancel-delivery")
    },
    "audit": _page(AUDITORS),
    "audit-export": _page(AUDITORS),
    "storage": _page(ADMIN),
    "alerts": _page(ADMIN),
    "quarantine": _page(ADMINISTRATORS),
    "quarantined-object": Row(Family.PAGE, REFERENT, names=Names.QUARANTINED),
    "resolve-quarantined": Row(
        Family.PAGE,
        ADMINISTRATORS,
        names=Names.QUARANTINED,
        platform=ADMIN,
        through=MOVED,
        form={"resolution": "first-is-right"},
    ),
}
