"""Area `customer`: one view of the customer, live."""

from tests.acceptance.rows import feedback_text, freshness, intake_rate, online_offline, real_histories, rebuilding, story

ROWS = [story.ROW, real_histories.ROW, online_offline.ROW, freshness.ROW, intake_rate.ROW, rebuilding.ROW, feedback_text.ROW]
