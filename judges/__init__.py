"""Judges: one per file. Start at `judges/base.py`."""
