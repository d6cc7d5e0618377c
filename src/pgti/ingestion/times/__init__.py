"""Times of rows: text, numbers and columns of them, clocks, gaps, rules and resampling."""
