"""Comparing models on the same items: differences with intervals, estimates from some items, races."""
