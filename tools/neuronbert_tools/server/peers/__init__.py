"""Other servers with the same echo model: a module for each, run in the environment that has them (``processes``)."""
