"""What to know of a preference dataset before a GPU trains on it. Start at `preflight`.

Errors stop a run: the dataset cannot mean what it says. Warnings do not: they say what the model will learn
besides.
"""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pydantic import Field

from pairs.best_of_n import SftRow
from pairs.decontaminate import Benchmarks, Hit
from pairs.splits import SPLITS, Leak, Split, find_leaks
from pairs.texts import asked, normalised, squeezed
from pairs.tokens import Decode, Encode, TokenCheck, check_tokens
from records.base import Strict
from records.schema import Dropped, Pair, Prompt
from records.stats import Rate, clustered


class PreflightSettings(Strict):
    """Beyond these a warning is given. Our choice, all of them."""

    min_pairs: int = Field(default=200, ge=0)
    """Train pairs."""
    longer_wins: float = Field(default=0.7, ge=0.5, le=1)
    """Share of pairs whose chosen is the longer one."""
    one_model: float = Field(default=0.9, gt=0, le=1)
    """Share of pairs whose chosen is of one model, where there are several."""
    ties: float = Field(default=0.3, ge=0, le=1)
    """Share of prompts dropped as ties."""
    judge_failures: float = Field(default=0.05, ge=0, le=1)
    """Share of one model's judgements without a score."""
    too_long: float = Field(default=0.05, ge=0, le=1)
    """Share of dialogues a trainer cuts."""
    max_length: int | None = Field(default=None, ge=16)
    """Tokens a trainer keeps of a dialogue."""


class Preflight(Strict):
    """The figures, over the pairs of both splits where nothing else is said."""

    pairs: dict[Split, int]
    longer_chosen: Rate | None
    """How often the chosen is the longer one; pairs of equal length are left out."""
    length_ratio: float | None
    """Geometric mean of chosen / rejected, in characters."""
    win_rates: dict[str, Rate]
    """By model: how often it is the chosen in pairs with another model."""
    chosen_share: dict[str, float]
    """By model: share of the pairs whose chosen is its."""
    mean_margin: float | None
    median_margin: float | None
    zero_margins: int
    duplicate_prompts: int
    """Prompts that repeat an earlier one of their split but for case and punctuation."""
    chosen_is_rejected: int
    empty_texts: int
    dropped: dict[str, int]
    """By reason."""
    judgements: dict[str, dict[str, int]]
    """By model and status."""
    leaks: tuple[Leak, ...]
    contaminated: tuple[Hit, ...]
    tokens: TokenCheck | None
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def preflight(
    pairs: Mapping[Split, Sequence[Pair]],
    *,
    sft: Mapping[Split, Sequence[SftRow]] | None = None,
    prompts: Mapping[Split, Sequence[Prompt]] | None = None,
    dropped: Sequence[Dropped] = (),
    judgements: Mapping[str, Mapping[str, int]] | None = None,
    benchmarks: Benchmarks | None = None,
    encode: Encode | None = None,
    decode: Decode | None = None,
    settings: PreflightSettings | None = None,
) -> Preflight:
    """Look at a dataset before it is written.

    prompts: all that were asked, for leaks and contamination; without them those of the pairs and SFT rows.
    judgements: model -> status -> how many. encode, decode: a tokenizer with its chat template.
    """
    limits = settings or PreflightSettings()
    sft = sft or {}
    both = [pair for split in SPLITS for pair in pairs.get(split, ())]
    everyone: dict[Split, list[Prompt]] = {split: _prompts(split, pairs, sft, prompts) for split in SPLITS}
    texts = [t for p in both for t in (p.chosen.text, p.rejected.text)]
    texts += [row.completion.text for rows in sft.values() for row in rows]
    margins = [pair.margin for pair in both]
    uneven = [p for p in both if len(p.chosen.text) != len(p.rejected.text)]
    logs = [
        math.log(len(p.chosen.text) / len(p.rejected.text)) for p in both if p.chosen.text and p.rejected.text
    ]
    chosen = Counter(pair.chosen.model for pair in both)
    found = Preflight(
        pairs={split: len(pairs.get(split, ())) for split in SPLITS},
        longer_chosen=_rate([(p, len(p.chosen.text) > len(p.rejected.text)) for p in uneven]),
        length_ratio=math.exp(statistics.fmean(logs)) if logs else None,
        win_rates=_win_rates(both),
        chosen_share={model: chosen[model] / len(both) for model in sorted(chosen)},
        mean_margin=statistics.fmean(margins) if margins else None,
        median_margin=statistics.median(margins) if margins else None,
        zero_margins=sum(margin <= 0 for margin in margins),
        duplicate_prompts=sum(
            len(side) - len({normalised(asked(prompt)) for prompt in side}) for side in everyone.values()
        ),
        chosen_is_rejected=sum(squeezed(p.chosen.text) == squeezed(p.rejected.text) for p in both),
        empty_texts=sum(not squeezed(text) for text in texts),
        dropped=dict(sorted(Counter(drop.reason for drop in dropped).items())),
        judgements={model: dict(counts) for model, counts in sorted((judgements or {}).items())},
        leaks=tuple(find_leaks(everyone)),
        contaminated=tuple(benchmarks.hits(everyone["train"]) if benchmarks else ()),
        tokens=check_tokens(both, encode, decode, limits.max_length) if encode else None,
        errors=(),
        warnings=(),
    )
    sft_rows = len(sft.get("train", ()))
    return found.model_copy(
        update={
            "errors": _errors(found, sft_rows),
            "warnings": _warnings(found, limits, len(everyone["train"])),
        }
    )


