"""Processes, signals, memory and the machine."""
