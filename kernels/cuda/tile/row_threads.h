// Threads of a block of the kernels that work on rows.
#pragma once

namespace nk::cuda {

inline constexpr int kRowWarpThreads = 128;  // several rows in a block
inline constexpr int kRowLongThreads = 512;  // one row, longer than registers hold

}  // namespace nk::cuda
