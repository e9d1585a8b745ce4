"""The verbs by what they are about: each parses its options, calls one function of the package and prints.

``main`` makes one command of them. What a verb needs it imports when it runs, so that ``--help`` loads none of it.
"""
