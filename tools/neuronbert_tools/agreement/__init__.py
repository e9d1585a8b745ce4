"""The parts of tools/stress_agreement: what is loaded (subjects.py), and how its answers are checked (episode.py)."""
