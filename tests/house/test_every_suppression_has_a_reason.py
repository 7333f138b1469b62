import re
import tokenize

MARKS = re.compile(r"# (?:noqa|type: ignore|pragma: no cover|fmt: (?:off|skip))(?::? ?\[?[A-Za-z0-9_, -]*\]?)?")
SELF_EXPLAINING = re.compile(r"# fmt: (?:off|skip|on)")  # a table that is easier to read as it was typed
SHORTEST = 8  # characters; a reason is at least two words
ROOMS = ("service", "features", "training", "loadtests", "tests")


def bare_suppressions(path):
    """Line numbers of suppressions that no reason follows on the same line."""
    with tokenize.open(path) as source:
        comments = [token for token in tokenize.generate_tokens(source.readline) if token.type == tokenize.COMMENT]
    suppressing = [token for token in comments if MARKS.match(token.string) and not SELF_EXPLAINING.match(token.string)]
    return [token.start[0] for token in suppressing if len(MARKS.sub("", token.string).strip("# :,")) < SHORTEST]


def test_every_suppression_of_a_checker_says_why(root):
    """Whoever silences a checker leaves the reason beside it."""
    modules = [path for room in ROOMS for path in (root / room).rglob("*.py")]
    bare = [f"{path.relative_to(root)}:{line}" for path in modules for line in bare_suppressions(path)]
    assert modules
    assert bare == []


def test_a_suppression_without_a_reason_is_found(tmp_path):
    """The check tells a bare suppression from one with its reason, and from a text that only mentions one."""
    mark = "# no" + "qa: S101"
    module = tmp_path / "module.py"
    module.write_text(f"a = 1  {mark}\nb = 2  {mark}  # the value is a constant\nc = '{mark}'\n")
    assert bare_suppressions(module) == [1]
