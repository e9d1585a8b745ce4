"""What tools/measure_runner and tools/measure_simulation measure: one module for each kind of measurement."""
