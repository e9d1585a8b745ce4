"""OpenVINO on the CPU: the backend, its int8 quantisation, and the rewriting of the quantised graph.

Found by the table of ``backends``; nobody else may import it.
"""
