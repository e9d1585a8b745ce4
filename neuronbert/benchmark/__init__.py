"""Measures an artifact or a server: throughput against latency, accuracy on data, and the reports of both.

``planner`` and ``cli`` may import it. In reading order:

sweep           benchmark_artifact: measure each point of a target, report
sweep_plan      the options, what is left out and why, how long it takes
points          the points that options ask for
targets         what a sweep asks of what it measures
artifact_target an artifact: its points, a runner for each
instances       the instance type of a point: its price, its room
missing_shapes  static shapes compiled on demand
measure         one point of it: a runner under a load
server_target   a server: its points, connections for each
served_model    what the server says of its model
request_bodies  inputs in the words of each protocol
connections     the client over HTTP
asked_inputs    what is asked, and in which order
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
