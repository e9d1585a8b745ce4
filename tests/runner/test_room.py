import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupts import each_interrupt
from processes import wait_until

from neuronbert.runner.room import KEPT_FREE, Places, Room, Ticket


def never():
    return False


def test_room_is_counted_in_rows_and_the_last_one_is_let_in_whole():
    room = Room(4)
    assert room.enter(Ticket(3)) and room.enter(Ticket(24))
    assert (room.rows, room.is_open) == (27, False)
    assert not room.enter(Ticket(1))
    room.leave(23)
    assert not room.enter(Ticket(1))
    room.leave(1)
    assert room.is_open and room.enter(Ticket(1))


def test_what_comes_back_is_counted_room_or_not():
    room = Room(2)
    assert room.enter(Ticket(2))
    room.leave(2)
    assert room.enter(Ticket(2))
    room.come_back(2)
    room.leave(2)
    assert (room.rows, room.enter(Ticket(1))) == (2, False)


def test_one_in_the_line_is_let_in_when_there_is_room():
    room = Room(1)
    assert room.enter(Ticket(1))
    waiting = threading.Thread(target=room.wait_and_enter, args=(Ticket(24), never))
    waiting.start()
    wait_until(lambda: room._places.line)
    room.leave(1)
    waiting.join(30.0)
    assert (waiting.is_alive(), room.rows) == (False, 24)


def test_one_that_gives_up_is_no_longer_in_the_way():
    room, told = Room(1), threading.Event()
    assert room.enter(Ticket(1))
    answers = []
    impatient = threading.Thread(target=lambda: answers.append(room.wait_and_enter(Ticket(1), told.is_set)))
    impatient.start()
    wait_until(lambda: room._places.line)
    told.set()
    impatient.join(30.0)
    room.leave(1)
    assert answers == [False] and room.enter(Ticket(1))


def test_many_threads_share_what_there_is():
    room = Room(16)

    def pass_through(rows):
        for _ in range(200):
            assert room.wait_and_enter(Ticket(rows), never)
            room.leave(rows)

    threads = [threading.Thread(target=pass_through, args=(rows,)) for rows in (1, 5, 16, 24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert (room.rows, any(thread.is_alive() for thread in threads)) == (0, False)


@given(st.integers(1, 64), st.lists(st.integers(1, 40), min_size=1, max_size=20), st.data())
def test_a_flood_of_others_does_not_keep_the_line_out(limit, line, data):
    """Others take every place they can get; each of the line is let in after as many rows as the one before it had."""
    places = Places(limit)
    places.enter(Ticket(limit))
    places.line.extend(line_ticket := [Ticket(rows) for rows in line])
    before = 0
    for ticket, rows in zip(line_ticket, line):
        others = 0
        while not places.has_room_for(ticket):
            if places.has_room:
                places.enter(Ticket(1))
                others += 1
            else:
                places.rows -= data.draw(st.integers(1, max(1, places.rows)))
        assert others <= before
        places.enter_from_line()
        before = rows


@given(st.integers(KEPT_FREE, 64), st.lists(st.integers(1, 8), min_size=5, max_size=40))
def test_a_line_that_never_ends_leaves_room_for_others(limit, line):
    """Once the line has had what was free, a place is left to those that cannot wait."""
    places = Places(limit)
    for rows in line:
        places.line.append(ticket := Ticket(rows))
        places.line.append(Ticket(1))  # somebody is always next
        if places.has_room_for(ticket):
            places.enter_from_line()
            places.line.clear()
            if places.rows < limit:
                places.line.append(Ticket(1))
                assert places.has_room
        places.line.clear()


def wait_a_little_and_enter(room, ticket):
    room.wait_and_enter(ticket, iter([False, True]).__next__)


@pytest.mark.parametrize("ask", [Room.enter, wait_a_little_and_enter])
@pytest.mark.parametrize("rows", [0, 8], ids=["empty", "full"])
def test_whoever_is_interrupted_keeps_no_lock_no_place_and_nobody_waiting(ask, rows, monkeypatch):
    monkeypatch.setattr("neuronbert.runner.room.LOOK_S", 0.0)

    def prepare():
        room, ticket = Room(8), Ticket(3)
        assert room.enter(Ticket(rows))
        return (room, ticket), lambda: ask(room, ticket)

    interrupts = 0
    for room, ticket in each_interrupt(prepare):
        assert room.rows == rows + 3 * ticket.is_in
        leaving = threading.Thread(target=room.leave, args=(room.rows,), daemon=True)
        leaving.start()
        leaving.join(30.0)
        assert (leaving.is_alive(), room.rows, list(room._places.line)) == (False, 0, [])
        interrupts += 1
    assert interrupts
