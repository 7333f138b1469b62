import re
import shlex

import pytest


@pytest.fixture(scope="module")
def instructions(root):
    """(keyword, rest) of every instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (root / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def of_the_context(instructions):
    """The arguments of every COPY that reads from the checkout, not from another stage."""
    copies = [shlex.split(rest) for keyword, rest in instructions if keyword == "COPY"]
    return [arguments for arguments in copies if not arguments[0].startswith("--from")]


def test_every_copied_path_exists(root, instructions):
    """A build cannot fail on a path that was renamed."""
    sources = [source for arguments in of_the_context(instructions) for source in arguments[:-1] if not source.startswith("--")]
    assert sources
    assert [source for source in sources if not (root / source).exists()] == []
    let_in = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source.partition("/")[0] for source in sources} == let_in


def test_only_what_serves_is_copied(instructions):
    """Neither training nor tests are in the image."""
    sources = {source.rstrip("/") for arguments in of_the_context(instructions) for source in arguments[:-1]}
    assert {"service", "features", "requirements/serving.txt"} <= sources
    assert sources.isdisjoint({".", "training", "tests", "loadtests", "requirements/dev.txt", "requirements/training.txt"})


def test_the_image_has_two_stages_and_ends_without_privileges(instructions):
    """The compiler stays in the first stage; the process is not root."""
    keywords = [keyword for keyword, _ in instructions]
    assert keywords.count("FROM") == 2
    users = [rest for keyword, rest in instructions if keyword == "USER"]
    assert users
    assert users[-1].split(":")[0] not in {"root", "0"}


def test_health_is_readiness_asked_without_a_shell_tool(instructions):
    """The slim image has no curl: Python asks /ready."""
    health = next(rest for keyword, rest in instructions if keyword == "HEALTHCHECK")
    assert "/ready" in health
    assert "python" in health
