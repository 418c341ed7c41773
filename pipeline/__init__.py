"""What `hack_train.py` and `predict.py` share: the contest's files, the pack, the loop, the run, the submission."""
