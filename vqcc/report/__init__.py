"""Reports for people: bars in a terminal, plots in files."""
