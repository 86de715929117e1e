"""The columns of the dataset, and a pair, an SFT row or a prompt as a row of them.

A row of train_prefs (shortened):

    {"prompt": "Why …?", "prompt_id": "9b3f…", "score_chosen": 4.1, "score_rejected": 2.0, "margin": 2.1,
     "chosen": [{"role": "user", "content": "Why …?"}, {"role": "assistant", …}], "rejected": […],
     "messages": […], "source": "quickstart", "policy": "best_vs_random", "chosen_model": "mistral", …}
"""

from typing import Any

from pairs.best_of_n import SftRow
from pairs.texts import dicts
from records.schema import Completion, Message, Pair, Prompt

Row = dict[str, Any]

TEXT, NUMBER, DIALOGUE = "string", "float64", [("role", "string"), ("content", "string")]
COLUMNS: dict[str, Any] = {
    "prompt": TEXT,
    "prompt_id": TEXT,
    "chosen": DIALOGUE,
    "rejected": DIALOGUE,
    "messages": DIALOGUE,
    "score_chosen": NUMBER,
    "score_rejected": NUMBER,
    "source": TEXT,
    "policy": TEXT,
    "margin": NUMBER,
    "chosen_model": TEXT,
    "rejected_model": TEXT,
    "chosen_id": TEXT,
    "rejected_id": TEXT,
    "n": "int64",
    "winner": "int64",
    "lead": NUMBER,
    "round": "int64",
    "scores": [("completion_id", TEXT), ("model", TEXT), ("score", NUMBER)],
}
VIEWS: dict[str, dict[str, Any]] = {
    "trl": {"prompt": DIALOGUE, "chosen": DIALOGUE, "rejected": DIALOGUE, "completion": DIALOGUE},
    "trl_sft": {"messages": DIALOGUE},
    "trl_prompts": {"prompt": DIALOGUE},
}


def pair_row(pair: Pair) -> Row:
    chosen = dicts(_dialogue(pair.prompt, pair.chosen))
    return _prompt_columns(pair.prompt) | {
        "chosen": chosen,
        "rejected": dicts(_dialogue(pair.prompt, pair.rejected)),
        "messages": chosen,
        "score_chosen": pair.score_chosen,
        "score_rejected": pair.score_rejected,
        "source": pair.prompt.source,
        "policy": pair.policy,
        "margin": pair.margin,
        "chosen_model": pair.chosen.model,
        "rejected_model": pair.rejected.model,
        "chosen_id": pair.chosen.id,
        "rejected_id": pair.rejected.id,
        "n": None,
        "winner": None,
        "lead": None,
        "round": None,
        "scores": None,
    }


def sft_row(row: SftRow, pair: Pair | None) -> Row:
    """The winner's dialogue; what it was preferred to where `pair` has the same chosen."""
    same = pair_row(pair) if pair and pair.chosen.id == row.completion.id else {}
    messages = dicts(row.messages)
    return (
        _empty_row(row.prompt)
        | same
        | {
            "chosen": messages,
            "messages": messages,
            "score_chosen": row.score,
            "chosen_model": row.completion.model,
            "chosen_id": row.completion.id,
            "n": row.n,
            "winner": row.winner,
            "lead": row.lead,
            "round": row.round,
            "scores": [scored.model_dump() for scored in row.scores],
        }
    )


def gen_row(prompt: Prompt, pair: Pair | None) -> Row:
    """The prompt alone as `messages`, so that they end with the user's turn."""
    return (pair_row(pair) if pair else _empty_row(prompt)) | {"messages": dicts(prompt.messages)}


def _dialogue(prompt: Prompt, completion: Completion) -> tuple[Message, ...]:
    return (*prompt.messages, Message(role="assistant", content=completion.text))


def _prompt_columns(prompt: Prompt) -> Row:
    return {"prompt": prompt.text, "prompt_id": prompt.id}


def _empty_row(prompt: Prompt) -> Row:
    return dict.fromkeys(COLUMNS) | _prompt_columns(prompt) | {"source": prompt.source}


def trl_row(pair: Pair) -> Row:
    """`completion` is the chosen answer again: TRL's SFTTrainer reads it, its DPOTrainer does not."""
    chosen = [{"role": "assistant", "content": pair.chosen.text}]
    return {
        "prompt": dicts(pair.prompt.messages),
        "completion": chosen,
        "chosen": chosen,
        "rejected": [{"role": "assistant", "content": pair.rejected.text}],
    }
