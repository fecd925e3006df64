"""Merging: plans, the two executors, and the methods, one file each."""
