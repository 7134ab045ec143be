// From attention's arguments to a Problem.
#pragma once

#include <initializer_list>
#include <optional>

#include "attention/problem.h"
#include "call/call.h"

namespace nk::attention {

struct Arguments {
    const Call& call;
    Input &query, &key, &value;
    OptionalInput &mask, &bias, &slopes, &sink, &cu_queries, &cu_keys, &seed;
    std::optional<double> scale;
    double softcap, dropout;
    const Ints&
        rules;  // left, right (-1: no limit), chunk, bottom_right, groups of heads allowed, longest queries, keys
};

// A tensor and where it goes in the problem. `inner`: dims behind heads: 2 rows and columns, 1 rows, 0 none.
struct Place {
    const TensorView* tensor;  // may be null
    Operand* to;
    int inner = 2;
};

// Checks the arguments and reads all but operands.
void read_sizes(const Arguments& a, Problem& to);

// Parts of it: sizes, and heads that share keys; which keys are seen; what is added to a score and to the sum.
void check_heads(const Call& call, const Problem& p, const Input& query, const Input& key, const Input& value,
                 bool groups);
void read_window(Problem& to, int64_t left, int64_t right, std::optional<double> scale);
void check_slopes_and_sink(const Call& call, const Problem& p, const Input& query, OptionalInput& slopes,
                           OptionalInput& sink);

// Reads the operands: those of the arguments and `more`; batch dims that all walk in one stride become one.
void read_operands(const Arguments& a, Problem& to, std::initializer_list<Place> more);

// A new tensor [..., heads, rows, columns] in memory order [..., rows, heads, columns], as torch's flash attention
// makes gradients: a new reference.
void* new_heads(const TensorView& like, const int64_t* shape, int ndim);

}  // namespace nk::attention
