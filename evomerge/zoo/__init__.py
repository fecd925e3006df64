"""Five small language models with the merging problem inside them, made here from nothing.

Nothing is imported at package level: names and folders are in `catalog`, which loads no torch.
"""
