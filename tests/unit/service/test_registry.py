"""Immutable versions, and a pointer that moves as a whole."""

import multiprocessing

import pytest

from service.errors import RegistryError
from service.registry import Pointer, Registry

AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "registry")


def publish(registry: Registry, note: str = "") -> int:
    return registry.publish_catalog({"note": note}, fingerprint="f", author="me", note=note, at=AT)


def add(registry: Registry, tmp_path, name: str) -> None:
    made = tmp_path / f"made-{name}"
    made.mkdir()
    (made / "model.onnx").write_text(name)
    registry.add_bundle(made, name)


def test_an_empty_registry_points_at_nothing(registry):
    """No folder, no catalog, no bundle, no error."""
    assert registry.current() == Pointer()
    assert (registry.revisions(), registry.bundles()) == ([], [])


def test_a_published_catalog_serves_and_its_predecessor_stays_as_it_was(registry):
    """Revisions count upwards and are never written again."""
    assert [publish(registry, "first"), publish(registry, "second")] == [1, 2]
    assert registry.current().catalog == 2
    assert registry.catalog(1).note == "first"
    assert registry.catalog(2).document == {"note": "second"}


def publish_ten(root) -> None:
    for _ in range(10):
        publish(Registry(root))


def test_publishers_at_the_same_time_lose_nothing(registry):
    """Four processes publish ten catalogs each: forty revisions, the pointer at the last."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=publish_ten, args=(registry.root,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert registry.revisions() == list(range(1, 41))
    assert registry.current().catalog == 40


def test_a_stored_bundle_does_not_serve_until_it_is_promoted(registry, tmp_path):
    """Storing and serving are two steps."""
    add(registry, tmp_path, "one")
    assert registry.current().champion is None
    assert registry.promote("one", at=AT, why="better").champion == "one"
    assert (registry.bundle_folder("one") / "model.onnx").read_text() == "one"


def test_rollback_returns_step_by_step_to_what_served_before(registry, tmp_path):
    """Also to serving without a model, where that was the beginning."""
    for name in ("one", "two"):
        add(registry, tmp_path, name)
        registry.promote(name, at=AT, why="better")
    assert registry.rollback(at=AT, why="worse").champion == "one"
    assert registry.rollback(at=AT, why="worse").champion is None
    with pytest.raises(RegistryError, match="Expected a previous champion"):
        registry.rollback(at=AT, why="worse")


def test_promoting_the_champion_again_changes_nothing(registry, tmp_path):
    """Otherwise a rollback would return to itself."""
    add(registry, tmp_path, "one")
    registry.promote("one", at=AT, why="better")
    assert registry.promote("one", at=AT, why="again").previous == (None,)


def test_a_bundle_id_is_taken_once(registry, tmp_path):
    """Versions are immutable."""
    add(registry, tmp_path, "one")
    with pytest.raises(RegistryError, match="`one` exists"):
        registry.add_bundle(tmp_path / "made-one", "one")


@pytest.mark.parametrize("name", ["absent", "../secrets", "/etc"])
def test_a_bundle_that_is_not_in_the_registry_is_refused(registry, tmp_path, name):
    """Names do not lead out of the folder."""
    (tmp_path / "secrets").mkdir()
    (registry.root / "bundles").mkdir(parents=True)
    with pytest.raises(RegistryError, match="Expected a stored bundle"):
        registry.promote(name, at=AT, why="")


def test_an_unknown_revision_and_a_broken_pointer_say_where(registry):
    """Expected, found, where."""
    with pytest.raises(RegistryError, match="no revision 7"):
        registry.catalog(7)
    publish(registry)
    registry.pointer_path.write_text("{")
    with pytest.raises(RegistryError, match="Expected a pointer"):
        registry.current()


def test_every_move_is_in_the_history(registry, tmp_path):
    """Who looks later sees when and why."""
    publish(registry, "spring")
    add(registry, tmp_path, "one")
    registry.promote("one", at=AT, why="gain 0.01")
    history = (registry.root / "history.jsonl").read_text()
    assert "catalog 1: spring" in history
    assert "gain 0.01" in history
