"""Measurements: a simulated model server, and programs that print a table and end with one JSON object."""
