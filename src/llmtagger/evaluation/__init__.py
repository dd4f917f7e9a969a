"""Measuring: labelled product sets, honest splits of them, and what the answers are worth."""
