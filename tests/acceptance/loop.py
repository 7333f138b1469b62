"""Area `loop`: from a real randomised log to a better bundle in service, on one machine."""

from tests.acceptance.rows import footprint, frequencies, fresh_clone, hillstrom, house_figures, swap

ROWS = [fresh_clone.ROW, hillstrom.ROW, swap.ROW, frequencies.ROW, footprint.ROW, house_figures.ROW]
