"""The state table of PS3.8 9.2, table 9-10, as data.

Two rules. All transitions are in this file: nothing else assigns a state that it did not read
here. And this file does not know which role we play, with the one exception the standard makes:
a release collision (AR-8) goes on differently at each end.

Deviations, both without effect on the wire: AE-6 always leads to Sta3, because our user answers
at once and may then reject (AE-8); and what the standard has the provider do on its own time
(idle, no answer) is a local A-ABORT request.
"""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    REQUESTOR = "requestor"  # opened the transport connection, sends A-ASSOCIATE-RQ
    ACCEPTOR = "acceptor"


class State(Enum):
    STA1 = "idle"
    STA2 = "transport open, awaiting A-ASSOCIATE-RQ"
    STA3 = "awaiting the local answer to a request"
    STA4 = "awaiting the transport connection"
    STA5 = "awaiting A-ASSOCIATE-AC or -RJ"
    STA6 = "established"
    STA7 = "awaiting A-RELEASE-RP"
    STA8 = "awaiting the local answer to a release"
    STA9 = "release collision, requestor: awaiting the local answer"
    STA10 = "release collision, acceptor: awaiting A-RELEASE-RP"
    STA11 = "release collision, requestor: awaiting A-RELEASE-RP"
    STA12 = "release collision, acceptor: awaiting the local answer"
    STA13 = "awaiting the end of the transport connection"


class Trigger(Enum):
    """What happens: the nineteen events of table 9-10, in its order."""

    REQUEST = 1  # A-ASSOCIATE request (local)
    CONNECTED = 2
    ACCEPT_RECEIVED = 3
    REJECT_RECEIVED = 4
    CONNECTION_INDICATED = 5
    REQUEST_RECEIVED = 6
    ACCEPT = 7  # A-ASSOCIATE response (local)
    REJECT = 8
    DATA = 9  # P-DATA request (local)
    DATA_RECEIVED = 10
    RELEASE = 11  # A-RELEASE request (local)
    RELEASE_RECEIVED = 12
    RELEASE_ANSWER_RECEIVED = 13
    RELEASE_ANSWER = 14  # A-RELEASE response (local)
    ABORT = 15  # A-ABORT request (local)
    ABORT_RECEIVED = 16
    TRANSPORT_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19  # unrecognized or invalid


class Action(Enum):
    AE_1 = "open the transport connection"
    AE_2 = "send A-ASSOCIATE-RQ"
    AE_3 = "tell the user: accepted"
    AE_4 = "tell the user: rejected; close"
    AE_5 = "start ARTIM"
    AE_6 = "stop ARTIM, tell the user: requested"
    AE_7 = "send A-ASSOCIATE-AC"
    AE_8 = "send A-ASSOCIATE-RJ, start ARTIM"
    DT_1 = "send P-DATA-TF"
    DT_2 = "tell the user: data"
    AR_1 = "send A-RELEASE-RQ"
    AR_2 = "tell the user: release requested"
    AR_3 = "tell the user: released; close"
    AR_4 = "send A-RELEASE-RP, start ARTIM"
    AR_5 = "stop ARTIM"
    AR_6 = "tell the user: data, though release was requested"
    AR_7 = "send P-DATA-TF, though release was requested"
    AR_8 = "tell the user: release requested by both"
    AR_9 = "send A-RELEASE-RP, after a collision"
    AR_10 = "tell the user: released by the requestor"
    AA_1 = "send A-ABORT (source: user), start ARTIM"
    AA_2 = "stop ARTIM, close"
    AA_3 = "tell the user: aborted; close"
    AA_4 = "tell the user: connection lost"
    AA_5 = "stop ARTIM: nothing was ever asked"
    AA_6 = "ignore"
    AA_7 = "send A-ABORT"
    AA_8 = "send A-ABORT (source: provider), tell the user, start ARTIM"


_S, _T, _A = State, Trigger, Action
_ESTABLISHED_ONWARDS = (_S.STA6, _S.STA7, _S.STA8, _S.STA9, _S.STA10, _S.STA11, _S.STA12)

# A PDU where it may not come: AA-1 before a request was read, ignored after the end, else AA-8.
_UNEXPECTED: dict[State, tuple[Action, State]] = {
    _S.STA2: (_A.AA_1, _S.STA13),
    _S.STA3: (_A.AA_8, _S.STA13),
    _S.STA5: (_A.AA_8, _S.STA13),
    **dict.fromkeys(_ESTABLISHED_ONWARDS, (_A.AA_8, _S.STA13)),
    _S.STA13: (_A.AA_6, _S.STA13),
}

