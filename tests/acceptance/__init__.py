"""What the project must show, measured: `make accept AREA=loop` runs every row of an area and prints a table."""
