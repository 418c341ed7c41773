"""Formats in which people have labelled photos: one file each, which parses it and writes predictions back in it."""
