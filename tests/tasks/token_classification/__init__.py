"""Tests of neuronbert.tasks.token_classification: a package, for other tasks' tests have files of the same names."""
