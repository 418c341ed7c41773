"""From photos to a submission: views, prediction, merging, weights, uncertainty, members, ensembles."""
