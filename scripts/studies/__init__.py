"""Measurements behind single statements of the pages."""
