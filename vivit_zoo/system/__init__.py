"""Processes, signals, memory, the machine: what has nothing to do with video."""
