"""Go on pretraining a model on plain text: documents to sequences of one length, every token of them trained.

    documents  [BOS] Tea is … [EOS]  [BOS] Rain falls … [EOS]
    sequences  [BOS] Tea is … [EOS] [BOS] Rain | falls … [EOS]

A document may begin in one sequence and go on in the next, and sees what stands before it, as models of this kind are
pretrained (arXiv 2005.14165, section B). The last sequence is shorter; no token is left out.
"""

from typing import Any

import pyarrow as pa
from datasets import Dataset

from trainers.guards import BadInput
from trainers.rows import Rows, Turn, collect, dropped
from trainers.settings import PretrainSettings


def texts_to_tokens(texts: Dataset, tokenizer: Any, settings: PretrainSettings) -> Rows:
    """Columns `input_ids`, `labels` (the same) and `length`; `rows` and `kept` count documents.

    BOS is there where the tokenizer begins every text with it; EOS always ends a document.

    Raises:
        BadInput: there is no such column of texts, or the tokenizer has no EOS.
    """
    if settings.column not in texts.column_names:
        raise BadInput(
            f"column={settings.column!r} is not there; the rows have {sorted(texts.column_names)}; name one of texts"
        )
    if tokenizer.eos_token_id is None:
        raise BadInput("the tokenizer has no eos_token, so documents would run into each other; set it")
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    before = [tokenizer.bos_token_id] if begins else []

    def row_to_tokens(row: dict[str, Any]) -> Turn:
        text = row[settings.column]
        if not isinstance(text, str) or not text.strip():
            return dropped("empty_text")
        ids = [*before, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        return {"input_ids": ids, "length": len(ids), "dropped": "", "notes": []}

    documents, counts = collect(texts, row_to_tokens, ("input_ids",))
    chunks = documents.with_format("arrow")[:]["input_ids"].chunks
    blocks = in_blocks(pa.concat_arrays([chunk.flatten() for chunk in chunks]), settings.max_length)
    made = pa.table({"input_ids": blocks, "labels": blocks, "length": blocks.value_lengths()})
    return Rows(Dataset(made), counts | {"sequences": len(made)})


def in_blocks(tokens: pa.Array, length: int) -> pa.ListArray:
    """One list per `length` tokens. A last one of a single token, which nothing could be learned from, joins the one
    before it short of a token: sequences of `length` - 1 and 2."""
    ends = [*range(length, len(tokens), length), len(tokens)]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        ends[-2] -= 1
    return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), tokens)
