"""Immutable versions, and a pointer that moves as a whole."""

import json
import multiprocessing
import stat

import pytest

from service.errors import RegistryError
from service.registry import Challenger, Note, Pointer, Registry

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


def test_a_bundle_takes_the_place_of_the_one_that_was_expected_and_of_no_other(registry, tmp_path):
    """What was proven against one champion is not proven against another, nor against none."""
    for name in ("one", "two", "three"):
        add(registry, tmp_path, name)
    assert registry.promote("one", at=AT, why="better", expected=None).champion == "one"
    assert registry.promote("two", at=AT, why="better", expected="one").champion == "two"
    with pytest.raises(RegistryError, match="Expected that `one` serves, found that `two` does"):
        registry.promote("three", at=AT, why="better", expected="one")
    with pytest.raises(RegistryError, match="Expected that no bundle serves, found that `two` does"):
        registry.promote("three", at=AT, why="better", expected=None)
    assert registry.current().champion == "two"
    assert registry.promote("three", at=AT, why="whatever serves").champion == "three"


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


def test_bytes_that_are_no_text_and_files_that_cannot_be_read_say_where(registry):
    """A folder stands for a file that the operating system refuses."""
    revision = publish(registry)
    stored = registry.root / "catalogs" / f"{revision}.json"
    reads = ((stored, b"author", lambda: registry.catalog(revision)), (registry.pointer_path, b"champion", registry.current))
    for path, field, read in reads:
        path.write_bytes(b'{"%b": "\xff"}' % field)
        with pytest.raises(RegistryError, match=f"Expected a .*utf-8.* - at `{path}`"):
            read()
        path.unlink()
        path.mkdir()
        with pytest.raises(RegistryError, match=f"Expected a .*Is a directory.* - at `{path}`"):
            read()


def test_a_note_of_bytes_that_are_no_text_says_where(registry):
    """As one that was changed."""
    registry.root.mkdir()
    registry.leave_note(Note("b", "c", "ann", AT, "why", ("reason",)))
    [path] = (registry.root / "notes").iterdir()
    path.write_bytes(b'{"bundle": "\xff"}')
    with pytest.raises(RegistryError, match=f"Expected a note, found something else: .* - at `{path}`"):
        registry.notes()


def test_a_bundle_whose_name_no_disk_can_hold_is_refused(registry, tmp_path):
    """The operating system is asked, and refuses."""
    add(registry, tmp_path, "one")
    with pytest.raises(RegistryError, match="Expected a stored bundle that can be read"):
        registry.bundle_folder("x" * 300)


def test_a_stored_bundle_can_be_read_by_everybody(registry, tmp_path):
    """Whoever trains may be somebody else than whoever serves."""
    made = tmp_path / "made"
    made.mkdir(mode=0o700)
    (made / "model.onnx").write_text("one")
    (made / "model.onnx").chmod(0o600)
    folder = registry.add_bundle(made, "one")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "model.onnx")] == [0o755, 0o644]


def test_every_move_is_in_the_history(registry, tmp_path):
    """Who looks later sees when and why."""
    publish(registry, "spring")
    add(registry, tmp_path, "one")
    registry.promote("one", at=AT, why="gain 0.01")
    history = (registry.root / "history.jsonl").read_text()
    assert "catalog 1: spring" in history
    assert "gain 0.01" in history


def test_a_bundle_climbs_from_shadow_to_canary_to_champion_and_leaves_each_rung(registry, tmp_path):
    """It is on one rung at a time, and every step is in the history."""
    for name in ("one", "two"):
        add(registry, tmp_path, name)
    registry.promote("one", at=AT, why="first")
    assert registry.shadow("two", at=AT, why="shadow").shadows == ("two",)
    staged = registry.challenge("two", 0.1, at=AT, why="canary")
    assert (staged.shadows, staged.challengers) == ((), (Challenger("two", 0.1, AT),))
    promoted = registry.promote("two", at=AT, why="climbed")
    assert (promoted.champion, promoted.shadows, promoted.challengers) == ("two", (), ())
    whys = [json.loads(line)["why"] for line in (registry.root / "history.jsonl").read_text().splitlines()]
    assert whys == ["first", "shadow", "canary", "climbed"]


