"""Figures, the HTML page and tables, made from results without a network."""
