"""An environment for each peer, from its pinned requirements, under a cache folder."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
REQUIREMENTS = Path(__file__).parent / "requirements"
CACHE = Path.home() / ".cache" / "zephyr" / "peers"
"""Where the environments are, unless told otherwise."""
UV = "uv==0.13.9"


@dataclass(frozen=True)
class Client:
    """What makes preference data here."""

    name: str
    module: str
    requirements: str | None = None
    """File with its environment; None: this project's own."""
    can_retry: bool = True

    def python(self, cache: Path) -> Path:
        return cache / self.requirements / "bin" / "python" if self.requirements else Path(sys.executable)


CLIENTS = {
    client.name: client
    for client in (
        Client("loop", "benchmarks.peers.run_loop", can_retry=False),
        Client("ours", "benchmarks.peers.run_ours"),
        Client("distilabel", "benchmarks.peers.run_distilabel", "distilabel"),
        Client("curator", "benchmarks.peers.run_curator", "curator"),
        Client("data-designer", "benchmarks.peers.run_data_designer", "data-designer"),
    )
}


def prepare(client: Client, cache: Path) -> str | None:
    """Make its environment; what went wrong, if something did."""
    return make(client.requirements, cache) if client.requirements else None


def make(requirements: str, cache: Path) -> str | None:
    """The environment of a requirements file, if it is missing or its pins changed; what went wrong, if something did.

    The pins are complete, so they are installed as they are, without asking packages what else they want: Data
    Designer wants a newer certifi than some indexes have.
    """
    pins, folder = REQUIREMENTS / f"{requirements}.txt", cache / requirements
    ready, digest = folder / ".ready", hashlib.sha256(pins.read_bytes()).hexdigest()
    if ready.exists() and ready.read_text() == digest:
        return None
    print(f"making {folder}", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [
            str(folder / "bin" / "python"),
            str(ROOT / "deploy" / "install.py"),
            UV,
            "--no-deps",
            "-r",
            str(pins),
        ],
    ):
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            return (ended.stderr or ended.stdout).strip()[-500:]
    ready.write_text(digest)
    return None


def versions(client: Client) -> dict[str, str]:
    """What decides its figures, as pinned."""
    if client.requirements is None:
        return {}
    pins = (REQUIREMENTS / f"{client.requirements}.txt").read_text().splitlines()
    wanted = {"distilabel", "bespokelabs-curator", "data-designer", "openai", "litellm", "pydantic", "httpx"}
    pairs = (line.split("==") for line in pins if "==" in line)
    return {name: version for name, version in pairs if name in wanted}
