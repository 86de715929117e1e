"""Rows to tokens: one renderer for what is trained, what is guarded and what is counted.

A pair, as it comes and as the trainer reads it:

    {"prompt": [user: "Explain tea …"], "chosen": [assistant: "Tea is …"], "rejected": [assistant: "Well, …"]}
    {"prompt_ids": [1, 9690, …], "chosen_ids": [85, 347, …, 2, 198], "rejected_ids": […], "length": 61}

The tokens are those TRL would make; it drops over-long rows and keeps identical pairs without a word, here
they are counted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from trainers.guards import BadInput
from trainers.job import Data
from trainers.settings import DPOSettings, SFTSettings

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Messages = list[dict[str, str]]
Turn = dict[str, Any]


class Rows(NamedTuple):
    tokens: "Dataset"
    counts: dict[str, Any]
    """`rows`, `kept`, `tokens`, `dropped` (reason -> rows) and `changed` (what was cut -> rows)."""


def read(data: Data) -> "Dataset":
    """The rows of files, or of one split of a dataset folder."""
    from datasets import Dataset, concatenate_datasets, load_dataset

    missing = [str(path) for path in data.files if not path.is_file()]
    if missing or (data.folder and not data.folder.is_dir()):
        raise BadInput(
            f"data {missing or str(data.folder)!r} is not there; files or a dataset folder are wanted"
        )
    if data.folder is None:
        return concatenate_datasets([Dataset(_table(path)) for path in data.files])
    try:
        loaded = load_dataset(str(data.folder), data.config, split=data.split)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise BadInput(
            f"no split {data.split!r} (config {data.config!r}) in {str(data.folder)!r}: {error}"
        ) from error
    assert isinstance(loaded, Dataset)
    return loaded


def _table(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.json
    import pyarrow.parquet

    if path.suffix == ".txt":
        return pa.table({"text": [path.read_text(encoding="utf-8")]})
    try:
        return (
            pyarrow.json.read_json(path)
            if path.suffix in (".jsonl", ".json")
            else pyarrow.parquet.read_table(path)
        )
    except pa.ArrowInvalid as error:
        raise BadInput(
            f"{str(path)!r} cannot be read: {error}; Parquet, JSON lines or .txt is wanted"
        ) from error


def pair_of(row: dict[str, Any]) -> tuple[Messages, Messages, Messages]:
    """Prompt, chosen, rejected as messages, from the explicit or from the published schema.

    Explicit: three lists of messages. Published (ultrafeedback_binarized): `chosen` and `rejected` are whole
    conversations, `prompt` is a string or absent; what both share at the start is the prompt.
    """
    chosen, rejected = _conversation(row, "chosen"), _conversation(row, "rejected")
    prompt = row.get("prompt")
    if _is_conversation(prompt):
        start = _plain(prompt)
        if chosen[: len(start)] == start and rejected[: len(start)] == start:
            return start, chosen[len(start) :], rejected[len(start) :]
        return start, chosen, rejected
    if prompt is not None and not isinstance(prompt, str):
        raise BadInput(
            f"column 'prompt' is {_shown(prompt)}; a list of messages, or its text beside whole dialogues"
        )
    shared = _shared(chosen[:-1], rejected[:-1])
    if not shared:
        raise BadInput(
            f"chosen and rejected share no first message and prompt={_shown(prompt)} is no list of messages, "
            "so the prompt is not known; give `prompt`, `chosen`, `rejected` as lists of messages"
        )
    return chosen[:shared], chosen[shared:], rejected[shared:]


def dialogue_of(row: dict[str, Any]) -> Messages:
    """A dialogue from `messages`, or from `prompt` and `completion`.

    A `prompt` string beside `messages` (ultrachat_200k) only repeats the first turn and is left out.
    """
    if _is_conversation(row.get("messages")):
        return _plain(row["messages"])
    prompt, completion = row.get("prompt"), row.get("completion")
    if _is_conversation(prompt) and _is_conversation(completion):
        return _plain(prompt) + _plain(completion)
    raise BadInput(
        f"a row has columns {sorted(row)} with messages={_shown(row.get('messages'))}; "
        "`messages`, or `prompt` and `completion`, as lists of messages are wanted"
    )


def pairs_to_tokens(pairs: "Dataset", tokenizer: Any, settings: DPOSettings) -> Rows:
    """Columns `prompt_ids`, `chosen_ids`, `rejected_ids`, `length`, which models wrote the answers where the rows say
    so, and what was dropped."""
    from datasets import Value

    written = {
        name: Value("string") for name in ("chosen_model", "rejected_model") if name in pairs.column_names
    }

    def row_to_tokens(row: dict[str, Any]) -> Turn:
        notes: list[str] = []
        prompt, chosen, rejected = pair_of(row)
        if not (answered(chosen) and answered(rejected)):
            return dropped("no_answer")
        if empty(chosen) or empty(rejected):
            return dropped("empty_answer")
        if chosen == rejected:
            return dropped("identical")
        start = ids_of(tokenizer, prompt, generation=True)
        whole = [ids_of(tokenizer, prompt + answer) for answer in (chosen, rejected)]
        shared = min(_shared(start, ids) for ids in whole)
        notes += ["prompt_not_a_prefix"] * (shared < len(start))
        prompt_ids, answers = start[:shared], [ids[shared:] for ids in whole]
        notes += ["no_end_token"] * any(tokenizer.eos_token_id not in ids for ids in answers)
        if settings.max_prompt and len(prompt_ids) > settings.max_prompt:
            prompt_ids = prompt_ids[-settings.max_prompt :]
            notes.append("prompt_cut")
        room = settings.max_length - len(prompt_ids)
        if room <= 0:
            return dropped("prompt_too_long")
        notes += [
            f"{name}_cut"
            for name, ids in zip(("chosen", "rejected"), answers, strict=True)
            if len(ids) > room
        ]
        chosen_ids, rejected_ids = (ids[:room] for ids in answers)
        if chosen_ids == rejected_ids:
            return dropped("identical_after_truncation")
        length = 2 * len(prompt_ids) + len(chosen_ids) + len(rejected_ids)
        ids = {"prompt_ids": prompt_ids, "chosen_ids": chosen_ids, "rejected_ids": rejected_ids}
        return {
            **ids,
            **{name: row[name] for name in written},
            "length": length,
            "dropped": "",
            "notes": notes,
        }

    return collect(pairs, row_to_tokens, ("prompt_ids", "chosen_ids", "rejected_ids"), written)


def dialogues_to_tokens(dialogues: "Dataset", tokenizer: Any, settings: SFTSettings) -> Rows:
    """Columns `input_ids`, `labels` (-100 where nothing is trained), `length`, and what was dropped."""

    def row_to_tokens(row: dict[str, Any]) -> Turn:
        notes: list[str] = []
        messages = dialogue_of(row)
        if not answered(messages):
            return dropped("no_answer")
        if empty(messages):
            return dropped("empty_answer")
        text = _text(tokenizer, messages)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], []
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        for turn in turns if settings.loss == "assistant" else turns[-1:]:
            before = _text(tokenizer, messages[:turn], generation=True)
            upto = _text(tokenizer, messages[: turn + 1])
            if not (text.startswith(before) and text.startswith(upto)):
                notes.append("prompt_not_a_prefix")
            spans.append((_shared(before, text), len(upto)))
        inside = [any(a < end <= b for a, b in spans) for _, end in encoded["offset_mapping"]]
        stops = [
            end
            for t, (_, end) in zip(ids, encoded["offset_mapping"], strict=True)
            if t == tokenizer.eos_token_id
        ]
        notes += ["no_end_token"] * (not all(any(a < stop <= b for stop in stops) for a, b in spans))
        labels = (
            ids if settings.loss == "all" else [t if m else -100 for t, m in zip(ids, inside, strict=True)]
        )
        if len(ids) > settings.max_length and settings.packing != "wrapped":
            notes.append("cut")
            ids, labels = ids[: settings.max_length], labels[: settings.max_length]
        if all(label == -100 for label in labels[1:]):
            return dropped("prompt_too_long")
        return {"input_ids": ids, "labels": labels, "length": len(ids), "dropped": "", "notes": notes}

    return collect(dialogues, row_to_tokens, ("input_ids", "labels"))


def collect(
    dataset: "Dataset",
    row_to_tokens: Callable[[dict[str, Any]], Turn],
    columns: tuple[str, ...],
    others: dict[str, Any] | None = None,
) -> Rows:
    """Rows through `row_to_tokens`, without those it dropped, and counts.

    `columns`: the tokens' columns. `others`: further columns, with their feature.

    Raises:
        BadInput: no row is left, or the template is at fault in most of them.
    """
    from datasets import Features, List, Value

    others = others or {}

    if not len(dataset):
        raise BadInput("the data has no rows")
    made = dataset.map(
        lambda row: {column: [] for column in columns} | dict.fromkeys(others) | row_to_tokens(row),
        remove_columns=dataset.column_names,
        features=Features(
            {column: List(Value("int32")) for column in columns}
            | others
            | {"length": Value("int32"), "dropped": Value("string"), "notes": List(Value("string"))}
        ),
        num_proc=min(8, os.cpu_count() or 1) if len(dataset) > MANY else None,
        load_from_cache_file=False,
    )
    lost = Counter(reason for reason in made["dropped"] if reason)
    changed = Counter(note for notes in made["notes"] for note in set(notes))
    kept = made.select([i for i, reason in enumerate(made["dropped"]) if not reason])
    kept = kept.remove_columns(["dropped", "notes"])
    if not len(kept):
        raise BadInput(f"no row is left: {dict(lost)} of {len(dataset)} rows were dropped")
    for note, (what, fix) in TEMPLATE_FAULTS.items():
        if changed[note] * 2 > len(kept):
            raise BadInput(f"{what} in {changed[note]} of {len(kept)} rows under this chat template; {fix}")
    counts = {
        "rows": len(dataset),
        "kept": len(kept),
        "tokens": sum(kept["length"]),
        "dropped": dict(sorted(lost.items())),
        "changed": dict(sorted(changed.items())),
    }
    return Rows(kept, counts)


MANY = 20_000
"""Rows from which on several processes tokenize."""

TEMPLATE_FAULTS = {
    "prompt_not_a_prefix": (
        "the rendered prompt is not the start of the rendered prompt and answer",
        "the model would train on another context than it is asked in; use a template that renders both "
        "alike",
    ),
    "no_end_token": (
        "there is no end-of-sequence token after the assistant's turn",
        "the model would never learn to stop; end the assistant's turn with eos_token in the template",
    ),
}
"""A fault in a few rows is counted; in most of them it is the template's, and refused."""


