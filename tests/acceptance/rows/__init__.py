"""One module per row, or per few rows that share their preparation; the area's module lists them."""
