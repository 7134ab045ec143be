// Keys and values that are kept from call to call: from arguments to problems.
#pragma once

#include "attention/check.h"

namespace nk::attention {

struct CacheArguments {
    const Call& call;
    Input &query, &k_cache, &v_cache, &lengths;
    OptionalInput &table, &slopes, &sink;
    std::optional<double> scale;
    double softcap;
    const Ints& rules;  // left, right (-1: no limit), groups of heads allowed, rows appended, splits
};

// Checks the arguments and reads them all.
void read_cache(const CacheArguments& a, Problem& to);

// Checks what is written to a cache, and reads it.
void read_append(const Call& call, Input& cache, Input& rows, Input& lengths, OptionalInput& table, AppendProblem& to);

void register_cache(py::handle module);

}  // namespace nk::attention
