"""A key that a run was given by name is in nothing that the run, its worker or the server keeps."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.deployments.place import Place
from tests.deployments.recipes import asked_of
from tests.fake_model import Body, Fault, Reply, fake_model
from tests.flows.fakes import answer

pytestmark = [pytest.mark.deployments, pytest.mark.timeout(600)]

KEY = "sk-0123456789-very-secret-key"


def telling(body: Body) -> Reply:
    """An endpoint that says the key in its errors, as some do."""
    if "Question 3 " in json.dumps(body["messages"]):
        return Fault(
            status=400, body=json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
        )
    return answer(body)


def files_with(folder: Path, text: str) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def test_no_secret_is_in_records_logs_artifacts_reports_or_the_database(
    here: Place, out: Path, tmp_path: Path
):
    with fake_model(telling) as fake:
        recipe = asked_of(fake.url, tmp_path, "secret", 20, models=2, shard_size=5, max_failed=0.5)
        recipe["models"]["simulated"] |= {"key_env": "SECRET_TEST_KEY", "model": "fake"}
        here.worker("zephyr-cpu", "secrets", SECRET_TEST_KEY=KEY)
        id = here.submit("build-preferences/local", {"recipe": recipe, "out": str(out)})
        ended = here.wait(id, 300)
        assert ended["state_type"] == "COMPLETED", ended["state"]
        assert len(fake.asked) > 60
    assert not files_with(out, KEY)
    logs = [path for path in here.home.glob("*.log") if KEY in path.read_text(errors="replace")]
    assert not logs
    database = here.home / "prefect/prefect.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        tables = [
            name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")
        ]
        holding = [
            table
            for table in tables
            if KEY in repr(connection.execute(f'select * from "{table}"').fetchall())
        ]
    assert not holding
    assert "secret" in repr([path.name for path in out.iterdir()])
