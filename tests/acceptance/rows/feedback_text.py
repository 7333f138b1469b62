"""Row 7: what texts sound like, against people's judgement: published English sentences, and Chinese ones of our own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from features.sentiment import Sentiment
from tests.acceptance.row import Context, Measured, NotRun, Row

BAR = 0.80
ENGLISH = ("amazon_cells_labelled.txt", "imdb_labelled.txt")  # a sentence, a tabulator, 1 or 0
CHINESE = Path(__file__).parents[1] / "chinese_sentences.tsv"  # the other way round


class Judged(NamedTuple):
    """A sentence, and whether people call it good."""

    text: str
    good: bool


def english_sentences(root: Path) -> list[Judged]:
    """All of them. Raises NotRun."""
    folder = Path(os.environ.get("NEXTBEST_DATA") or root.parent / "shared" / "data") / "sentiment"
    if not folder.is_dir():
        raise NotRun("the sentences are not here: set NEXTBEST_DATA to a folder that holds sentiment/*_labelled.txt")
    lines = [line for name in ENGLISH for line in (folder / name).read_text(encoding="utf-8").split("\n") if line.strip()]
    return [Judged(text.strip(), label == "1") for text, _, label in (line.rpartition("\t") for line in lines)]


def chinese_sentences() -> list[Judged]:
    """Half of them good, half bad: shopping, banking, hotels, films; written for this, and not looked at by the library."""
    lines = CHINESE.read_text(encoding="utf-8").splitlines()
    return [Judged(text, label == "1") for label, _, text in (line.partition("\t") for line in lines)]


def accuracy(sentences: Sequence[Judged]) -> float:
    """The share that is told rightly, where above 0 means good; a sentence without an opinion counts as bad."""
    sentiment = Sentiment()
    return sum((sentiment.score(one.text) > 0) == one.good for one in sentences) / len(sentences)


def measure(context: Context) -> Measured:
    english, chinese = english_sentences(context.root), chinese_sentences()
    right, rightly = accuracy(english), accuracy(chinese)
    figure = f"English {right:.3f} of {len(english):,} sentences; Chinese {rightly:.3f} of {len(chinese)}"
    return Measured(figure, right >= BAR and rightly >= BAR and len(english) == 2000)  # as published


ROW = Row(7, "what customers write: good or bad", f"accuracy >= {BAR:.2f} of 2,000 sentences, and of Chinese ones", measure)
