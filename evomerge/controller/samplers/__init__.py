"""Samplers: the file name is the name, `SAMPLER` makes one from a `SamplerContext`."""
