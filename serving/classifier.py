"""A sequence classifier in this process: conversations in, raw scores out, one at a time, in a thread.

The conversation is tokenized once, by the model's own chat template, and nothing is added to it: a second BOS token
costs a reward model a point of accuracy and more. Nothing is padded, so the score is read at the last token, as vLLM
reads it, even where a tokenizer pads with a token that conversations hold.
"""

import asyncio
from typing import Any

from records.schema import Usage
from serving.chat import Reply, Request
from serving.errors import RequestFailed, WrongModel
from serving.settings import Classifier


class ClassifierTransport:
    """Loads at the first request."""

    def __init__(self, name: str, settings: Classifier) -> None:
        self.name, self.settings = name, settings
        self._model: Any = None
        self._tokenizer: Any = None
        self._one = asyncio.Lock()

    async def ask(self, request: Request) -> Reply:
        if not request.score:
            raise RequestFailed(
                "rejected_request", f"models.{self.name} is a classifier: it scores, it does not write"
            )
        async with self._one:
            return await asyncio.to_thread(self._score, list(request.messages))

    async def close(self) -> None:
        self._model = self._tokenizer = None

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from serving.weights import resolve_transformers

        own = self.settings
        folder = str(resolve_transformers(own.model, own.revision))
        device = own.device if own.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=own.dtype)
        except (OSError, ValueError) as error:
            raise WrongModel(f"models.{self.name}: {folder} is no sequence classifier: {error}") from error
        if not self._tokenizer.chat_template:
            raise WrongModel(
                f"models.{self.name}: {folder} has no chat template, so no conversation can be scored"
            )
        model.config.pad_token_id = None  # else the score is read before the last token wherever that pads
        self._model = model.to(device).eval()

    def tokens(self, messages: list[dict[str, str]]) -> list[int]:
        """The conversation's token ids, as the model reads them.

        Raises:
            WrongModel: they open with two BOS tokens, or with none where the tokenizer gives every text one.
        """
        read = self._tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
        ids: list[int] = list(read["input_ids"])
        check_bos(ids, self._tokenizer.bos_token_id, list(self._tokenizer("a")["input_ids"]), self.name)
        return ids

    def _score(self, messages: list[dict[str, str]]) -> Reply:
        import torch

        if self._model is None:
            self._load()
        model: Any = self._model
        ids = self.tokens(messages)
        longest = getattr(model.config, "max_position_embeddings", None)
        if longest is not None and len(ids) > longest:
            raise RequestFailed("too_long", f"{len(ids)} tokens, models.{self.name} reads {longest}")
        with torch.inference_mode():
            read = torch.tensor([ids], device=model.device)
            logits = model(input_ids=read, attention_mask=torch.ones_like(read)).logits[0].float()
        return Reply((), Usage(prompt_tokens=len(ids), requests=1), scores=tuple(logits.tolist()))


def check_bos(ids: list[int], bos: int | None, plain: list[int], name: str) -> None:
    """Whether a conversation opens with exactly the BOS that a plain text opens with.

    `plain`: the ids the tokenizer gives a plain text.
    """
    if bos is None:
        return
    if ids[:2] == [bos, bos]:
        raise WrongModel(
            f"models.{name}: its chat template opens with two BOS tokens; the scores would be wrong"
        )
    if plain[:1] == [bos] and ids[:1] != [bos]:
        raise WrongModel(f"models.{name}: its tokenizer begins with BOS and its chat template does not")
