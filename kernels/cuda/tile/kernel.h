// One extern "C" kernel per element type: name_f32, name_f64, name_f16, name_bf16. `threads` bounds the block and
// `blocks` is how many of them one SM shall hold at least, which bounds the registers. The trailing arguments are the
// kernel's statement, in which T is the nk::DType and p the parameter struct.
#pragma once

#include "../../dtype.h"

#define NK_KERNEL(name, type, threads, blocks, Params, ...)                                                         \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name##_##type(const __grid_constant__ Params p) { \
        constexpr nk::DType T = nk::DType::type;                                                                    \
        __VA_ARGS__;                                                                                                \
    }

#define NK_KERNELS(name, threads, blocks, Params, ...)         \
    NK_KERNEL(name, f32, threads, blocks, Params, __VA_ARGS__) \
    NK_KERNEL(name, f64, threads, blocks, Params, __VA_ARGS__) \
    NK_KERNEL(name, f16, threads, blocks, Params, __VA_ARGS__) \
    NK_KERNEL(name, bf16, threads, blocks, Params, __VA_ARGS__)
