"""Pairs to the whole conversations a reward model scores.

{"chosen_ids": [1, 9690, …, 2], "rejected_ids": [1, 9690, …, 2], "length": 61, "margin": 0.4}
"""

from typing import Any

from datasets import Dataset, Value

from trainers.guards import BadInput
from trainers.rows import Rows, Turn, answered, collect, dropped, empty, ids_of, pair_of
from trainers.settings import RewardSettings


def conversations_to_tokens(pairs: Dataset, tokenizer: Any, settings: RewardSettings) -> Rows:
    """Columns `chosen_ids` and `rejected_ids`, each with its prompt, `length`, `margin` where it counts, and what was
    dropped. Nothing is cut: the end of a conversation is where it is scored.

    Raises:
        BadInput: `settings.margin` is above 0 and the rows have no column `margin`.
    """
    if settings.margin and "margin" not in pairs.column_names:
        raise BadInput(
            f"margin={settings.margin:g} and the pairs have no column 'margin' but {sorted(pairs.column_names)}; set "
            "margin: 0, or give pairs with the difference of their scores"
        )

    def row_to_tokens(row: dict[str, Any]) -> Turn:
        prompt, chosen, rejected = pair_of(row)
        if not (answered(chosen) and answered(rejected)):
            return dropped("no_answer")
        if empty(chosen) or empty(rejected):
            return dropped("empty_answer")
        if chosen == rejected:
            return dropped("identical")
        chosen_ids, rejected_ids = (ids_of(tokenizer, prompt + answer) for answer in (chosen, rejected))
        if max(len(chosen_ids), len(rejected_ids)) > settings.max_length:
            return dropped("too_long")
        made: Turn = {"chosen_ids": chosen_ids, "rejected_ids": rejected_ids, "dropped": "", "notes": []}
        if settings.margin:
            if row["margin"] is None:
                return dropped("no_margin")
            made["margin"] = settings.margin * row["margin"]
        return made | {"length": len(chosen_ids) + len(rejected_ids)}

    others = {"margin": Value("float32")} if settings.margin else {}
    return collect(pairs, row_to_tokens, ("chosen_ids", "rejected_ids"), others)
