"""Commands beside the two scripts: `python -m tools.blend`, `.score`, `.export`, `.augment_sheet`."""
