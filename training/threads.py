"""How many threads grow trees."""

# LightGBM's threads wait for each other at each split, spinning: where another process keeps a core, each wait takes as long as
# its turn there. 60 rounds of 25 inputs on two cores, in seconds, by one thread and by two: 20,000 rows 0.16 and 0.10 on an idle
# machine, 0.17 and 0.60 beside one busy process; 400,000 rows 2.4 and 1.4, and 2.6 and 5.5.
FEW_ROWS = 200_000


def threads_for(rows: int, most: int = 2) -> int:
    """One for few rows, else as many as there may be. What is learned is the same."""
    return most if rows >= FEW_ROWS else 1
