"""Prompts as online trainers read them: messages, which TRL renders with the tokenizer's template."""

from typing import Any

from datasets import Dataset, Value

from trainers.guards import BadInput
from trainers.online_settings import RLHFSettings
from trainers.rows import Rows, Turn, collect, dropped, ids_of


def prompts_to_rows(prompts: Dataset, tokenizer: Any, settings: RLHFSettings) -> Rows:
    """Columns `prompt` (messages), `prompt_id` and `length`, and what was dropped."""
    room = settings.max_length - settings.max_tokens

    def row_to_prompt(row: dict[str, Any]) -> Turn:
        prompt = row["prompt"]
        if not prompt or prompt[-1]["role"] != "user":
            return dropped("no_question")
        length = len(ids_of(tokenizer, prompt, generation=True))
        if length > room:
            return dropped("prompt_too_long")
        return {"prompt": prompt, "prompt_id": row["prompt_id"], "length": length, "dropped": "", "notes": []}

    if not {"prompt", "prompt_id"} <= set(prompts.column_names):
        raise BadInput(
            f"the rows have {sorted(prompts.column_names)}; columns prompt and prompt_id are wanted"
        )
    features = {"prompt": prompts.features["prompt"], "prompt_id": Value("string")}
    made = collect(prompts, row_to_prompt, (), features)
    if len(made.tokens) < settings.prompts_per_round:
        raise BadInput(
            f"{len(made.tokens)} prompts are less than the {settings.prompts_per_round} of one round (batch="
            f"{settings.batch} x rollout={settings.rollout} / answers={settings.answers}); lower batch, or give more"
        )
    return made
