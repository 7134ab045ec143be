"""Where kernels run: the choice of a backend, the emulator, Triton; the trace of launches; torch's ops instead."""
