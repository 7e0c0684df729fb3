"""Négatoscope: the open, shared PACS of a territory."""

__version__ = "0.1.0"
