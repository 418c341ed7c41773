"""The law of draws: the numbers of a sample depend on (seed, epoch, sample) and on nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from augment import AffineAugmenter, Chain, Key, MirrorAugmenter

CHAIN = Chain((AffineAugmenter(rotation=(-30, 30), scale=(0.8, 1.2)), MirrorAugmenter(probability=0.5)))


@given(st.integers(0, 2**63), st.integers(0, 1000), st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_a_draw_does_not_depend_on_the_batch_or_its_order(seed, epoch, samples):
    together = CHAIN.draw(Key(seed, epoch, np.array(samples)), (64, 64)).geometry
    for index in range(len(samples)):
        alone = CHAIN.draw(Key(seed, epoch, np.array(samples[index : index + 1])), (64, 64)).geometry
        np.testing.assert_array_equal(alone[0], together[index])
    backwards = CHAIN.draw(Key(seed, epoch, np.array(samples[::-1])), (64, 64)).geometry
    np.testing.assert_array_equal(backwards[::-1], together)


def test_the_numbers_are_uniform_and_independent():
    numbers = Key(3, 5, np.arange(20_000)).uniform(4)
    assert ((numbers >= 0) & (numbers < 1)).all()
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    correlation = np.corrcoef(np.column_stack([numbers[:-1], numbers[1:]]).T) - np.eye(8)
    assert np.abs(correlation).max() < 0.04


def test_seeds_epochs_samples_and_places_in_a_chain_have_numbers_of_their_own():
    keys = [
        Key(0, 0, np.arange(1000)),
        Key(1, 0, np.arange(1000)),
        Key(0, 1, np.arange(1000)),
        Key(0, 0, np.arange(1000, 2000)),
    ]
    keys += [keys[0].child(0), keys[0].child(1), keys[0].child(0).child(0)]
    numbers = np.concatenate([key.uniform(3).ravel() for key in keys])
    assert len(np.unique(numbers)) == len(numbers)


def test_the_numbers_are_the_same_for_ever():
    """A run that is resumed with a newer version of the project draws what it would have drawn."""
    expected = [0.41012420183845366, 0.06388428493798981, 0.09469904482662339]
    np.testing.assert_array_equal(Key(1, 2, np.array([3])).child(4).uniform(3)[0], expected)
