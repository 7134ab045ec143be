"""Benchmarks against torch: timing, cases, records, bounds. What is measured lies in ``benchmarks/suites``."""