def test_what_is_staged_may_leave_once_and_the_champion_is_not_staged(registry, tmp_path):
    """Each refusal says what was expected and what was found."""
    for name in ("one", "two", "three"):
        add(registry, tmp_path, name)
    registry.promote("one", at=AT, why="")
    with pytest.raises(RegistryError, match="`one` is the champion"):
        registry.challenge("one", 0.1, at=AT, why="")
    with pytest.raises(RegistryError, match="`one` is the champion"):
        registry.shadow("one", at=AT, why="")
    registry.challenge("two", 0.1, at=AT, why="")
    with pytest.raises(RegistryError, match="one canary at a time, found `two`"):
        registry.challenge("three", 0.1, at=AT, why="")
    assert registry.challenge("two", 0.2, at=AT, why="more").challengers == (Challenger("two", 0.2, AT),)
    assert registry.step_off("two", at=AT, why="").challengers == ()
    with pytest.raises(RegistryError, match="`two` is neither"):
        registry.step_off("two", at=AT, why="")
    with pytest.raises(RegistryError, match="Expected a stored bundle"):
        registry.shadow("absent", at=AT, why="")


def test_a_rollback_takes_shadows_and_canaries_off(registry, tmp_path):
    """Also where there is no champion to return to; where there is nothing at all, it says so."""
    for name in ("one", "two", "three"):
        add(registry, tmp_path, name)
    registry.promote("one", at=AT, why="")
    registry.promote("two", at=AT, why="")
    registry.shadow("three", at=AT, why="")
    registry.challenge("one", 0.5, at=AT, why="")
    back = registry.rollback(at=AT, why="")
    assert (back.champion, back.shadows, back.challengers) == ("one", (), ())
    alone = Registry(tmp_path / "alone")
    (tmp_path / "alone" / "bundles" / "first").mkdir(parents=True)
    alone.challenge("first", 0.5, at=AT, why="")
    assert alone.rollback(at=AT, why="") == Pointer()
    with pytest.raises(RegistryError, match="Expected a previous champion"):
        alone.rollback(at=AT, why="")


def test_a_new_champion_begins_the_evidence_of_a_canary_anew(registry, tmp_path):
    """It was proven against another one."""
    for name in ("one", "two"):
        add(registry, tmp_path, name)
    registry.challenge("two", 0.1, at=AT, why="")
    assert registry.promote("one", at="2026-02-01T00:00:00Z", why="").challengers == (
        Challenger("two", 0.1, "2026-02-01T00:00:00Z"),
    )


def test_a_pointer_of_before_is_still_read(registry):
    """As it was written when nothing could be staged."""
    registry.root.mkdir()
    registry.pointer_path.write_text('{"catalog":1,"champion":"a","previous":[null],"challengers":[],"shadows":[],"others":{}}')
    assert registry.current() == Pointer(1, "a", (None,))


def test_a_note_that_was_changed_or_taken_out_is_noticed(registry):
    """Each is sealed, and names the one before."""
    registry.root.mkdir()
    for by in ("ann", "bob", "eve"):
        registry.leave_note(Note("b", "c", by, AT, "why", ("reason",)))
    first, second, third = sorted((registry.root / "notes").iterdir())
    assert [note.by for note in registry.notes()] == ["ann", "bob", "eve"]
    text = second.read_text()
    second.write_text(text.replace("bob", "rob"))
    with pytest.raises(RegistryError, match=f"found another - at `{second}`"):
        registry.notes()
    second.unlink()
    with pytest.raises(RegistryError, match=f"found another - at `{third}`"):
        registry.notes()
    assert first.exists()
