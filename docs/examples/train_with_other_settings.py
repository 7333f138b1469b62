"""A bundle by settings of your own, promoted if it is proven. `python train_with_other_settings.py HOME`."""

import sys
from pathlib import Path

from training.library import FitSettings, evaluate, promote, train

home = Path(sys.argv[1])
bundle = train(home, "click", share=0.6, settings=FitSettings(learning_rate=0.1, leaves=7, rounds=150, ridge=10.0))
report = evaluate(home, bundle=bundle)
if report.verdict == "promote":
    promote(home, report, why="fewer leaves")
    print(f"{bundle} serves: {report.reasons[0]}")
else:
    print(f"{bundle} does not serve: {'; '.join(report.reasons)}")
