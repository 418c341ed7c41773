"""Speed and accuracy, measured: each script writes what it found, and on what machine, into `results/`."""
