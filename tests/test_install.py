"""uv is told what pip is configured with, and is not used where it cannot be told."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def load(path: Path) -> ModuleType:
    """A script, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def install() -> ModuleType:
    return load(ROOT / "deploy/install.py")


def test_a_variable_goes_before_the_install_section_and_that_before_global(install: ModuleType):
    listing = """:env:.find-links='/wheels'
global.find-links='/elsewhere'
global.index-url='https://one/simple'
install.index-url='https://two/simple'
download.index-url='https://three/simple'
"""
    assert install.pip_settings(listing) == {"find-links": "/wheels", "index-url": "https://two/simple"}


def test_uv_looks_where_pip_would(install: ModuleType):
    settings = {
        "index-url": "https://one/simple",
        "extra-index-url": "file:///a/simple\nhttps://b/simple",
        "find-links": "/wheels",
        "trusted-host": "one",
        "no-index": "0",
        "cert": "/etc/ca.crt",
        "timeout": "60",
        "progress-bar": "off",
    }
    options, env = install.uv_options(settings)
    assert " ".join(options) == (
        "--index-strategy unsafe-best-match --default-index https://one/simple --index file:///a/simple "
        "--index https://b/simple --find-links /wheels --allow-insecure-host one"
    )
    assert env == {"SSL_CERT_FILE": "/etc/ca.crt", "UV_HTTP_TIMEOUT": "60"}


@pytest.mark.parametrize("option", ["require-hashes", "constraint", "only-binary", "target"])
def test_what_uv_cannot_be_told_is_left_to_pip(install: ModuleType, option: str):
    assert install.uv_options({option: "1"}) is None


def test_the_pins_are_exact_and_name_no_build_of_torch():
    pins = (ROOT / "requirements.lock").read_text().splitlines()
    loose = [pin for pin in pins if "==" not in pin or "+" in pin or "@" in pin or pin.startswith("-")]
    assert not loose
    assert not [pin for pin in pins if pin.startswith(("nvidia-", "cuda-", "triton"))]
