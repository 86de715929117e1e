"""The commands of `zephyr`, a file for each subject. What they share is in `console`; `flows/cli.py` joins them."""
