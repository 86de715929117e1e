"""croissant.json names every file with its digest and every column with its type."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pairs.test_dataset import CARD, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "dataset")
    return tmp_path / "dataset"


def test_every_file_is_there_with_its_digest_and_every_column_with_its_type(folder: Path):
    said = json.loads((folder / "croissant.json").read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}
    assert {one["@id"]: one["sha256"] for one in said["distribution"]} == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files
    }
    assert len(said["recordSet"]) == len(files)
    for records in said["recordSet"]:
        sources = [field.get("source") or field["subField"][0]["source"] for field in records["field"]]
        (file,) = {source["fileObject"]["@id"] for source in sources}
        assert [source["extract"]["column"] for source in sources] == pq.read_schema(folder / file).names
    assert said["license"] == CARD.license and said["name"] == CARD.name


@pytest.mark.skipif(importlib.util.find_spec("mlcroissant") is None, reason="mlcroissant is not installed")
def test_mlcommons_own_library_reads_the_rows(folder: Path):
    import mlcroissant  # type: ignore[import-not-found]

    found = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not found.metadata.issues.errors
    rows = list(found.records("default/train_prefs"))
    assert len(rows) == pq.read_metadata(folder / "data/train_prefs.parquet").num_rows
    (chosen,) = {len(row["default/train_prefs/chosen"]) for row in rows}
    assert chosen == 2, "a user turn and an answer"
