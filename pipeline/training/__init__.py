"""How a network is trained: session, trainer, losses, optimisers, what happens after an epoch, folds."""
