"""Reading a reviewed document: plain values, the line of each, and what is not read at all."""

import pytest

from service.catalog.documents import DEEPEST, LARGEST, read_document
from service.errors import CatalogInvalid


def problems(text: str) -> list[str]:
    with pytest.raises(CatalogInvalid) as caught:
        read_document(text, "cat.yaml")
    return list(caught.value.problems)


def test_every_value_knows_the_line_it_was_written_on():
    """Lists, mappings and what they hold are counted from line 1; a key counts where it stands."""
    document = read_document("a: 1\nb:\n  - x\n  - {c: true}\n", "cat.yaml")
    assert document.values == {"a": 1, "b": ["x", {"c": True}]}
    assert document.lines == {"": 1, "a": 1, "b": 2, "b[0]": 3, "b[1]": 4, "b[1].c": 4}


def test_a_date_stays_the_text_that_was_written():
    """What is stored must survive JSON."""
    assert read_document("from: 2026-01-01", "cat.yaml").values == {"from": "2026-01-01"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "cat.yaml: line 2: Expected each key once, got `a`"),
        ("a: 1\n2: x\n", "cat.yaml: line 2: Expected a text as key (quote it), got `2`"),
        ("yes: 1\n", "cat.yaml: line 1: Expected a text as key (quote it), got `yes`"),
        ("a: 1\n[b]: x\n", "cat.yaml: line 2: Expected a text as key, got `sequence`"),
        ("a: 1\n\tb: 2\n", "cat.yaml: line 2: Expected YAML, got something else: found a tab"),
        ("a: [1\nb: 2\n", "cat.yaml: line 2: Expected YAML"),
        ("a: .nan\n", "cat.yaml: line 1: Expected a finite number, got `.nan`"),
        ("a: .inf\n", "cat.yaml: line 1: Expected a finite number, got `.inf`"),
        (f"a: 1\nb: 1{'0' * 30}\n", "cat.yaml: line 2: Expected a finite number"),
        (f"a: {'9' * 5000}\n", "cat.yaml: line 1: Expected a finite number"),
        ("a: !!int abc\n", "cat.yaml: line 1: Expected a finite number, got `abc`"),
        ("a: 1\nb: !!int ''\n", "cat.yaml: line 2: Expected a finite number, got ``"),
        ("a: 1\nb: !!float '_'\n", "cat.yaml: line 2: Expected a finite number, got `_`"),
        (f"a: !!float {'59:' * 300}1\n", "cat.yaml: line 1: Expected a finite number, got `59:59:"),
        ("a: 1\nb: !!bool maybe\n", "cat.yaml: line 2: Expected `true` or `false`, got `maybe`"),
        ("a: !!binary aGk=\n", "cat.yaml: line 1: Expected a plain value, got `tag:yaml.org,2002:binary`"),
        ("a: !!python/name:os.system x\n", "cat.yaml: line 1: Expected a plain value"),
        ("a: *nothing\n", "cat.yaml: line 1: Expected YAML, got something else: found undefined alias"),
        ("- a\n", "cat.yaml: line 1: Expected a mapping, got list"),
        ("", "cat.yaml: line 1: Expected a mapping, got NoneType"),
        ("a: &x [*x]\n", f"cat.yaml: Expected YAML, got something else: more than {DEEPEST} levels at line 1"),
        ("a: 1\n--- \nb: 2\n", "cat.yaml: line 2: Expected YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(text, expected):
    """Doubtful input is an error of the document, never a guess."""
    assert problems(text)[0].startswith(expected)


def test_a_small_document_cannot_blow_up_through_aliases():
    """Nine levels of nine references each are ten million values from two hundred bytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "values after aliases are expanded" in problems("\n".join(lines))[0]


def test_a_document_beyond_ten_megabytes_is_not_parsed():
    """The size is checked before anything else."""
    assert problems("#" * (LARGEST + 1))[0].startswith(f"cat.yaml: Expected at most {LARGEST} bytes")


def test_all_repeated_keys_are_named_at_once():
    """One reading shows every mistake."""
    assert len(problems("a: 1\na: 2\nb: {c: 1, c: 2}\n")) == 2
