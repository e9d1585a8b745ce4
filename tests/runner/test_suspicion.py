from neuronbert.runner.suspicion import MAX_DEATHS, NO_BLAME, Doer


def test_two_workers_by_itself_are_proof():
    blame = NO_BLAME
    blame = blame.plus(Doer.WORKER)
    assert not blame.is_proof
    blame = blame.plus(Doer.WORKER)
    assert blame.is_proof


def test_what_anybody_may_have_killed_is_no_proof_for_long():
    blame = NO_BLAME
    for _ in range(MAX_DEATHS[Doer.ANYBODY] - 1):
        blame = blame.plus(Doer.ANYBODY)
    blame = blame.plus(Doer.WORKER)
    assert not blame.is_proof
    blame = blame.plus(Doer.ANYBODY)
    assert blame.is_proof


def test_a_worker_that_the_runner_replaced_is_nobodys_fault():
    blame = NO_BLAME
    for _ in range(20):
        blame = blame.plus(Doer.RUNNER)
    assert blame == NO_BLAME
