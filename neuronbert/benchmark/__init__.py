"""Measures an artifact: throughput against latency through the runner, accuracy on data, and the reports of both.

``planner`` and ``cli`` may import it. In reading order:

sweep           benchmark_artifact: plan the points, measure each, report
sweep_plan      which points there will be, what is left out and why, how long it takes
points          the points that options ask for
instances       the instance type of a point: its price, its room
missing_shapes  static shapes compiled on demand
measure         one point: a runner under a load
load, loadgen   the clients: our own, and MLPerf LoadGen
statistics      percentiles, intervals, steadiness
report          the document
report_file     the document read back, with its schema
columns, naming what columns and points are called for a person; which point is the best
tables          what a report says, as tables and facts
forms, page     its four forms: JSON, CSV, Markdown, one HTML page
comparison      two documents
resume          the points of an unfinished sweep
evaluation      accuracy
"""
