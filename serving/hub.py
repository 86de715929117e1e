"""Weights from the Hugging Face Hub or its cache on this machine; fails within seconds without a network."""

import re
from pathlib import Path
from typing import NamedTuple

ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(/[\w./-]+\.gguf)?")
REACH = 5.0
"""Seconds for the hub's first answer."""

TEXT = ["*.json", "*.jinja", "*.model", "*.txt"]


class Unavailable(Exception):
    """The hub does not give these weights; the next source is tried."""


class Repository(NamedTuple):
    name: str
    commit: str
    license: str
    files: list[str]
    local: Path | None
    """Its snapshot on this machine, where the hub itself was not asked."""


def is_id(model: str) -> bool:
    return ID.fullmatch(model) is not None


def fetch_gguf(model: str, revision: str | None) -> tuple[Path, str, str]:
    """File, commit and license of `owner/name`, which must hold one GGUF file, or `owner/name/file.gguf`."""
    owner, name, *inside = model.split("/", 2)
    repository = _look(f"{owner}/{name}", revision)
    files = inside or [file for file in repository.files if file.endswith(".gguf")]
    if len(files) != 1:
        advice = f"name one, as {owner}/{name}/{files[0]}" if files else "llama.cpp serves no other format"
        raise Unavailable(f"the repository has {len(files)} GGUF files {files[:9]}; {advice}")
    if files[0] not in repository.files:
        raise Unavailable(f"the repository has no {files[0]!r} at {repository.commit}")
    return _download(repository, files) / files[0], repository.commit, repository.license


def fetch_transformers(model: str, revision: str | None) -> Path:
    repository = _look(model, revision)
    if "config.json" not in repository.files:
        raise Unavailable(f"the repository has no config.json; it holds {repository.files[:9]}")
    safe = any(file.endswith(".safetensors") for file in repository.files)
    return _download(repository, [*TEXT, "*.safetensors" if safe else "*.bin"])


def _look(name: str, revision: str | None) -> Repository:
    """What the hub has, or its cache where the hub is switched off (HF_HUB_OFFLINE) or cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if HF_HUB_OFFLINE:
        return _cached(name, revision, "HF_HUB_OFFLINE is set")
    try:
        info = HfApi().model_info(name, revision=revision, timeout=REACH)
    except GatedRepoError as error:
        raise Unavailable("gated: accept the model's terms on its page and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise Unavailable("no such repository, or a private one (then set HF_TOKEN)") from error
    except HfHubHTTPError as error:
        return _cached(name, revision, f"it answered {str(error).splitlines()[0]}")
    except Exception as error:  # the hub's HTTP library changes by version, and its errors with it
        if not _is_network(error):
            raise
        return _cached(name, revision, f"cannot be reached ({error})")
    files = [sibling.rfilename for sibling in info.siblings or []]
    terms = (info.card_data.license if info.card_data else None) or ""
    return Repository(name, info.sha or "", str(terms), files, None)


def _is_network(error: Exception) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, OSError) or not names.isdisjoint({"TransportError", "TimeoutException"})


def _cached(name: str, revision: str | None, why: str) -> Repository:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise Unavailable(f"{why}, and its cache on this machine does not hold {name}") from error
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return Repository(name, folder.name, "", files, folder)


def _download(repository: Repository, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    if repository.local:
        return repository.local
    return Path(snapshot_download(repository.name, revision=repository.commit, allow_patterns=patterns))
