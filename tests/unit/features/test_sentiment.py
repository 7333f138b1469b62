"""What texts sound like: languages by their script, bounds, and how often the score is right."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from features.sentiment import MOST_SCORED, Neutral, Sentiment, language_of
from tests.acceptance.row import NotRun
from tests.acceptance.rows.feedback_text import accuracy, chinese_sentences, english_sentences

HOUSE = Path(__file__).resolve().parents[3]
SENTIMENT = Sentiment()


class Counting:
    """Knows what it was given."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def score(self, text: str) -> float:
        self.lengths.append(len(text))
        return 0.123456


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Very good!", "english"), ("Très bien", "english"), (":-)", "english"), ("", "english"), ("42", "english"),
        ("很好", "chinese"), ("iPhone 很好用", "chinese"), ("I love the food in 北京", "english"),
        ("とても良い商品", "other"), ("정말 좋아요", "other"), ("Отлично, спасибо", "other"), ("α版很好用", "chinese"),
    ],
)  # fmt: skip
def test_languages_are_told_apart_by_their_script(text, language):
    """Whichever there are more words of; Japanese and Korean are not Chinese."""
    assert language_of(text) == language


@pytest.mark.parametrize("text", ["", "   ", "\n", "Отлично", "正直言ってひどい"])
def test_what_cannot_be_read_is_neutral(text):
    """Nothing is guessed."""
    assert SENTIMENT.score(text) == 0.0


@pytest.mark.parametrize(("good", "bad"), [("I love it!", "I hate it!"), ("It is not bad.", "Not good."), ("很满意", "太差了")])
def test_good_is_above_zero_and_bad_below(good, bad):
    """In both languages, with negation."""
    assert SENTIMENT.score(bad) < 0 < SENTIMENT.score(good)


def test_only_the_beginning_of_a_long_text_is_read():
    """A bound on what one text can cost; four digits are enough to tell scores apart."""
    counting = Counting()
    sentiment = Sentiment({"english": counting, "chinese": Neutral(), "other": Neutral()})
    assert sentiment.score("word " * 5000) == 0.1235
    assert counting.lengths == [MOST_SCORED]


@settings(max_examples=300)
@given(st.text(st.characters(codec="utf-8", include_characters="好坏不 !'?:)(很"), max_size=80))
def test_any_text_has_one_score_within_bounds(text):
    """Whatever people send, and the same each time."""
    score = SENTIMENT.score(text)
    assert -1.0 <= score <= 1.0
    assert score == SENTIMENT.score(text)


def test_threads_that_come_first_together_load_once_and_agree():
    """The first call of several requests at once."""
    fresh = Sentiment()
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(fresh.score, ["不推荐"] * 16))) == 1


def documented(language: str) -> float:
    """The share that the documentation states."""
    found = re.search(rf"\| {language} \| ([\d,]+) \| (0\.\d+) \|", (HOUSE / "docs" / "feedback.md").read_text())
    assert found is not None
    return float(found[2])


def test_the_documented_accuracy_in_chinese_is_the_measured_one():
    """To three digits, over sixty sentences, half of them good."""
    sentences = chinese_sentences()
    assert (len(sentences), sum(one.good for one in sentences)) == (60, 30)
    assert documented("Chinese") == pytest.approx(accuracy(sentences), abs=0.0005)


def test_the_documented_accuracy_in_english_is_the_measured_one():
    """To three digits, over all two thousand sentences."""
    try:
        sentences = english_sentences(HOUSE)
    except NotRun as missing:
        pytest.skip(str(missing))
    assert len(sentences) == 2000
    assert documented("English") == pytest.approx(accuracy(sentences), abs=0.0005)
