"""`nextbest catalog` on real files and a real registry."""

import json
from pathlib import Path

import pytest

from service.catalog.commands import main
from service.errors import RegistryError
from service.registry import Registry

TEXT = """catalog: 1
note: first
rules: {adult: "customer.age >= 18"}
issues: [{id: sales, eligibility: [adult]}]
groups: [{id: cards, issue: sales}]
actions:
  - {id: gold, group: cards, kind: offer, value: 1, treatments: [{id: hero, placements: [home]}]}
placements:
  - {id: home, channel: web, fallback: {action: welcome, kind: content}}
"""


@pytest.fixture
def run(tmp_path: Path, capsys):
    """Runs a command on a document and gives its exit code, standard output and errors."""

    def command(verb: str, *options: str, text: str | None = TEXT):
        path = tmp_path / "cat.yaml"
        if text is not None:
            path.write_text(text)
        file = (str(path),) if verb in ("check", "publish") else ()
        code = main(["catalog", verb, *file, *options], home=tmp_path / "home", redis_url=None)
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home" / "registry")


def test_checking_a_good_catalog_says_what_it_holds_and_publishes_nothing(run, registry):
    code, out, _ = run("check")
    assert code == 0
    assert out.startswith("ok: 1 actions in 1 groups, 1 placements, 1 distinct rules, fingerprint ")
    assert registry.revisions() == []


def test_every_mistake_is_printed_with_its_line_and_nothing_is_published(run, registry):
    code, out, err = run("publish", text=TEXT.replace("value: 1", "value: -1").replace("channel: web", "slots: 0"))
    assert (code, out) == (1, "")
    assert "error: cat.yaml: line 7: Expected a number of at least 0, got `-1` - at `actions[0].value`" in err
    assert "error: cat.yaml: line 9: Expected a whole number from 1 to 50, got `0` - at `placements[0].slots`" in err
    assert "3 mistakes; nothing was published" in err
    assert registry.revisions() == []


def test_publishing_makes_a_revision_that_serves_with_author_and_note(run, registry):
    code, out, _ = run("publish", "--author", "ada", "--note", "spring")
    assert (code, out.split(":")[0]) == (0, "published revision 1")
    revision = registry.catalog(1)
    assert (revision.author, revision.note, registry.current().catalog) == ("ada", "spring", 1)
    assert revision.document["actions"][0]["id"] == "gold"


def test_author_and_note_come_from_the_login_and_the_document(run, registry):
    run("publish")
    assert registry.catalog(1).note == "first"
    assert registry.catalog(1).author


def test_publishing_the_same_content_again_makes_no_new_revision(run, registry):
    run("publish")
    code, out, _ = run("publish", text=TEXT.replace("note: first", "note: again"))
    assert (code, out) == (0, "revision 1 already serves this content: nothing to publish\n")
    assert registry.revisions() == [1]


def test_going_back_to_older_content_is_a_new_revision(run, registry):
    run("publish")
    run("publish", text=TEXT.replace("value: 1", "value: 2"))
    run("publish")
    assert (registry.revisions(), registry.current().catalog) == ([1, 2, 3], 3)


def test_the_list_marks_the_revision_that_serves(run):
    assert "no catalog was published" in run("list")[1]
    run("publish", "--author", "ada")
    run("publish", text=TEXT.replace("value: 1", "value: 2"))
    first, second = run("list")[1].splitlines()
    assert first.startswith("     1  ")
    assert first.endswith("ada  first")
    assert second.startswith("*    2  ")


def test_reverting_publishes_an_earlier_revision_as_the_next_one(run, registry):
    """Nothing is taken out of the history; the note says where it came from."""
    run("publish")
    run("publish", text=TEXT.replace("value: 1", "value: 2"))
    code, out, _ = run("revert", "1", "--author", "ada")
    assert (code, out.split(":")[0]) == (0, "published revision 3")
    assert registry.catalog(3).document == registry.catalog(1).document
    assert (registry.catalog(3).author, registry.catalog(3).note) == ("ada", "back to revision 1")
    assert registry.current().catalog == 3


def test_a_difference_is_told_by_name_whatever_the_order(run, tmp_path):
    """What came, what went, what changed; the note does not count."""
    run("publish")
    changed = TEXT.replace("value: 1", "value: 2, lever: 3").replace("note: first", "note: second")
    changed = changed.replace("{id: sales, eligibility: [adult]}", "{id: care}, {id: sales}")
    run("publish", text=changed)
    assert run("diff", "1", "2")[1].splitlines() == [
        '- issues.sales.eligibility: ["adult"]',
        '+ issues.care: {"id":"care"}',
        "~ actions.gold.value: 1 -> 2",
        "+ actions.gold.lever: 3",
        "4 differences",
    ]
    (tmp_path / "draft.yaml").write_text(changed)
    assert run("diff", str(tmp_path / "draft.yaml"))[1] == "0 differences\n"


def test_a_change_of_order_alone_is_told(run):
    """The first treatment whose rules pass is shown, and experiments share out the customers one after the other."""
    run("publish", text=TEXT.replace("issues: [", "issues: [{id: care}, "))
    run("publish", text=TEXT.replace("eligibility: [adult]}", "eligibility: [adult]}, {id: care}"))
    assert run("diff", "1", "2")[1].splitlines() == [
        '~ issues (order): ["care","sales"] -> ["sales","care"]',
        "1 difference",
    ]


def test_an_arm_whose_bundle_is_not_there_is_refused(run, registry):
    """The champion would decide for it, and the log would tell of the arm."""
    arms = "experiments: [{id: models, share: 0.5, arms: [{id: a}, {id: b, bundle: click-7}]}]\n"
    code, _, err = run("publish", text=TEXT + arms)
    told = "error: Expected a bundle of the registry, got `click-7` - at `experiments.models.arms.b.bundle`"
    assert (code, err.splitlines()[0]) == (1, told)
    assert run("check", text=TEXT + arms)[0] == 1
    assert registry.revisions() == []


def test_a_revision_that_does_not_exist_is_an_error(run):
    """Expected, found, where."""
    with pytest.raises(RegistryError, match="found no revision 7"):
        run("revert", "7")


def test_the_schema_is_printed_as_json(run):
    """For an editor's settings."""
    assert json.loads(run("schema")[1])["title"] == "nextbest catalog"


def test_a_file_that_is_missing_or_no_text_is_named(run, tmp_path):
    assert "Expected a readable catalog, got `No such file or directory`" in run("check", text=None)[2]
    (tmp_path / "cat.yaml").write_bytes(b"catalog: \xff")
    assert "cat.yaml: Expected UTF-8, got other bytes - at byte 9" in run("check", text=None)[2]


def test_wrong_usage_exits_with_two(run):
    with pytest.raises(SystemExit) as caught:
        run("burn")
    assert caught.value.code == 2
