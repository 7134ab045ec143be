// The tiles of the kernels on the tensor cores, a row of kernels/cuda and of the plan each.
#pragma once

// X(size up to, queries, keys, blocks of 16 queries of a warp)
#define NK_ATTENTION_FORWARD_TILES(X) X(64, 128, 64, 2) X(128, 128, 64, 1) X(256, 128, 32, 1)

// X(size up to, rows of a gradient, rows of what it goes through, warps that share rows)
#define NK_ATTENTION_BACKWARD_TILES(X) X(64, 64, 64, 1) X(128, 64, 32, 1) X(256, 64, 16, 2)

// X(size up to, warps of 16 rows each, warps that share the keys of a tile, keys)
#define NK_ATTENTION_SPLIT_TILES(X) \
    X(64, 1, 4, 64) X(64, 4, 2, 64) X(64, 8, 1, 64) X(128, 1, 4, 64) X(128, 4, 2, 64) X(128, 8, 1, 64) X(256, 4, 2, 32)
