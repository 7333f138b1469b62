"""Everything that knows HTTP, and no rule of business."""
