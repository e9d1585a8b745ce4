"""Tests of neuronbert.tasks.text_classification: a package, for other tasks' tests have files of the same names."""