TRANSITIONS: dict[Trigger, dict[State, tuple[Action, State]]] = {
    _T.REQUEST: {_S.STA1: (_A.AE_1, _S.STA4)},
    _T.CONNECTED: {_S.STA4: (_A.AE_2, _S.STA5)},
    _T.ACCEPT_RECEIVED: _UNEXPECTED | {_S.STA5: (_A.AE_3, _S.STA6)},
    _T.REJECT_RECEIVED: _UNEXPECTED | {_S.STA5: (_A.AE_4, _S.STA1)},
    _T.CONNECTION_INDICATED: {_S.STA1: (_A.AE_5, _S.STA2)},
    _T.REQUEST_RECEIVED: _UNEXPECTED | {_S.STA2: (_A.AE_6, _S.STA3), _S.STA13: (_A.AA_7, _S.STA13)},
    _T.ACCEPT: {_S.STA3: (_A.AE_7, _S.STA6)},
    _T.REJECT: {_S.STA3: (_A.AE_8, _S.STA13)},
    _T.DATA: {_S.STA6: (_A.DT_1, _S.STA6), _S.STA8: (_A.AR_7, _S.STA8)},
    _T.DATA_RECEIVED: _UNEXPECTED | {_S.STA6: (_A.DT_2, _S.STA6), _S.STA7: (_A.AR_6, _S.STA7)},
    _T.RELEASE: {_S.STA6: (_A.AR_1, _S.STA7)},
    _T.RELEASE_RECEIVED: _UNEXPECTED | {_S.STA6: (_A.AR_2, _S.STA8), _S.STA7: (_A.AR_8, _S.STA9)},
    _T.RELEASE_ANSWER_RECEIVED: _UNEXPECTED
    | {_S.STA7: (_A.AR_3, _S.STA1), _S.STA10: (_A.AR_10, _S.STA12), _S.STA11: (_A.AR_3, _S.STA1)},
    _T.RELEASE_ANSWER: {
        _S.STA8: (_A.AR_4, _S.STA13),
        _S.STA9: (_A.AR_9, _S.STA11),
        _S.STA12: (_A.AR_4, _S.STA13),
    },
    _T.ABORT: {
        _S.STA3: (_A.AA_1, _S.STA13),
        _S.STA4: (_A.AA_2, _S.STA1),
        _S.STA5: (_A.AA_1, _S.STA13),
        **dict.fromkeys(_ESTABLISHED_ONWARDS, (_A.AA_1, _S.STA13)),
    },
    _T.ABORT_RECEIVED: {
        _S.STA2: (_A.AA_2, _S.STA1),
        _S.STA3: (_A.AA_3, _S.STA1),
        _S.STA5: (_A.AA_3, _S.STA1),
        **dict.fromkeys(_ESTABLISHED_ONWARDS, (_A.AA_3, _S.STA1)),
        _S.STA13: (_A.AA_2, _S.STA1),
    },
    _T.TRANSPORT_CLOSED: {
        _S.STA2: (_A.AA_5, _S.STA1),
        _S.STA3: (_A.AA_4, _S.STA1),
        _S.STA4: (_A.AA_4, _S.STA1),
        _S.STA5: (_A.AA_4, _S.STA1),
        **dict.fromkeys(_ESTABLISHED_ONWARDS, (_A.AA_4, _S.STA1)),
        _S.STA13: (_A.AR_5, _S.STA1),
    },
    _T.ARTIM_EXPIRED: {_S.STA2: (_A.AA_2, _S.STA1), _S.STA13: (_A.AA_2, _S.STA1)},
    _T.INVALID_PDU: _UNEXPECTED | {_S.STA13: (_A.AA_7, _S.STA13)},
}

AFTER_COLLISION = {Role.REQUESTOR: State.STA9, Role.ACCEPTOR: State.STA10}  # next state of AR-8


def transition(state: State, trigger: Trigger, role: Role) -> tuple[Action, State] | None:
    """What to do and where it leads; None where the table is blank (only local triggers have blanks)."""
    step = TRANSITIONS[trigger].get(state)
    if step is not None and step[0] is Action.AR_8:
        return step[0], AFTER_COLLISION[role]
    return step
