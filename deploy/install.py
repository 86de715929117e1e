"""Install requirements and this project into the running interpreter's environment, as pip is configured to.

    .venv/bin/python deploy/install.py uv==0.13.9 -r requirements.lock -e .

uv does in a minute what takes pip five, but does not read pip's configuration (PIP_… variables and pip.conf),
so it is told: indexes, find-links, proxy, certificates. Where pip is configured with more than that, or where
uv cannot be had or does not succeed, pip does the work.
"""

import ast
import os
import subprocess
import sys

REPEATED = {
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
ONCE = {"index-url": "--default-index"}
VARIABLES = {
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
}
NOT_NEEDED = {
    "config-file",
    "break-system-packages",
    "cache-dir",
    "disable-pip-version-check",
    "no-cache-dir",
    "no-color",
    "no-compile",
    "no-input",
    "prefer-binary",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "retries",
    "root-user-action",
    "verbose",
}
PIP = [sys.executable, "-m", "pip"]


def pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` says of `pip install`: variables first, then [install], then [global]."""
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for line in listing.splitlines():
            name, separator, value = line.partition("=")
            if separator and name.startswith(section):
                found[name.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def uv_options(settings: dict[str, str]) -> tuple[list[str], dict[str, str]] | None:
    """Options and environment that make uv look where pip would; None where it cannot be told."""
    options, env = ["--index-strategy", "unsafe-best-match"], {}  # all indexes are equal to pip
    for name, value in settings.items():
        if name in REPEATED:
            options += [part for one in value.split() for part in (REPEATED[name], one)]
        elif name in ONCE:
            options += [ONCE[name], value]
        elif name in VARIABLES:
            env |= dict.fromkeys(VARIABLES[name], value)
        elif name == "no-index":
            options += ["--no-index"] if value.lower() in ("1", "true", "yes", "on") else []
        elif name not in NOT_NEEDED:
            return None
    return options, env


def with_uv(uv: str, wanted: list[str]) -> bool:
    """Whether uv installed it all."""
    listing = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True)
    told = uv_options(pip_settings(listing.stdout))
    if listing.returncode or told is None:
        return False
    if subprocess.run([*PIP, "install", "--quiet", "--disable-pip-version-check", uv]).returncode:
        return False
    options, env = told
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        *options,
        *wanted,
    ]
    return subprocess.run(command, env=os.environ | env).returncode == 0


def main(uv: str, *wanted: str) -> int:
    if with_uv(uv, list(wanted)):
        return 0
    print("installing with pip, which takes some minutes", file=sys.stderr)
    return subprocess.run([*PIP, "install", "--quiet", "--disable-pip-version-check", *wanted]).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
