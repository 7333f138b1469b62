"""The ladder: shadow, canary, champion; by hand only with a name and a reason."""

import getpass
import hashlib
import json

import pytest

from service.cli import main
from service.errors import BundleRefused
from service.registry import Registry
from training.promotion import promote_without_evidence, stage_canary, stage_shadow


def registry(home) -> Registry:
    return Registry(home / "registry")


def run(home, *arguments: str) -> int:
    return main(["--home", str(home), *arguments])


def test_a_bundle_is_staged_and_taken_off_by_commands_and_models_shows_where_it_stands(own_home, capsys):
    """Shadow, canary with its share, nothing; the history says each."""
    [bundle] = registry(own_home).bundles()
    states = []
    for step in (["shadow", bundle], ["canary", bundle, "--share", "0.2", "--why", "looks good"], ["off", bundle]):
        assert run(own_home, "stage", *step) == 0
        capsys.readouterr()
        assert run(own_home, "models") == 0
        [line] = [line for line in capsys.readouterr().out.splitlines() if bundle in line]
        states.append(line.split("  ")[-1].strip() if "canary" in line or "shadow" in line else "")
    assert states == ["shadow", "canary, 0.2 of the customers", ""]
    whys = [json.loads(line)["why"] for line in (own_home / "registry" / "history.jsonl").read_text().splitlines()]
    assert whys[-3:] == [f"shadow {bundle}", f"canary {bundle}, 0.2 of the customers: looks good", f"off {bundle}"]


def test_what_does_not_load_is_not_staged(own_home):
    """A broken file is found before it is asked anything."""
    [bundle] = registry(own_home).bundles()
    before = registry(own_home).current()
    model = registry(own_home).bundle_folder(bundle) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(BundleRefused, match="checksum"):
        stage_shadow(own_home, bundle)
    with pytest.raises(BundleRefused, match="checksum"):
        stage_canary(own_home, bundle, 0.1)
    assert registry(own_home).current() == before


def test_a_share_must_be_a_share(own_home, capsys):
    """Wrong usage, and it says what was expected."""
    with pytest.raises(SystemExit) as ended:
        run(own_home, "stage", "canary", "some", "--share", "5")
    assert ended.value.code == 2
    assert "Expected a share between 0 and 1, got `5`" in capsys.readouterr().err


def test_force_leaves_a_note_of_who_when_why_and_what_spoke_against_it(own_home, capsys):
    """It names the bundle by its checksum and the reasons of the gate; `models` tells it to whoever looks."""
    [bundle] = registry(own_home).bundles()
    (own_home / "learning.toml").write_text("[gate]\nmost_bytes = 10\n")
    assert run(own_home, "promote", "--force", "--why", "the board wants it", "--by", "ann") == 0
    [note] = registry(own_home).notes()
    manifest = registry(own_home).bundle_folder(bundle) / "manifest.json"
    assert (note.bundle, note.by, note.why) == (bundle, "ann", "the board wants it")
    assert note.checksum == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert note.at.startswith("20")
    assert note.refused[0].startswith("size: the model has")
    capsys.readouterr()
    run(own_home, "models")
    assert f"`{bundle}` was forced by ann at {note.at}: the board wants it (against it: size: the model has" in (
        capsys.readouterr().out.replace("\n", " ")
    )


def test_force_without_a_reason_is_refused_and_leaves_nothing(own_home, capsys):
    """Nobody knows later why it served."""
    assert run(own_home, "promote", "--force") == 1
    assert "Expected a reason" in capsys.readouterr().err
    assert registry(own_home).notes() == []
    assert registry(own_home).current().champion is None


def test_who_insists_is_the_login_where_no_name_is_given(own_home):
    """As the system knows whoever runs the command."""
    promote_without_evidence(own_home, registry(own_home).bundles()[0], "for tests")
    assert registry(own_home).notes()[0].by == getpass.getuser()


def test_a_bundle_that_cannot_be_evaluated_can_be_forced_and_the_note_says_so(own_home):
    """No rows that it has not seen, or none at all."""
    (own_home / "learning.toml").write_text('[windows]\nclick = "900d"\n')
    assert run(own_home, "promote", "--force", "--why", "a new shop", "--by", "ann") == 0
    [reason] = registry(own_home).notes()[0].refused
    assert reason.startswith("it could not be evaluated: Expected rows")


def test_promoting_a_canary_ends_it(own_home):
    """It decides for everybody: nobody is a part any more."""
    [bundle] = registry(own_home).bundles()
    stage_canary(own_home, bundle, 0.1)
    assert run(own_home, "promote", bundle) == 0
    now = registry(own_home).current()
    assert (now.champion, now.challengers) == (bundle, ())


@pytest.mark.parametrize("every", ["0", "soon", "1.5"])
def test_a_guard_looks_every_so_many_whole_seconds(own_home, capsys, every):
    """Anything else is wrong usage."""
    with pytest.raises(SystemExit) as ended:
        run(own_home, "guard", "--every", every)
    assert ended.value.code == 2
    assert f"Expected a whole number, 1 or more, got `{every}`" in capsys.readouterr().err
