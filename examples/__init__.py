"""Networks that `neurokern demo` trains, one readable file each; every file runs by itself too.

A file has what the demo asks for: NAME and DATA; SECONDS of an epoch; EPOCHS, BATCH, and perhaps TURN, the batches
after which the other side trains; ACCURACY, SCORE, BITS or ERROR, which its test score is judged by; AGREEMENT of the
two sides' losses, and where training magnifies rounding COMPARED, the batches up to which they are compared; data(),
ours(), stock(), Trainer, and perhaps sample(model) and picture(model). What several of them share is in `training.py`,
for images in `pictures.py`.
"""
