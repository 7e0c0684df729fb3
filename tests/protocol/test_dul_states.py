"""The state table: equal to another reading of PS3.8, and walked cell by cell by the machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pynetdicom.fsm import TRANSITION_TABLE

from dul_machines import ACCEPT, LIMITS, PDUS, REJECT, REQUEST, reach
from negatoscope.wire.dul import Association, Misuse, Role, State
from negatoscope.wire.dul.events import Aborted, AssociationRejected, ConnectionLost, Ended, Released, Violated
from negatoscope.wire.dul.states import TRANSITIONS, Action, Trigger, transition

ROLES = {  # who can be in a state
    State.STA2: [Role.ACCEPTOR],
    State.STA3: [Role.ACCEPTOR],
    State.STA5: [Role.REQUESTOR],
    State.STA6: list(Role),
    State.STA7: list(Role),
    State.STA8: list(Role),
    State.STA9: [Role.REQUESTOR],
    State.STA10: [Role.ACCEPTOR],
    State.STA11: [Role.REQUESTOR],
    State.STA12: [Role.ACCEPTOR],
    State.STA13: list(Role),
}
CELLS = [(state, role) for state, roles in ROLES.items() for role in roles]


def test_the_table_is_the_one_that_pynetdicom_reads_in_the_standard() -> None:
    ours = {
        (f"Evt{trigger.value}", state.name.title()): action.name.replace("_", "-")
        for trigger, row in TRANSITIONS.items()
        for state, (action, _) in row.items()
    }
    assert ours == TRANSITION_TABLE


@pytest.mark.parametrize("trigger", list(PDUS), ids=lambda trigger: trigger.name)
@pytest.mark.parametrize(("state", "role"), CELLS, ids=lambda cell: cell.name)
def test_every_pdu_in_every_state_does_what_the_table_says(state: State, role: Role, trigger: Trigger) -> None:
    machine = reach(state, role)
    step = transition(state, trigger, role)
    assert step is not None
    events = machine.receive(PDUS[trigger], 1.0)
    assert machine.state is step[1]
    last = events[-1] if events else None
    if step[0] in (Action.AA_1, Action.AA_7, Action.AA_8):
        assert isinstance(last, Violated)
        source, reason = last.reply[8:10]
        invalid = trigger is Trigger.INVALID_PDU
        assert (source, reason) == ((0, 0) if step[0] is Action.AA_1 else (2, 1 if invalid else 2))
        assert machine.timer() == 1.0 + LIMITS.artim_s
    elif step[0] is Action.AA_6:
        assert last is None
    elif step[0] in (Action.AA_2, Action.AA_3, Action.AR_3, Action.AE_4):
        ends = {Action.AA_2: Ended, Action.AA_3: Aborted, Action.AR_3: Released, Action.AE_4: AssociationRejected}
        assert isinstance(last, ends[step[0]])
        assert machine.timer() is None
    elif step[0] is Action.AR_8 and role is Role.ACCEPTOR:
        assert last is None  # the requestor answers first
    else:
        assert last is not None
        assert not isinstance(last, Violated)


@pytest.mark.parametrize(("state", "role"), CELLS, ids=lambda cell: cell.name)
def test_every_local_wish_in_every_state_does_what_the_table_says_or_is_a_misuse(state: State, role: Role) -> None:
    wishes: dict[Trigger, Callable[[Association], bytes]] = {
        Trigger.REQUEST: lambda machine: machine.request(REQUEST, 1.0),
        Trigger.ACCEPT: lambda machine: machine.accept(ACCEPT, 1.0),
        Trigger.REJECT: lambda machine: machine.reject(REJECT, 1.0),
        Trigger.DATA: lambda machine: b"".join(head for head, _ in machine.data(1, b"", command=True)),
        Trigger.RELEASE: lambda machine: machine.release(1.0),
        Trigger.RELEASE_ANSWER: lambda machine: machine.release_answer(1.0),
    }
    kinds = {1: 1, 7: 2, 8: 3, 9: 4, 11: 5, 14: 6}  # trigger -> type of the PDU that goes out
    for trigger, wish in wishes.items():
        machine = reach(state, role)
        step = transition(state, trigger, role)
        if step is None:
            with pytest.raises(Misuse):
                wish(machine)
            assert machine.state is state
        else:
            assert wish(machine)[0] == kinds[trigger.value]
            assert machine.state is step[1]


@pytest.mark.parametrize(("state", "role"), CELLS, ids=lambda cell: cell.name)
def test_abort_and_loss_end_every_state(state: State, role: Role) -> None:
    machine = reach(state, role)
    step = transition(state, Trigger.ABORT, role)
    sent = machine.abort(1.0)
    if step is None:
        assert (sent, machine.state) == (b"", state)
    else:
        assert (sent, machine.state) == (bytes.fromhex("07000000000400000000"), State.STA13)
        assert machine.receive(PDUS[Trigger.DATA_RECEIVED], 1.0) == []  # what was on its way is dropped
    machine = reach(state, role)
    lost = machine.closed(1.0)
    assert lost == [Ended() if state in (State.STA2, State.STA13) else ConnectionLost()]
    assert (machine.state, machine.timer(), machine.closed(1.0)) == (State.STA1, None, [])


@pytest.mark.parametrize(("state", "role"), CELLS, ids=lambda cell: cell.name)
def test_time_ends_every_state_in_which_a_peer_is_awaited(state: State, role: Role) -> None:
    machine = reach(state, role)
    due = machine.timer()
    if state is State.STA3:  # it is for us to answer
        assert due is None
        assert machine.expire(1e9) == []
        return
    assert due is not None
    assert machine.expire(due - 0.001) == []
    events = machine.expire(due)
    if state in (State.STA2, State.STA13):
        assert (events, machine.state) == ([Ended()], State.STA1)
    else:
        assert isinstance(events[0], Violated)
        assert (events[0].reply[8], machine.state) == (2, State.STA13)


def test_a_requestor_without_a_request_hears_nothing() -> None:
    machine = Association(Role.REQUESTOR, LIMITS, 0.0)
    assert machine.receive(PDUS[Trigger.DATA_RECEIVED], 0.0) == []
    assert (machine.state, machine.abort(0.0)) == (State.STA1, b"")


def test_a_context_that_was_not_accepted_carries_nothing() -> None:
    with pytest.raises(Misuse, match="context 3"):
        reach(State.STA6, Role.ACCEPTOR).data(3, b"", command=True)
