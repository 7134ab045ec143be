// Attention as checked arguments, in the form that the CPU and CUDA launchers take.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "tensor/view.h"

namespace nk::attention {

inline constexpr int kBatchDims = 4;  // that are left when those which lie evenly were joined

// One tensor as [batches..., heads, rows, columns]; steps in elements, 0 where it is repeated, any sign.
struct Operand {
    char* data = nullptr;  // null: there is no such tensor
    DType dtype = DType::f32;
    int64_t batch[kBatchDims] = {};  // outermost first
    int64_t head = 0, row = 0, column = 0;

    explicit operator bool() const { return data != nullptr; }
};

// Packed: rows of all sequences lie behind one another in a tensor without batch dims; sequence b has queries
// cu_queries[b] .. cu_queries[b + 1] - 1, and keys likewise. `queries` and `keys` are then those of all sequences, and
// queries and keys
// number through them all for lse and dropout; a sequence's own sizes decide about places.
struct Problem {
    DType dtype = DType::f32;
    Device device;
    int batch_dims = 0;
    int64_t batch_size[kBatchDims] = {};
    int64_t batches = 1;  // or sequences
    int64_t heads = 1, kv_heads = 1;
    int64_t queries = 0, keys = 0, size = 0, value_size = 0;
    AttentionRules rules;

    Operand query, key, value;
    Operand mask;    // bool, [batches..., heads, queries, keys]
    Operand bias;    // dtype, or f32 with 16 bits
    Operand slopes;  // f32 (f64), [batches..., heads]: row and column are 0
    Operand sink;    // dtype, [heads]
    Operand output;  // [batches..., heads, queries, value_size]
    Operand lse;     // f32 (f64), [batches..., heads, queries]: column is 0; may be missing

    const TensorView *cu_queries = nullptr, *cu_keys = nullptr;  // i32 or i64, contiguous, batches + 1 numbers
    int64_t longest_queries = 0, longest_keys = 0;               // of a packed problem's sequences, at least

    // A cache: batch entry b has number_at(*lengths, b) + appended keys of the `keys` that there is room for.
    const TensorView* lengths = nullptr;  // i32 or i64, [batches], any stride
    int64_t appended = 0;
    int64_t splits = 0;  // parts of the keys that are computed apart; 0: the plan chooses
    // In pages: row j of batch entry b is row j % page_size of page number_at(*table, b, j / page_size). Key and value
    // have no batch dim then, but steps from page to page.
    const TensorView* table = nullptr;  // i32 or i64, [batches, pages of a sequence], any strides
    int64_t page_size = 0, pages = 0;   // rows of a page; pages that there are
    int64_t key_page = 0, value_page = 0;

    // Two numbers of i64, seed and offset, on the problem's device; null without dropout. On the CPU they are in
    // `rules`.
    const TensorView* seed = nullptr;

    int64_t group() const {
        return kv_heads > 0 ? heads / kv_heads : 1;
    }  // queries' heads for each head of keys and values
};

// Gradients that are not wanted have no data. Those of bias and sink have the shapes of these, so that repeated ones
// are sums.
struct BackwardProblem : Problem {
    Operand g;      // of the output
    Operand g_lse;  // as lse; may be missing
    Operand g_query, g_key, g_value;
    Operand g_bias, g_sink;  // contiguous
    int64_t g_bias_numbers = 0;
};

// Rows for a cache: rows [batch, heads, rows, size] go to rows number_at(*lengths, b) and following of `cache`, which
// has room for `capacity` rows in each batch entry, or pages as Problem has them.
struct AppendProblem {
    DType dtype = DType::f32;
    Device device;
    int64_t batches = 1, heads = 1, rows = 0, size = 0, capacity = 0;
    Operand cache, from;  // batch[0]: from batch entry to batch entry, or from page to page
    const TensorView *lengths = nullptr, *table = nullptr;
    int64_t page_size = 0, pages = 0;
};

// Numbers that the host can read.
inline int64_t number_in(const TensorView& t, int64_t offset) {
    return t.dtype == DType::i64 ? static_cast<const int64_t*>(t.data)[offset]
                                 : static_cast<const int32_t*>(t.data)[offset];
}
inline int64_t number_at(const TensorView& t, int64_t i) { return number_in(t, i * t.stride[0]); }
inline int64_t number_at(const TensorView& t, int64_t i, int64_t j) {
    return number_in(t, i * t.stride[0] + j * t.stride[1]);
}

void forward_cpu(const Problem& p);
void backward_cpu(const BackwardProblem& p);
void forward_cuda(const Problem& p);
void backward_cuda(const BackwardProblem& p);
void append_cpu(const AppendProblem& p);
void append_cuda(const AppendProblem& p);

}  // namespace nk::attention
