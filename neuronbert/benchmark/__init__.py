"""Measures an artifact: throughput against latency through the runner, accuracy on data, and the reports of both.

``planner`` and ``cli`` may import it.
"""
