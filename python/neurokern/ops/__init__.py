"""One entry per op, in the file of its family; what the entries make is in `neurokern.core`."""
