"""Damaged inputs for every reader: a result or the package's own error, and nothing else.

A few inputs for each reader run in the default tests, always the same ones; `HYPOTHESIS_PROFILE=explore` takes many
new ones.
"""
