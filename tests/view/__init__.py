"""The viewer and its labels."""
