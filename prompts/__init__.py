"""What is asked: text as data, and the sources prompts come from. Start at `prompts/load.py`."""
