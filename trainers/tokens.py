"""A job's rows as the tokens its trainer reads."""

from typing import Any

from trainers.conversations import conversations_to_tokens
from trainers.job import Data, Job
from trainers.pretrain import texts_to_tokens
from trainers.prompts import prompts_to_rows
from trainers.rows import Rows, dialogues_to_tokens, pairs_to_tokens, read


def tokens_of(job: Job, tokenizer: Any, data: Data) -> Rows:
    """`data`: the job's training rows, or the held-out ones.

    Raises:
        BadInput: they cannot be read, or none is left.
    """
    match job.kind:
        case "pretrain":
            return texts_to_tokens(read(data), tokenizer, job.settings)
        case "sft":
            held_out = data is not job.train  # never packed, so never longer than a sequence
            settings = job.settings.model_copy(update={"packing": False}) if held_out else job.settings
            return dialogues_to_tokens(read(data), tokenizer, settings)
        case "reward":
            return conversations_to_tokens(read(data), tokenizer, job.settings)
        case "rlhf":
            return prompts_to_rows(read(data), tokenizer, job.settings)
        case "dpo":
            return pairs_to_tokens(read(data), tokenizer, job.settings)
