// How one dtype's kernels enter the table.
#pragma once

#include "block.h"
#include "dot.h"
#include "small.h"

namespace nk::NK_ISA {

#define NK_TEXT_(x) #x
#define NK_TEXT(x) NK_TEXT_(x)

template <class L, class S>
void set_entries(cpu::MatmulEntries& e, DType dtype, const char* name) {
    const int d = static_cast<int>(dtype);
    cpu::MatmulTile& t = e.tile[d];
    t.name = name;
    t.isa = NK_TEXT(NK_ISA);
    t.mr = L::kMaxRows, t.nv = L::kVectors;
    t.lanes = L::W, t.group = L::group;
    t.unit = sizeof(typename L::Unit), t.acc = sizeof(typename L::Acc);
    t.dot_rows = L::kDotRows;
    t.same_type = L::group == 2 || sizeof(S) == sizeof(typename L::Unit);
    e.block[d] = Block<L, S>::run;
    e.dot[d] = Dot<L, S>::run;
    e.finish[d] = finish<L, S>;
    e.small[d] = nullptr;
    if constexpr (Permutes<L> && __is_same(S, typename L::Unit)) e.small[d] = small<L>;
    if constexpr (L::group == 1) {
        t.stream_mr = Block<L, S>::kDirectRows;
        t.wide_mr = L::kWideRows, t.wide_nv = L::kWideVectors;
        t.stream_unit = sizeof(typename L::Unit);
        e.stream[d] = Block<L, S>::run;
    }
}

void register_f32(cpu::MatmulEntries& e);
void register_f64(cpu::MatmulEntries& e);
void register_bf16(cpu::MatmulEntries& e);

}  // namespace nk::NK_ISA
