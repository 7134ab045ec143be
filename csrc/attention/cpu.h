// Between the launchers of attention on the CPU: heads of a problem as kernels take them, and the way that takes all.
#pragma once

#include "attention/problem.h"
#include "kernels/cpu/attention/entries.h"

namespace nk::attention {

// Numbers of a sequence's first query and key, and how many it has; without sequences all of them.
struct Sequence {
    int64_t first_query, queries, first_key, keys;
};
Sequence sequence_of(const Problem& p, int64_t batch);

// Where batch entry `batch`, head `head` of an operand begins.
char* begin_of(const Problem& p, const Operand& x, int64_t batch, int64_t head);

// A head of an operand, from one of its rows (and columns) on.
cpu::HeadMatrix matrix(const Problem& p, const Operand& x, int64_t batch, int64_t head, int64_t first_row,
                       int64_t first_column = 0);

// A head as row_by_row takes it; slope and sink are kept in `numbers`.
void fill_head(const Problem& p, int64_t batch, int64_t head, const Sequence& s, double (&numbers)[2],
               cpu::AttentionHead& to);

// Rows of packed tensors that belong to no sequence: zeros, and an lse of -infinity.
void clear_rest(const Problem& p);
void clear_rest(const BackwardProblem& p);

// By tiles; false, and nothing is done, for what they do not take.
bool forward_by_tiles(const Problem& p);
bool backward_by_tiles(const BackwardProblem& p);

void forward_row_by_row(const Problem& p);
void backward_row_by_row(const BackwardProblem& p);

}  // namespace nk::attention
