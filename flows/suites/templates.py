"""Whether a server asks its model as it was trained: what the chat template makes of a dialogue, before it is asked.

A wrong template is silent and expensive: a base model has none, and llama.cpp then takes ChatML. Where the recipe names
one, ours renders the dialogue, else the tokenizer's in the model's folder does, and the server must say the same.
"""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from prompts.chat import chat_template, render_chat
from serving.endpoints import key_of
from serving.engine import Engine
from serving.errors import WrongModel
from serving.settings import Endpoint, LlamaCpp, Model, Vllm

EOS = "\x00"
"""Stands for the model's end of a turn where it is not known here."""
UNKNOWN = "the server does not say how it renders a dialogue: not checked"


def dialogue(system: str | None) -> list[dict[str, str]]:
    """Two turns; with a system turn where the models are asked with one, since some templates refuse it."""
    turns = [
        {"role": "user", "content": "Hello! Who wrote {{this}}?"},
        {"role": "assistant", "content": "Bonjour,  you did."},
        {"role": "user", "content": "How are you?"},
    ]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


async def check_template(name: str, model: Model, engine: Engine, system: str | None) -> str:
    """What the server makes of a dialogue, or that it does not say.

    Raises:
        WrongModel: it renders otherwise than the recipe's template, or than the tokenizer's in the model's folder.
    """
    messages = dialogue(system)
    try:
        url = await engine.address(name)
    except WrongModel:  # asked through a provider's client
        return UNKNOWN
    key = key_of(name, model) if isinstance(model, Endpoint) else None
    known = model.model if isinstance(model, Endpoint) else name
    got = await rendered(url, known, messages, key)
    if got is None:
        return UNKNOWN
    whose, wanted = expected(model, messages)
    if wanted is not None and not same(wanted, got):
        shown = wanted.replace(EOS, "<end of turn>")
        raise WrongModel(
            f"{name} is asked otherwise than {whose} says, so its answers would say nothing. It renders {got!r}, "
            f"wanted {shown!r}; set models.{name}.template to what it was trained with"
        )
    return got


async def rendered(
    url: str, model: str, messages: list[dict[str, str]], key: str | None = None
) -> str | None:
    """The dialogue as the server's template writes it, up to where the answer begins; None where it does not say."""
    root = url.removesuffix("/v1")
    headers = {"authorization": f"Bearer {key}"} if key else None
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        if said := await _post(session, f"{root}/apply-template", {"messages": messages}):  # llama.cpp
            return said["prompt"] if isinstance(said.get("prompt"), str) else None
        asked = {"model": model, "messages": messages, "add_generation_prompt": True}
        if said := await _post(session, f"{root}/tokenize", asked):  # vLLM
            tokens = {"model": model, "tokens": said.get("tokens")}
            back = await _post(session, f"{root}/detokenize", tokens)
            return back["prompt"] if back and isinstance(back.get("prompt"), str) else None
    return None


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any] | None:
    try:
        async with session.post(url, json=body) as reply:
            found = await reply.json(content_type=None) if reply.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def expected(model: Model, messages: list[dict[str, str]]) -> tuple[str, str | None]:
    """Who says how the dialogue should read, and how; None where nobody here knows."""
    known = special_tokens(Path(model.model))
    eos, bos = known.get("eos_token", EOS), known.get("bos_token", "")
    if isinstance(model, LlamaCpp | Vllm) and model.template:
        text, whose = chat_template(model.template), f"template {model.template!r}"
    elif (own := tokenizer_template(Path(model.model))) is not None:
        text, whose = own, f"the tokenizer in {model.model}"
    else:
        return "", None
    return whose, render_chat(messages, text, add_generation_prompt=True, eos_token=eos, bos_token=bos)


def tokenizer_template(weights: Path) -> str | None:
    """Of a model's folder, or of that in which its file lies; None where there is none."""
    if (file := _folder(weights) / "chat_template.jinja").is_file():
        return file.read_text(encoding="utf-8")
    found = _config(weights).get("chat_template")
    return found if isinstance(found, str) else None


def special_tokens(weights: Path) -> dict[str, str]:
    """The tokenizer's `eos_token` and `bos_token`, where its folder is here."""
    config = _config(weights)
    each = {name: config.get(name) for name in ("eos_token", "bos_token")}
    texts = {k: v.get("content") if isinstance(v, dict) else v for k, v in each.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _folder(weights: Path) -> Path:
    return weights.parent if weights.is_file() else weights


def _config(weights: Path) -> dict[str, Any]:
    file = _folder(weights) / "tokenizer_config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def same(wanted: str, got: str) -> bool:
    """Equal but for spaces, which tokenizers add when they write tokens out, a BOS, and what ends a turn where it is
    not known: that is one text, the same everywhere."""
    wanted, got = ("".join(text.split()) for text in (wanted, got))
    first, *rest = map(re.escape, wanted.split(EOS))
    end = r"(?P<end>[^\s{}]{1,40}?)"
    pattern = first + "".join((end if i == 0 else r"(?P=end)") + part for i, part in enumerate(rest))
    return re.fullmatch(r"(?:<[^<>]{1,30}>)?" + pattern, got) is not None
