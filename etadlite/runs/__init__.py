"""A run directory from settings to report, predictions on new videos, and the studies."""
