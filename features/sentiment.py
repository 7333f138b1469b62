"""What a text sounds like: a number from -1 (bad) to 1 (good), for English and Chinese, told apart by their script.

Each language is a library behind one method; what neither can read is neutral, 0. Pure: a text has one score for good, as long as
the libraries stay at their versions. Why these: docs/decisions/0011.
"""

import importlib
import re
import tempfile
from collections.abc import Mapping
from threading import Lock
from typing import Any, Literal, Protocol

Language = Literal["english", "chinese", "other"]

MOST_SCORED = 1000  # characters of a text: 1.5 ms in English, 5 ms in Chinese, 14 ms for nothing but emoji or one character
PER_WORD = 2  # characters of a Chinese word, mostly

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")
NEIGHBOURS = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")  # kana and hangul: Japanese and Korean use Chinese characters, too
OTHER_WORD = re.compile(r"[^\W\d_A-Za-z\u00c0-\u024f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


class Scorer(Protocol):
    """Reads one language."""

    def score(self, text: str) -> float:
        """From -1, bad, to 1, good; 0 is neutral."""


class Neutral:
    """Has no opinion."""

    def score(self, _text: str) -> float:
        return 0.0


class English:
    """VADER (Hutto & Gilbert 2014): a lexicon, and rules for negation, emphasis and `but`. 80 us for a sentence."""

    def __init__(self) -> None:
        self._loading = Lock()
        self._analyzer: Any = None

    def score(self, text: str) -> float:
        return float(self._loaded().polarity_scores(text)["compound"])

    def _loaded(self) -> Any:  # noqa: ANN401  # chosen by name when the first text comes
        """20 ms and 5 MB, once."""
        with self._loading:
            if self._analyzer is None:
                self._analyzer = importlib.import_module("vader").SentimentIntensityAnalyzer()
        return self._analyzer


class Chinese:
    """Words by jieba, then naive Bayes from reviews by pysenti. 0.1 ms for a sentence."""

    def __init__(self) -> None:
        self._loading = Lock()
        self._classifier: Any = None

    def score(self, text: str) -> float:
        return 2.0 * float(self._loaded().classify(text)["positive_prob"]) - 1.0

    def _loaded(self) -> Any:  # noqa: ANN401  # chosen by name when the first text comes
        """2 s and 125 MB, once: a process that never sees Chinese does not pay for it."""
        with self._loading:
            if self._classifier is None:
                jieba = importlib.import_module("jieba")
                jieba.setLogLevel("ERROR")
                # jieba unmarshals a file of a known name from the folder for temporary files, where anybody may put one
                with tempfile.TemporaryDirectory() as folder:
                    jieba.dt.tmp_dir = folder
                    jieba.initialize()
                self._classifier = importlib.import_module("pysenti").ModelClassifier()
        return self._classifier


class Sentiment:
    """Scores texts in whichever language they are. Threads may share it."""

    def __init__(self, scorers: Mapping[Language, Scorer] | None = None) -> None:
        self._scorers = scorers or {"english": English(), "chinese": Chinese(), "other": Neutral()}

    def score(self, text: str) -> float:
        """From -1 to 1, rounded to what a reader can tell apart; 0 where there is nothing to read."""
        read = text[:MOST_SCORED]
        return round(self._scorers[language_of(read)].score(read), 4) if read.strip() else 0.0


def language_of(text: str) -> Language:
    """By script, whichever there are more words of; one without letters (`:-)`) is read as English."""
    chinese, english = len(HAN.findall(text)) / PER_WORD, len(LATIN_WORD.findall(text))
    if NEIGHBOURS.search(text) or len(OTHER_WORD.findall(text)) > chinese + english:
        return "other"
    return "chinese" if chinese and chinese >= english else "english"
