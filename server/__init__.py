"""Triolet's server: the edge, the API, and what `triolet serve` is made of."""

__version__ = "0.1.0"
