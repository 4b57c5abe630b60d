"""flipnet: the open implementation of FLIPNET, blind face restoration with one two-way diffusion network."""

__version__ = "0.1.0"
