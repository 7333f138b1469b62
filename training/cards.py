"""A bundle's card: what of it fits no table, in words."""

from collections.abc import Mapping

from service.bundles.manifest import Manifest
from training.backfill import card

LEFT_OUT = "left_out"  # among the figures of a bundle
SLOT_FIGURE = "slot."  # begins the names of some of them


def slots_told(metrics: Mapping[str, float]) -> str:
    """A bundle's figures of slots in words; empty where it has none."""
    shares = {int(name.removeprefix(SLOT_FIGURE)): share for name, share in metrics.items() if name.startswith(SLOT_FIGURE)}
    told = ", ".join(f"{share:.0%} in slot {slot}" for slot, share in sorted(shares.items()))
    return f"of what it brings in the first slot, an action brings {told}" if told else ""


def told_of(manifest: Manifest) -> tuple[str, ...]:
    """What of a bundle's card fits no table: values that no row recorded, what slots are worth, from whom it has not learned."""
    slots, rows = slots_told(manifest.metrics), manifest.metrics.get(LEFT_OUT, 0.0)
    without = f"left out: {rows:,.0f} rows of customers who were erased or do not want to be known"
    return (*card(manifest.backfilled), *([slots] if slots else []), *([without] if rows else []))
