"""Commands beside the two scripts, one file each: `python -m tools.NAME --help`."""