def _prompts(
    split: Split,
    pairs: Mapping[Split, Sequence[Pair]],
    sft: Mapping[Split, Sequence[SftRow]],
    prompts: Mapping[Split, Sequence[Prompt]] | None,
) -> list[Prompt]:
    every = [*(prompts or {}).get(split, ())]
    every += [row.prompt for row in (*pairs.get(split, ()), *sft.get(split, ()))]
    return list({prompt.id: prompt for prompt in every}.values())


def _rate(claims: Sequence[tuple[Pair, bool]]) -> Rate | None:
    wins: Counter[str] = Counter()
    trials: Counter[str] = Counter()
    for pair, holds in claims:
        wins[pair.prompt.id] += holds
        trials[pair.prompt.id] += 1
    return clustered([wins[prompt] for prompt in trials], list(trials.values()))


def _win_rates(pairs: Sequence[Pair]) -> dict[str, Rate]:
    claims: dict[str, list[tuple[Pair, bool]]] = defaultdict(list)
    for pair in pairs:
        if pair.chosen.model != pair.rejected.model:
            claims[pair.chosen.model].append((pair, True))
            claims[pair.rejected.model].append((pair, False))
    rates = {model: _rate(claims[model]) for model in sorted(claims)}
    return {model: rate for model, rate in rates.items() if rate}


def _errors(found: Preflight, sft_rows: int) -> tuple[str, ...]:
    errors = []
    if not found.pairs["train"] and not sft_rows:
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in found.dropped.items()) or "nothing was dropped"
        )
        errors.append(f"0 train pairs and 0 train SFT rows; wanted at least one ({reasons})")
    if found.leaks:
        leak = found.leaks[0]
        errors.append(
            f"{len(found.leaks)} test prompts are also in train; wanted 0. The first: {leak.text!r} "
            f"(train {leak.train_id[:12]}, test {leak.test_id[:12]})"
        )
    if found.chosen_is_rejected:
        errors.append(f"{found.chosen_is_rejected} pairs have the same text as chosen and rejected; wanted 0")
    if found.empty_texts:
        errors.append(f"{found.empty_texts} answers are empty; wanted 0")
    if found.tokens and found.tokens.broken_prefixes:
        errors.append(
            f"the chat template changes the prompt's tokens in {found.tokens.broken_prefixes} of "
            f"{found.tokens.dialogues} dialogues when the answer follows; wanted 0"
        )
    if found.tokens and found.tokens.lost_texts:
        errors.append(
            f"{found.tokens.lost_texts} of {found.tokens.dialogues} answers do not survive the tokenizer; "
            "wanted 0"
        )
    return tuple(errors)


def _warnings(found: Preflight, limits: PreflightSettings, prompts: int) -> tuple[str, ...]:
    warnings = []
    if found.pairs["train"] < limits.min_pairs:
        warnings.append(f"{found.pairs['train']} train pairs; {limits.min_pairs} or more wanted")
    if found.longer_chosen and found.longer_chosen.value > limits.longer_wins:
        warnings.append(
            f"the longer answer is chosen in {found.longer_chosen}; at most {limits.longer_wins:.0%} wanted. "
            "The model will learn to write long; length_control matched or stratified takes that out"
        )
    for model, share in found.chosen_share.items():
        if share > limits.one_model and len(found.win_rates) > 1:
            warnings.append(
                f"{model} is the chosen of {share:.0%} of the pairs; at most {limits.one_model:.0%} wanted"
            )
    ties, total = found.dropped.get("tie", 0), sum(found.pairs.values()) + sum(found.dropped.values())
    if total and ties / total > limits.ties:
        warnings.append(
            f"{ties} of {total} prompts are ties ({ties / total:.0%}); at most {limits.ties:.0%} wanted"
        )
    for model, counts in found.judgements.items():
        failed, asked_for = sum(counts.values()) - counts.get("ok", 0), sum(counts.values())
        if asked_for and failed / asked_for > limits.judge_failures:
            kinds = ", ".join(
                f"{count} {status}" for status, count in sorted(counts.items()) if status != "ok"
            )
            warnings.append(
                f"{failed} of {asked_for} judgements of {model} have no score ({kinds}); "
                f"at most {limits.judge_failures:.0%} wanted"
            )
    if found.duplicate_prompts:
        warnings.append(
            f"{found.duplicate_prompts} prompts repeat another but for case and punctuation; 0 wanted"
        )
    if found.contaminated:
        names = Counter(hit.benchmark for hit in found.contaminated)
        told = ", ".join(f"{count} in {name}" for name, count in names.most_common())
        warnings.append(
            f"{len(found.contaminated)} of {prompts} train prompts are in a benchmark ({told}); 0 wanted"
        )
    tokens = found.tokens
    if tokens and tokens.dialogues and tokens.too_long / tokens.dialogues > limits.too_long:
        warnings.append(
            f"{tokens.too_long} of {tokens.dialogues} dialogues are longer than {tokens.max_length} tokens "
            f"(longest {tokens.longest}); at most {limits.too_long:.0%} wanted"
        )
    if tokens and tokens.endings > 1:
        warnings.append(
            f"dialogues end in {tokens.endings} different tokens; 1 wanted, "
            "or the model may not learn to stop"
        )
    return tuple(warnings)
