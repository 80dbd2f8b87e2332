"""The report of a run: one HTML file, which can be mailed and opens without a network."""
