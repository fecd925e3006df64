"""The search: ask, decode, submit, collect, tell, record."""
