"""Metrics, baselines, benchmark, comparison, report."""
