"""How records lie in Parquet: one explicit Arrow schema per stage, and the way there and back."""

import json
from typing import Any

import pyarrow as pa

from records.schema import Prompt

USAGE = pa.struct(
    [
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("requests", pa.int64()),
    ]
)
COMPLETION = pa.struct(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("model", pa.string()),
        ("sample", pa.int32()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("usage", USAGE),
        ("principle", pa.string()),
        ("principle_text", pa.string()),
        ("seed", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)
JUDGEMENT = pa.struct(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("completion_id", pa.string()),
        ("judge", pa.string()),
        ("aspect", pa.string()),
        ("status", pa.string()),
        ("score", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("distribution", pa.map_(pa.string(), pa.float64())),
        ("off_scale", pa.float64()),
        ("spread", pa.float64()),
        ("raw", pa.string()),
        ("replies", pa.string()),
        ("detail", pa.string()),
        ("position", pa.int32()),
        ("usage", USAGE),
        ("fingerprint", pa.string()),
    ]
)
DROPPED = pa.struct(
    [("id", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
PROMPT = pa.struct(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("source", pa.string()),
        ("meta", pa.string()),
    ]
)
ANSWERS = {"prompts": PROMPT, "completions": COMPLETION, "judgements": JUDGEMENT}
"""Stage -> the type of one answer."""


def schema_of(stage: str) -> pa.Schema:
    """A row per key: its answers, or why it has none."""
    return pa.schema([("key", pa.string()), ("answers", pa.list_(ANSWERS[stage])), ("dropped", DROPPED)])


def plain_prompt(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a row; `meta` is free and lies as JSON."""
    row = prompt.model_dump(mode="json")
    return row | {"meta": json.dumps(row["meta"], sort_keys=True, ensure_ascii=False)}


def to_prompt(row: dict[str, Any]) -> Prompt:
    return Prompt.model_validate(row | {"meta": json.loads(row["meta"])})
