"""Prompt files: a YAML header that says where the text came from, and the text as the model sees it.

    ---
    source: our own wording
    license: Apache-2.0
    slots: [instruction, response]
    ---
    ### Instruction
    {{instruction}}
    ...

Slots are `{{name}}`, so JSON examples need no escaping. There is no logic: who fills a slot makes its text.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from records.base import Strict

ROOT = Path(__file__).parent
"""The folder `prompts/`: names are relative to it and have no `.md`."""

SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
FIELDS = ("source", "license", "changes", "slots")


class PromptError(ValueError):
    """A prompt file, template or prompt source cannot be used as it is; the message says what to change."""


class Template(Strict):
    """One prompt file, loaded. Its text is part of what was asked, so it belongs in fingerprints."""

    name: str
    text: str
    slots: tuple[str, ...]
    """In the order of their first use."""
    source: str
    """Where the wording comes from."""
    license: str
    changes: str | None = None
    """How the wording differs from its source."""

    @property
    def markers(self) -> tuple[str, ...]:
        """The fixed lines that open with `#`, `[` or `<`: what a text must not fake, see `neutralise`."""
        lines = (line.strip() for line in self.text.splitlines())
        return tuple(dict.fromkeys(x for x in lines if x[:1] in ("#", "[", "<") and not SLOT.search(x)))

    def fill(self, **values: str) -> str:
        """The text with every slot replaced, all in one pass: a value that contains `{{slot}}` stays text.

        Raises:
            PromptError: a slot without a value, a value without a slot, or a value that is not text.
        """
        if missing := [slot for slot in self.slots if slot not in values]:
            raise PromptError(f"{self.name} needs a value for {missing}; it got {sorted(values)}")
        if extra := sorted(set(values) - set(self.slots)):
            raise PromptError(f"{self.name} has no slot {extra}; its slots are {list(self.slots)}")
        for slot, value in values.items():
            if not isinstance(value, str):
                raise PromptError(f"slot {slot!r} of {self.name} got {value!r}, wanted text")
        return SLOT.sub(lambda match: values[match[1]], self.text)


def load_prompt(name: str) -> Template:
    """The template called `name`: relative to prompts/ without `.md`, or any path that ends in `.md`.

    Raises:
        PromptError: no such file, a header that cannot be read, or slots that differ from the body's.
    """
    path = Path(name) if name.endswith(".md") else ROOT / f"{name}.md"
    if not path.is_file():
        raise PromptError(f"no prompt {name!r}; {_what_exists(name, path)}")
    return _read(path, path.stem if name.endswith(".md") else name, path.stat().st_mtime_ns)


@lru_cache(256)
def _read(path: Path, name: str, changed: int) -> Template:
    """Read once and again when it has `changed`: judges ask for their texts with every row."""
    return parse_prompt(path.read_text(encoding="utf-8"), name=name, file=path.name)


@lru_cache(maxsize=256)
def parse_prompt(content: str, name: str, file: str) -> Template:
    """A template from a file's content; `file` is what messages call it."""
    header, body = _split(content, file)
    if unknown := sorted(set(header) - set(FIELDS)):
        raise PromptError(f"{file} has {unknown} in its header; wanted {list(FIELDS)}")
    for field in ("source", "license"):
        if not isinstance(header.get(field), str):
            raise PromptError(f"{file} has {field}={header.get(field)!r} in its header, wanted text")
    declared = header.get("slots")
    if not isinstance(declared, list) or not all(isinstance(slot, str) for slot in declared):
        raise PromptError(
            f"{file} has slots={declared!r} in its header, wanted a list of names such as [instruction]"
        )
    used = tuple(dict.fromkeys(SLOT.findall(body)))
    if sorted(declared) != sorted(used):
        raise PromptError(f"{file} declares slots {sorted(declared)} but its body uses {sorted(used)}")
    if not body.strip():
        raise PromptError(f"{file} has a header and no text after it")
    return Template(
        name=name,
        text=body,
        slots=used,
        source=header["source"],
        license=header["license"],
        changes=header.get("changes"),
    )


def prompt_names(folder: str = "") -> list[str]:
    """Every name `load_prompt` knows, or those in one folder such as `principles`."""
    files = (ROOT / folder).rglob("*.md")
    return sorted(f.relative_to(ROOT).with_suffix("").as_posix() for f in files if f.name != "README.md")


CONTROL = r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>"
"""What chat models use to open and close turns; a server may read it as such inside a message."""

BREAK = "\u200b"
"""Zero-width space: invisible to a person, and the marker no longer equals itself."""


def neutralise(text: str, markers: Collection[str] = ()) -> str:
    """A judged text that can no longer fake the judge prompt's structure.

    Every occurrence of a marker, in any case and with any spacing, gets a zero-width space: a heading after
    its `#`s, whatever their number, so that it is no heading; anything else after its first character. The
    tokens that open and close chat turns are always markers. Nothing else changes, and a second pass changes
    nothing.
    """
    return _pattern(tuple(markers)).sub(_broken, text)


@lru_cache(256)
def _pattern(markers: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join([CONTROL, *map(_loosely, markers)]), flags=re.IGNORECASE)


def _loosely(marker: str) -> str:
    hashes, words = re.fullmatch(r"\s*(#*)(.*)", marker, flags=re.DOTALL).groups()  # type: ignore[union-attr]
    if len(words.strip()) < 2:
        raise PromptError(
            f"marker {marker!r} is too short to be told from ordinary text; wanted 2 characters or more"
        )
    return ("(?<!#)#+[^\\S\\n]*" if hashes else "") + r"\s+".join(map(re.escape, words.split()))


def _broken(match: re.Match[str]) -> str:
    found = match[0]
    at = len(found) - len(found.lstrip("#")) or 1
    return found[:at] + BREAK + found[at:]


def _split(content: str, file: str) -> tuple[dict[str, Any], str]:
    parts = re.fullmatch(r"---\n(.*?)\n---\n(.*)", content.replace("\r\n", "\n"), flags=re.DOTALL)
    if parts is None:
        raise PromptError(
            f"{file} does not open with a header; wanted a line ---, {', '.join(FIELDS)}, and a line ---"
        )
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        raise PromptError(f"the header of {file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(header, dict):
        raise PromptError(f"the header of {file} is {header!r}, wanted fields {list(FIELDS)}")
    return header, parts[2].strip("\n")


def _what_exists(name: str, path: Path) -> str:
    if name.endswith(".md"):
        return f"there is no file {path}"
    names = prompt_names()
    close = get_close_matches(name, names, n=1)
    folder = name.rpartition("/")[0]
    beside = [other for other in names if other.rpartition("/")[0] == folder]
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}prompts/ holds {', '.join(beside or names)}"
