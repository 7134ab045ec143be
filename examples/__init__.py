"""Networks that `neurokern demo` trains, one readable file each; every file runs by itself too.

A file has what the demo asks for: NAME and DATA; SECONDS of an epoch; EPOCHS, BATCH, and where an epoch is long TURN,
the batches after which the other side trains; ACCURACY or BITS, and AGREEMENT, which it is judged by; data(), ours(),
stock(), Trainer, and perhaps sample(model). What several of them share is in `training.py`.
"""
