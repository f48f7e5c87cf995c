"""Reports: plots and tables of runs as PNG and one HTML page, and the way between two found networks."""
