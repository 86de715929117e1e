"""A frozen base in 4 bits under an adapter (QLoRA, arXiv 2305.14314): how it is loaded, how the adapter leaves it.

While it is trained, the base's linear layers are nf4: 16 values that split a normal distribution evenly, a scale for
every 64 weights, products in `compute`. The finished adapter is merged into the weights as they were: merged into 4
bits, most of it would be rounded away.
"""

from pathlib import Path
from typing import Any

from trainers.arguments import compute, load_model
from trainers.settings import Training

NF4: dict[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": False,
    "bnb_4bit_quant_storage": "uint8",
}
"""As bitsandbytes is told. Handbook: the same, src/alignment/model_utils.py and configs.py at c8f5bdf."""
BYTES = 0.5 + 4 / 64
"""Of a weight with its share of the scale."""


def quantizes(settings: Training) -> bool:
    return settings.lora is not None and settings.lora.quantize is not None


def held(settings: Training) -> str:
    """What the base's weights are in memory: a number format, or nf4."""
    return "nf4" if quantizes(settings) else settings.dtype


def load_trained(base: Path, settings: Training) -> Any:
    """The model that is trained: the base as it is, or in 4 bits."""
    if not quantizes(settings):
        return load_model(base, settings)
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=compute(settings))
    return load_model(base, settings, quantization_config=config)


def merged(model: Any, base: Path, adapter: Path, settings: Training) -> Any:
    """The model with its adapter in its weights. `adapter`: the folder it is saved in."""
    if not quantizes(settings):
        return model.merge_and_unload()
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(base, settings), str(adapter)).merge_and_unload()
