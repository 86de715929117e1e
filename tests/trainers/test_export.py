"""GGUF files llama.cpp reads: the tensors are the model's, in llama.cpp's order."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from serving.gguf import to_transformers
from serving.weights import Weights
from trainers.export import permuted, to_gguf
from trainers.guards import BadInput


def base_gguf(out: Path, model: Path, architecture: str = "llama", drop: str = "") -> Path:
    """A GGUF with the metadata llama.cpp's converter would write for the tiny model, and zeros for weights."""
    from transformers import AutoModelForCausalLM

    writer = gguf.GGUFWriter(out, architecture)
    writer.add_name("base")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_context_length(512)
    writer.add_chat_template("old template")
    writer.add_token_list(["a", "b"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in AutoModelForCausalLM.from_pretrained(model).state_dict().items():
        target = names.get_name(name, try_suffixes=(".weight",))
        if target and target != "output.weight" and target != drop:
            writer.add_tensor(target, np.zeros(tensor.shape, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def test_a_head_is_moved_from_halves_to_pairs():
    rows = np.arange(8)[:, None]
    assert permuted(rows, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("kind, wrong", [("f16", 1e-3), ("q8_0", 2e-3)])
def test_the_weights_come_back_and_the_metadata_is_the_bases(
    kind: Any, wrong: float, tiny: Path, tmp_path: Path
):
    from safetensors.numpy import load_file

    out = to_gguf(
        tiny, base_gguf(tmp_path / "base.gguf", tiny), tmp_path / "new.gguf", kind, "mine", "new template"
    )
    read = gguf.GGUFReader(out)
    fields: dict[str, Any] = {name: field.contents() for name, field in read.fields.items()}
    assert fields["general.name"] == "mine" and fields["tokenizer.chat_template"] == "new template"
    assert fields["llama.context_length"] == 512 and fields["tokenizer.ggml.tokens"] == ["a", "b"]
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in read.tensors}
    weights = load_file(tiny / "model.safetensors")
    assert len(tensors) == len(weights)
    layer = weights["model.layers.1.self_attn.q_proj.weight"]
    assert np.abs(tensors["blk.1.attn_q.weight"] - permuted(layer, 4)).max() < wrong
    assert np.abs(tensors["token_embd.weight"] - weights["model.embed_tokens.weight"]).max() < wrong


def test_a_gguf_of_another_family_is_refused(tiny: Path, tmp_path: Path):
    with pytest.raises(BadInput, match="has architecture 'qwen2'; only 'llama' can be written"):
        to_gguf(tiny, base_gguf(tmp_path / "b.gguf", tiny, "qwen2"), tmp_path / "new.gguf", "f16", "mine")


@pytest.mark.slow
@pytest.mark.long
def test_the_real_smollm2_comes_back_from_transformers_as_it_was(smol_gguf: Weights, tmp_path: Path):
    to_transformers(smol_gguf.path, tmp_path / "hf")
    out = to_gguf(tmp_path / "hf", smol_gguf.path, tmp_path / "model.gguf", "f16", "again")
    before, after = ({t.name: t for t in gguf.GGUFReader(path).tensors} for path in (smol_gguf.path, out))
    assert before.keys() == after.keys()
    for name in (
        "blk.7.attn_q.weight",
        "blk.7.attn_k.weight",
        "blk.29.ffn_down.weight",
        "output_norm.weight",
    ):
        one, other = (gguf.quants.dequantize(t.data, t.tensor_type) for t in (before[name], after[name]))
        assert np.abs(one - other).max() <= 0.005 * np.abs(one).max(), name
