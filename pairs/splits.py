"""Train or test, decided before anything is asked; and the check that nothing is on both sides."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from pydantic import Field

from pairs.texts import asked, normalised
from records.base import Strict
from records.ids import chance
from records.schema import Prompt

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class SplitSettings(Strict):
    test: float = Field(default=0.03, ge=0, lt=1)
    """Share of the prompts held out. ultrafeedback_binarized: 2 000 of 63 135."""
    seed: int = 42


class Leak(Strict):
    """One prompt on both sides."""

    train_id: str
    test_id: str
    text: str
    """How the text begins."""


def split_of(prompt: Prompt, settings: SplitSettings) -> Split:
    """`meta["split"]` where the source or the flow has set it, else drawn from the prompt's normalised text.

    The id is a hash of the text; drawing from the text without its case and punctuation puts near copies of a
    prompt on one side. New prompts do not move old ones.

    Raises:
        ValueError: `meta["split"]` is neither train nor test.
    """
    given = prompt.meta.get("split")
    if given is None:
        drawn = chance(settings.seed, "split", normalised(asked(prompt))).random()
        return "test" if drawn < settings.test else "train"
    if given not in SPLITS:
        raise ValueError(f"prompt {prompt.id[:12]}: meta['split'] is {given!r}; wanted 'train' or 'test'")
    return given


def by_split(prompts: Iterable[Prompt], settings: SplitSettings) -> dict[Split, list[Prompt]]:
    sides: dict[Split, list[Prompt]] = {split: [] for split in SPLITS}
    for prompt in prompts:
        sides[split_of(prompt, settings)].append(prompt)
    return sides


def find_leaks(prompts: Mapping[Split, Iterable[Prompt]]) -> list[Leak]:
    """Test prompts that have the id or the normalised text of a train prompt."""
    train: dict[str, Prompt] = {}
    for prompt in prompts.get("train", ()):
        train.setdefault(prompt.id, prompt)
        train.setdefault(normalised(asked(prompt)), prompt)
    leaks = {}
    for prompt in prompts.get("test", ()):
        other = train.get(prompt.id) or train.get(normalised(asked(prompt)))
        if other:
            leaks[prompt.id] = Leak(train_id=other.id, test_id=prompt.id, text=asked(prompt)[:80])
    return list(leaks.values())
