"""A trained llama-family model as GGUF, for llama.cpp: the base GGUF's metadata with our tensors."""

import json
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np

from trainers.guards import BadInput

GGUFType = Literal["f16", "q8_0"]
OWN = ("general.architecture", "general.file_type", "general.quantization_version", "general.name")
"""Keys that are ours and not the base's."""


def to_gguf(
    model: Path, base: Path, out: Path, kind: GGUFType, name: str, template: str | None = None
) -> Path:
    """Write the model folder's weights to `out`, with the tokenizer and settings of the `base` GGUF.

    f16 halves keep the weights exactly as good as they are; q8_0 is half the size and rounds to 8 bits per
    block of 32. Vectors stay float32, as llama.cpp wants them.
    """
    config = json.loads((model / "config.json").read_text())
    reader = gguf.GGUFReader(base)
    field = reader.fields.get("general.architecture")
    architecture = field.contents() if field else None
    if architecture != "llama":
        raise BadInput(f"gguf={str(base)!r} has architecture {architecture!r}; only 'llama' can be written")

    writer = gguf.GGUFWriter(out, architecture)
    _copy_metadata(reader, writer, template)
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)

    shapes = {tensor.name: tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors}
    written = set()
    for target, weights in _tensors(model, config, shapes):
        if target in shapes and shapes[target] != weights.shape:
            raise BadInput(
                f"{target} is {weights.shape} in {str(model)!r} and {shapes[target]} in {str(base)!r}"
            )
        _add(writer, target, weights, kind)
        written.add(target)
    rope = {name for name in shapes if name.startswith("rope")}
    if missing := sorted(set(shapes) - written - rope):
        raise BadInput(
            f"{str(model)!r} has no weights for {missing[:3]} of {str(base)!r}; is it the same family?"
        )
    for tensor in reader.tensors:
        if tensor.name in rope - written:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, template: str | None) -> None:
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "quantize.")) or key in OWN:
            continue
        value, kind = field.contents(), field.types[0]
        if key == "tokenizer.chat_template" and template:
            value = template
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(key, value, kind, sub_type=field.types[-1])
        else:
            writer.add_key_value(key, value, kind)


def _tensors(model: Path, config: dict[str, Any], shapes: dict[str, Any]) -> Any:
    """GGUF name and float32 weights of every tensor the base has, and of an untied head."""
    import torch
    from safetensors import safe_open

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    tied = config.get("tie_word_embeddings", False)
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a dict
                target = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if target is None:
                    raise BadInput(f"{name} of {str(model)!r} has no place in a llama GGUF")
                if target not in shapes and (target != "output.weight" or tied):
                    continue
                values = weights.get_tensor(name).to(torch.float32).numpy()
                if ".q_proj." in name:
                    values = permuted(values, heads)
                if ".k_proj." in name:
                    values = permuted(values, config.get("num_key_value_heads") or heads)
                yield target, values
                if name.endswith("embed_tokens.weight") and tied and "output.weight" in shapes:
                    yield "output.weight", values


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows from transformers' order of rotary halves to llama.cpp's order of rotary pairs, head by head."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, half, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: GGUFType) -> None:
    if values.ndim == 1:
        writer.add_tensor(name, values)
    elif kind == "q8_0" and values.shape[-1] % 32 == 0:
        q8 = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, q8), raw_dtype=q8)
    else:
        writer.add_tensor(name, values.astype(np.float16))
