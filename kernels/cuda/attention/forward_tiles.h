// The tiles of the forward kernels on the tensor cores, X(size up to, queries, keys, blocks of 16 queries of a warp): a
// row of kernels/cuda and of the plan each.
#pragma once

#define NK_ATTENTION_FORWARD_TILES(X) X(64, 128, 64, 2) X(128, 128, 64, 1) X(256, 128, 32, 1)
