"""Area `loop`: from a real randomised log to a better bundle in service, on one machine."""

from tests.acceptance.rows import footprint, fresh_clone, house_figures

ROWS = [fresh_clone.ROW, footprint.ROW, house_figures.ROW]
