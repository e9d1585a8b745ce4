"""Apache TVM on the CPU: a model for each shape, its schedules found by measuring.

backend.py is what the table of backends names. It exports in a child process, compile_job.py, which reads the model
(program.py) and measures schedules (tuning.py, spaces.py) for the CPU that cpu.py describes.
"""
