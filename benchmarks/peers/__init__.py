"""Other makers of preference data beside this project: the same prompts, simulated servers and machine."""
