"""Timings of tlnb against a plain loop and fastai. Run: python -m tests.benchmarks.speed --data FOLDER."""
