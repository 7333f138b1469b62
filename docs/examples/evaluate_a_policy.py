"""What the newest bundle is worth beside the log and beside each single action. `python evaluate_a_policy.py HOME`."""

import sys
from pathlib import Path

from training.library import evaluate

report = evaluate(Path(sys.argv[1]))
for name, policy in sorted(report.policies.items(), key=lambda item: -item[1].value)[:5]:
    low, high = policy.ci
    print(f"{name:40} {policy.value:.4f}, 95 % interval {low:.4f} to {high:.4f}, by {policy.estimator}")

low, high = report.gain_over_logged.ci
print(f"gain over the log: {report.gain_over_logged.value:+.4f}, between {low:+.4f} and {high:+.4f}")
print(f"{report.verdict}: {'; '.join(report.reasons)}")
