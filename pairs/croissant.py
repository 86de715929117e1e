"""croissant.json of a dataset folder: its files with their digests, its columns with their types, for tools that index.

MLCommons Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html). A record set for each split of
each config; the context below is the specification's, word for word.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pairs.card import Card

CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source",
    "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
TYPES = {"string": "sc:Text", "float64": "sc:Float", "int64": "sc:Integer"}


def croissant(
    card: Card,
    rows_digest: str,
    files: Mapping[str, Mapping[str, str]],
    columns: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    """`files`: config -> split -> path in `folder`. `columns`: config -> column -> type, as `pairs.rows` has them."""
    every = [(config, split, path) for config, own in files.items() for split, path in own.items()]
    sources = [f"{source}: {terms}" for source, terms in card.sources.items()]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": card.name,
        "description": card.description or f"Preference pairs from AI feedback by the recipe {card.recipe}.",
        "license": card.license,
        "keywords": list(card.tags),
        "isBasedOn": sources,
        "identifier": f"sha256:{rows_digest}",
        "distribution": [_file(path, folder) for _, _, path in every],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": f"{config}/{split}",
                "name": f"{config}/{split}",
                "field": [_field(f"{config}/{split}", path, *column) for column in columns[config].items()],
            }
            for config, split, path in every
        ],
    }


def _file(path: str, folder: Path) -> dict[str, Any]:
    with (folder / path).open("rb") as data:
        sha256 = hashlib.file_digest(data, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{(folder / path).stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": sha256,
    }


def _field(within: str, path: str, name: str, kind: Any) -> dict[str, Any]:
    own = {"@type": "cr:Field", "@id": f"{within}/{name}", "name": f"{within}/{name}"}
    source = {"fileObject": {"@id": path}, "extract": {"column": name}}
    if not isinstance(kind, list):
        return own | {"dataType": TYPES[kind], "source": source}
    inner = [
        {
            "@type": "cr:Field",
            "@id": f"{within}/{name}/{part}",
            "name": f"{within}/{name}/{part}",
            "dataType": TYPES[of],
            "source": source | {"transform": {"jsonPath": part}},
        }
        for part, of in kind
    ]
    return own | {"repeated": True, "subField": inner}
