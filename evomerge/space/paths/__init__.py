"""The forms a searched stack of layers can have: one file each, the keys and what their genes mean."""
