// Where the matrices of one batch entry of a matmul lie, and what all its kernels do with them.
#pragma once

#include "../product/epilogue.h"
#include "../tile/walk.h"
#include "params.h"

namespace nk::cuda {

template <DType T>
struct BatchEntry {
    const memory_t<T>*a, *b;

    __device__ __forceinline__ BatchEntry(const MatmulParams& p, int64_t index) {
        int64_t at[kBatchDims];
        tile::batch_coordinates(index, p.batch_size, at);
        const auto begin = [&](const MatrixRef& x) {
            return element<T>(x.data, x.data != nullptr ? tile::batch_offset(at, x.batch) : 0);
        };
        a = begin(p.a), b = begin(p.b), out_ = begin(p.out);
        residual_ = begin(p.residual), preact_ = begin(p.preact);
        out_step = p.out.column, preact_step = p.preact.column, residual_step = p.residual.column;
        out_row_ = p.out.row, preact_row_ = p.preact.row, residual_row_ = p.residual.row;
    }

    // A and B for a tile that begins at row m0 (column n0), over a part of k.
    __device__ __forceinline__ tile::MatrixWalk walk_a(const MatmulParams& p, int64_t m0, tile::KRange k) const {
        return {a, {p.a.row * size_of(T), p.a.column * size_of(T)}, m0, p.m, k.begin, k.end, p.a_access};
    }
    __device__ __forceinline__ tile::MatrixWalk walk_b(const MatmulParams& p, int64_t n0, tile::KRange k) const {
        return {b, {p.b.column * size_of(T), p.b.row * size_of(T)}, n0, p.n, k.begin, k.end, p.b_access};
    }

    // The Results of product/epilogue.h.
    int64_t out_step, preact_step, residual_step;
    __device__ __forceinline__ memory_t<T>* out(int64_t m, int64_t n) const {
        return out_ + m * out_row_ + n * out_step;
    }
    __device__ __forceinline__ memory_t<T>* preact(int64_t m, int64_t n) const {
        return preact_ + m * preact_row_ + n * preact_step;
    }
    __device__ __forceinline__ const memory_t<T>* residual(int64_t m, int64_t n) const {
        return residual_ + m * residual_row_ + n * residual_step;
    }

  private:
    memory_t<T>*out_, *preact_;
    const memory_t<T>* residual_;
    int64_t out_row_, preact_row_, residual_row_;
};

// One block, one piece of work.
__device__ __forceinline__ tile::Work work_of_block(const MatmulParams& p) {
    return tile::work_of_block(p.tiles_m, p.tiles_n, p.group);
}

}  // namespace nk::cuda
