"""A small contest of drawn faces, in the exact layout of the real one, so that everything runs with nothing downloaded.

    python -m demo OUT --train 1500 --test 300

Each photo is a function of (seed, part, number) alone. The project itself imports nothing from here.
"""
