"""Pixels: what a data set says of them, where frames lie, decode, encode, transcode, render.

Pure and synchronous. Everything that decodes is meant to run in a pixel child
(``servers/pixels.py``): the codecs are C, and their input comes from strangers.
"""
