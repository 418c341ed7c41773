"""Formats of labelled photos: one file each, which parses the format and writes predictions back in it."""
