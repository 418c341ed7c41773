"""From a contest's folder to batches: tables, photos, pack, split, symmetry, region of interest, loader."""
