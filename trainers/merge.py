"""A base with adapters merged into it, one after the other: `python -m trainers.merge BASE ADAPTER… OUT`.

What an adapter was trained on is not always what its own file names. The published zephyr-7b-dpo-qlora names
mistralai/Mistral-7B-v0.1, and was trained on that with zephyr-7b-sft-qlora merged in; on the bare base it is worse than
the SFT model. So the chain is said, and kept: base, then each adapter in the order of training.

    $ python -m trainers.merge Mistral-7B-v0.1 zephyr-7b-sft-qlora zephyr-7b-dpo-qlora zephyr-7b-dpo

Adapters of this project say in `base.json` which weights they were trained on; one that comes on others is refused.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.guards import BadInput, check_base
from trainers.job import digest_of_weights, sha256


def merge(base: Path, adapters: Sequence[Path], out: Path, dtype: str = "float32") -> dict[str, Any]:
    """Write the merged model to the new folder `out`, with the tokenizer of the last adapter that has one, and say what
    is in it, as `merged.json` there does.

    Raises:
        BadInput: no model, no adapter, an adapter on other weights than its own, or on modules that are not there.
    """
    check_base(base)
    if out.exists():
        raise BadInput(f"{str(out)!r} is there already; name a new folder")
    for adapter in adapters:
        _check_adapter(adapter)
    if not adapters:
        raise BadInput("no adapter is named; give at least one folder with adapter_config.json")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights: str | None = digest_of_weights(base)
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=getattr(torch, dtype), local_files_only=True
    )
    steps = []
    for folder in adapters:
        own = _own(folder)
        if own and weights and own["weights"] != weights:
            raise BadInput(
                f"{str(folder)!r} was trained on {own['name']}, weights {own['weights'][:12]}…, and here it would "
                f"come on {weights[:12]}…; name base and adapters in the order they were trained"
            )
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
        except (ValueError, RuntimeError) as error:
            raise BadInput(
                f"{str(folder)!r} does not fit: {error}; was it trained on a model of this shape?"
            ) from error
        moved = sum(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
        if not moved:
            raise BadInput(f"{str(folder)!r} changes no weight; is it an adapter that was never trained?")
        weights = own["merged"] if own else None
        steps.append({"adapter": folder.name, "sha256": sha256(_file(folder)), "tensors_changed": moved})
        del before
    made = {"base": base.name, "weights": digest_of_weights(base), "adapters": steps}
    model.save_pretrained(out)
    places = [base, *(folder for folder in adapters if (folder / "tokenizer_config.json").is_file())]
    AutoTokenizer.from_pretrained(places[-1], local_files_only=True).save_pretrained(out)
    (out / "merged.json").write_text(json.dumps(made, indent=2) + "\n")
    return made


def _check_adapter(adapter: Path) -> None:
    if not (adapter / "adapter_config.json").is_file() or not _file(adapter).is_file():
        raise BadInput(
            f"{str(adapter)!r} is no adapter: adapter_config.json and adapter_model.safetensors are wanted"
        )


def _own(adapter: Path) -> dict[str, str] | None:
    """What an adapter of this project says of itself: `name` and `weights` of its base, and what merging gave."""
    file = adapter / "base.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _file(adapter: Path) -> Path:
    return adapter / "adapter_model.safetensors"


def main(arguments: list[str]) -> int:
    if len(arguments) < 3:
        print("usage: python -m trainers.merge BASE ADAPTER… OUT", file=sys.stderr)
        return 2
    base, *adapters, out = map(Path, arguments)
    try:
        print(json.dumps(merge(base, adapters, out)))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
