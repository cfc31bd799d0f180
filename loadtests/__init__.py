"""Benchmarks of the product beside its peers; figures are ratios and CPU time, never a pass or a fail."""
