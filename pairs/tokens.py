"""Rows under a real tokenizer: what is cut off, and whether the chat template keeps prompt and ending."""

from collections import Counter
from collections.abc import Callable, Sequence

from pairs.texts import dicts
from records.base import Strict
from records.ids import chance
from records.schema import Message, Pair

Encode = Callable[[list[dict[str, str]]], list[int]]
"""Messages to token ids: `lambda m: tokenizer.apply_chat_template(m, return_dict=False)`."""
Decode = Callable[[list[int]], str]


class TokenCheck(Strict):
    """Counts of dialogues: two per pair, chosen and rejected."""

    dialogues: int
    """Looked at; a seeded sample of the pairs when there are more than asked for."""
    max_length: int | None
    """Tokens a trainer keeps."""
    too_long: int
    """Longer than `max_length`: the trainer cuts or drops them."""
    mean_tokens: float
    longest: int
    broken_prefixes: int
    """The tokens of the prompt alone are not the first tokens of the dialogue: the loss mask would be off."""
    endings: int
    """Different last tokens. One is right: a template that ends every answer the same way teaches the model
    to stop."""
    lost_texts: int | None
    """Answers that are not in the decoded dialogue; None without a decoder."""


def check_tokens(
    pairs: Sequence[Pair],
    encode: Encode,
    decode: Decode | None = None,
    max_length: int | None = None,
    sample: int = 1000,
) -> TokenCheck:
    if len(pairs) > sample:
        ranks = [(chance(0, "tokens", p.chosen.id, p.rejected.id).random(), i) for i, p in enumerate(pairs)]
        pairs = [pairs[i] for _, i in sorted(ranks)[:sample]]
    lengths: list[int] = []
    endings: Counter[int] = Counter()
    broken = lost = 0
    for pair in pairs:
        start = encode(dicts(pair.prompt.messages))
        for answer in (pair.chosen.text, pair.rejected.text):
            ids = encode(dicts((*pair.prompt.messages, Message(role="assistant", content=answer))))
            lengths.append(len(ids))
            broken += ids[: len(start)] != start
            endings.update(ids[-1:])
            lost += decode is not None and answer.strip() not in decode(ids)
    return TokenCheck(
        dialogues=len(lengths),
        max_length=max_length,
        too_long=sum(length > max_length for length in lengths) if max_length else 0,
        mean_tokens=sum(lengths) / len(lengths) if lengths else 0.0,
        longest=max(lengths, default=0),
        broken_prefixes=broken,
        endings=len(endings),
        lost_texts=None if decode is None else lost,
    )
