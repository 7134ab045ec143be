// ldmatrix: a warp loads four 8 x 8 matrices of 16-bit elements from shared memory (sm_75 and later).
// Lane l gives the address of row l % 8 of matrix l / 8: 16 bytes, 16-byte aligned. Afterwards lane l
// holds, of each matrix, elements 2 * (l % 4) and the next one of row l / 4; with `_trans`, of column l / 4.
// Four 32-bit elements per row work as well without `_trans`: lane l then holds element l % 4 of row l / 4.
#pragma once
#include <stdint.h>

namespace nk::ptx {

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

}  // namespace nk::ptx
