"""Merge methods: the file name is the name, `METHOD` is the class."""
