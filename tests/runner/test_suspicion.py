from neuronbert.runner.suspicion import MAX_DEATHS, Blame, Doer


def test_two_workers_by_itself_are_proof():
    blame = Blame()
    blame.add(Doer.WORKER)
    assert not blame.is_proof
    blame.add(Doer.WORKER)
    assert blame.is_proof


def test_what_anybody_may_have_killed_is_no_proof_for_long():
    blame = Blame()
    for _ in range(MAX_DEATHS[Doer.ANYBODY] - 1):
        blame.add(Doer.ANYBODY)
    blame.add(Doer.WORKER)
    assert not blame.is_proof
    blame.add(Doer.ANYBODY)
    assert blame.is_proof


def test_a_worker_that_the_runner_replaced_is_nobodys_fault():
    blame = Blame()
    for _ in range(20):
        blame.add(Doer.RUNNER)
    assert blame == Blame()
