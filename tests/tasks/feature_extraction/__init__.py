"""Tests of neuronbert.tasks.feature_extraction: a package, for other tasks' tests have files of the same names."""
