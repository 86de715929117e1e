"""What scores the model's answers while it learns: a judge at a socket, or a reward model in this process.

Both are functions as `trainers.online` wants them, and give None for an answer without a score.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

Messages = list[dict[str, str]]

PATIENCE = 1800.0
"""Seconds that one round's judgements may take."""


def asked_at(socket: Path, ends: Collection[int]) -> Any:
    """Ask whoever listens at a Unix socket, a prompt with all its answers at a time; see `flows.rewards`.

    `ends`: tokens that end an answer; one without any was cut off.
    """
    import aiohttp

    async def judge(
        prompts: Sequence[Messages],
        completions: Sequence[Messages],
        completion_ids: Sequence[Sequence[int]],
        prompt_id: Sequence[str],
        **_: Any,
    ) -> list[float | None]:
        places: dict[str, list[int]] = {}
        for place, name in enumerate(prompt_id):
            places.setdefault(name, []).append(place)
        answers = [
            {"text": said[-1]["content"], "finish_reason": "stop" if ids[-1] in ends else "length"}
            for said, ids in zip(completions, completion_ids, strict=True)
        ]
        asked = [{"prompt_id": name, "answers": [answers[i] for i in own]} for name, own in places.items()]
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as session,
            session.post("http://rewards/score", json=asked) as reply,
        ):
            if reply.status != 200:
                raise RuntimeError(f"the judge could not be asked: {await reply.text()}")
            found = await reply.json()
        scores: list[float | None] = [None] * len(completions)
        for own, given in zip(places.values(), found, strict=True):
            for place, score in zip(own, given, strict=True):
                scores[place] = score
        return scores

    return judge


def ends_of(model: Any, tokenizer: Any) -> set[int]:
    """Tokens after which the model stops."""
    own = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *([own] if isinstance(own, int) else own or [])}


def given_by(folder: Path, batch: int) -> Any:
    """A reward model's raw scores, read at the last token of each conversation as `serving.classifier` reads them.

    `batch`: conversations per forward pass.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    model = model.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def scores(conversations: Sequence[Messages]) -> list[float]:
        rows = [tokenizer.apply_chat_template(each, return_dict=True)["input_ids"] for each in conversations]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(
            device
        )
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        hidden = model.base_model(
            input_ids=ids, attention_mask=mask.long(), use_cache=False
        ).last_hidden_state
        return model.score(hidden[torch.arange(len(rows), device=device), lengths - 1])[:, 0].float().tolist()

    def reward_model(
        prompts: Sequence[Messages], completions: Sequence[Messages], **_: Any
    ) -> list[float | None]:
        every = [[*asked, *said] for asked, said in zip(prompts, completions, strict=True)]
        places = [i for i, said in enumerate(completions) if said[-1]["content"].strip()]
        found: list[float | None] = [None] * len(every)
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            for place, score in zip(part, scores([every[i] for i in part]), strict=True):
                found[place] = score if math.isfinite(score) else None
        return found

    return reward_model
