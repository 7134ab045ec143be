"""The stages of `make gpu` (benchmarks/gpu.sh starts them): ``python -m neurokern.bench.gpu STAGE``."""