def dropped(reason: str) -> Turn:
    """A row that is left out."""
    return {"dropped": reason, "notes": [], "length": 0}


def ids_of(tokenizer: Any, messages: Messages, generation: bool = False) -> list[int]:
    """The rendered messages' tokens, with no other special tokens than the template's."""
    return tokenizer(_text(tokenizer, messages, generation), add_special_tokens=False)["input_ids"]


def _text(tokenizer: Any, messages: Messages, generation: bool = False) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)


def _shared(one: Any, other: Any) -> int:
    """How many items the two begin with alike."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))


def _is_conversation(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(m, dict) and m.get("role") and isinstance(m.get("content"), str) for m in value)
    )


def _conversation(row: dict[str, Any], column: str) -> Messages:
    value = row.get(column)
    if not _is_conversation(value):
        raise BadInput(
            f"column {column!r} is {_shown(value)}; a list of messages with role and content is wanted"
        )
    return _plain(value)


def _plain(messages: Iterable[dict[str, Any]]) -> Messages:
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def answered(messages: Messages) -> bool:
    """Whether the last turn is the assistant's."""
    return bool(messages) and messages[-1]["role"] == "assistant"


def empty(messages: Messages) -> bool:
    """Whether the last turn says nothing."""
    return not messages[-1]["content"].strip()


def _shown(value: Any) -> str:
    return repr(value)[:60]
