"""A running service follows the ladder: a canary's customers are its own, and a rollback takes it off within seconds."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.registry import Registry
from tests.e2e.test_running_service import ASK, becomes, records
from training.promotion import promote_without_evidence, stage_canary

WITHIN_S = 5.0


@pytest.fixture
def client(server) -> Iterator[httpx.Client]:
    """One for hundreds of questions: each of its own would read all certificates of the machine first, 25 ms of a processor."""
    with httpx.Client(base_url=server.url) as client:
        yield client


def decided_by(client: httpx.Client, customer: str) -> str:
    answer = client.post("/recommend", json={**ASK, "customer_id": customer})
    assert answer.status_code == 200
    found: str = answer.json()["versions"]["bundle"]
    return found


def twin(registry: Registry, bundle: str, folder: Path) -> str:
    """The same model under another name."""
    shutil.copytree(registry.bundle_folder(bundle), folder / "twin")
    manifest = json.loads((folder / "twin" / "manifest.json").read_text())
    (folder / "twin" / "manifest.json").write_text(json.dumps({**manifest, "bundle_id": "twin"}))
    registry.add_bundle(folder / "twin", "twin")
    return "twin"


def test_a_running_service_follows_each_step_of_the_ladder_and_a_rollback_within_five_seconds(
    client, serving_home, nextbest, tmp_path
):
    """Shadow: answers as before, and a record beside them. Canary: its customers are its own. Rollback: the one before serves."""
    registry = Registry(serving_home / "registry")
    first = registry.current().champion
    second = twin(registry, first, tmp_path)
    assert nextbest("--home", str(serving_home), "stage", "shadow", second).returncode == 0
    assert becomes(lambda: client.get("/status").json()["versions"].get("shadows") == [second], WITHIN_S)
    customers = [f"c{number}" for number in range(60)]
    assert {decided_by(client, customer) for customer in customers} == {first}
    assert becomes(lambda: decided_by(client, "c1") == first and bool(records(serving_home, "shadows")), WITHIN_S)
    ids = {record["decision_id"] for record in records(serving_home, "decisions")}
    assert {(s["bundle"], s["decision_id"] in ids) for s in records(serving_home, "shadows")} == {(second, True)}
    assert f'nextbest_shadows_total{{bundle="{second}",result=' in client.get("/metrics").text

    assert nextbest("--home", str(serving_home), "stage", "canary", second, "--share", "0.5").returncode == 0
    assert becomes(lambda: {decided_by(client, c) for c in customers} == {first, second}, WITHIN_S)
    theirs = [c for c in customers if decided_by(client, c) == second]
    assert theirs == [c for c in customers if decided_by(client, c) == second]
    assert nextbest("--home", str(serving_home), "replay").returncode == 0

    assert nextbest("--home", str(serving_home), "stage", "off", second).returncode == 0
    assert becomes(lambda: decided_by(client, theirs[0]) == first, WITHIN_S)

    promote_without_evidence(serving_home, second, "for a test")
    assert becomes(lambda: decided_by(client, theirs[0]) == second, WITHIN_S)
    stage_canary(serving_home, first, 0.5)
    assert becomes(lambda: {decided_by(client, c) for c in customers} == {first, second}, WITHIN_S)
    begun = time.perf_counter()
    assert nextbest("--home", str(serving_home), "rollback").returncode == 0
    assert becomes(lambda: {decided_by(client, c) for c in customers} == {first}, WITHIN_S)
    assert time.perf_counter() - begun < WITHIN_S, "the command and the service together"
