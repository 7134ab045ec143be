"""One ``autograd.Function`` per op: what is saved, and which ops make the gradient."""
