from hypothesis import given
from hypothesis import strategies as st

from neuronbert.runner.deadlines import FEWEST, Deadlines
from neuronbert.runner.requests import Request


def request(number, deadline):
    return Request(number, (), list, 0.0, deadline=deadline)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans())), st.floats(0, 100))
def test_open_requests_come_out_when_they_are_due(asked, latest):
    requests = [request(number, deadline) for number, (deadline, _) in enumerate(asked)]
    deadlines = Deadlines()
    for each in requests:
        deadlines.add(each)
    for each, (_, over) in zip(requests, asked):
        each.over = over
    still_open = [each for each in requests if not each.over]
    assert deadlines.next == min((each.deadline for each in still_open), default=None)
    due = list(deadlines.due(latest))
    assert sorted(each.id for each in due) == [each.id for each in still_open if each.deadline <= latest]
    assert [each.deadline for each in due] == sorted(each.deadline for each in due)


def test_what_has_its_outcome_is_not_kept_until_its_deadline():
    deadlines = Deadlines()
    still_open = [request(number, 3600.0) for number in range(100)]
    for each in still_open:
        deadlines.add(each)
    for number in range(10_000):
        done = request(number, 86_400.0)
        deadlines.add(done)
        done.over = True
    assert len(deadlines) <= 2 * len(still_open) + 1
    assert len(list(deadlines.due(3600.0))) == 100


def test_without_a_deadline_nothing_is_kept():
    deadlines = Deadlines()
    for number in range(2 * FEWEST):
        deadlines.add(request(number, float("inf")))
    assert (len(deadlines), deadlines.next) == (0, None)
