"""Prompts in, models out: the Prefect flows and the command `zephyr`. The only folder that imports Prefect."""
