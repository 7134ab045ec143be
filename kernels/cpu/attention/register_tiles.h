// How one dtype's kernels by tiles enter the table.
#pragma once

#include "backward.h"
#include "few.h"
#include "forward.h"
#include "register.h"

namespace nk::NK_ISA {

template <class L, class S>
void pack_keys_and_values(const cpu::AttentionHead& h, char* packed, int64_t begin, int64_t end) {
    using Unit = typename L::Unit;
    using Shape = AttentionShape<L, S>;
    const cpu::AttentionPacked at(Shape::tile(), h.keys, h.size, h.value_size);
    pack_transposed<L, S>(h.key, h.size, begin, end, reinterpret_cast<Unit*>(packed));
    if (!reads_straight<L, S>(h.value))
        pack_straight<L, S>(h.value, h.value_size, at.value_units, begin, end,
                            reinterpret_cast<Unit*>(packed + at.values));
    for (int64_t k = begin; k < end; k += Shape::kWide)
        packed[at.unusual + k / Shape::kWide] =
            any_unusual<S>(h.value, k, end < k + Shape::kWide ? end : k + Shape::kWide, h.value_size);
}

template <class L, class S>
void set_tiles(cpu::AttentionEntries& e, DType type, const char* name) {
    const int t = static_cast<int>(type);
    e.tile[t] = AttentionShape<L, S>::tile(name);
    e.pack[t] = pack_keys_and_values<L, S>;
    e.forward[t] = Forward<L, S>::run;
    e.few[t] = Few<Lanes<typename L::Acc>, S>::run;
    e.few_finish[t] = Few<Lanes<typename L::Acc>, S>::finish;
    e.unusual[t] = [](const cpu::HeadMatrix& m, int64_t rows, int64_t columns) {
        return any_unusual<S>(m, 0, rows, columns);
    };
    e.queries[t] = Backward<L, S>::pack_queries;
    e.keys[t] = Backward<L, S>::run;
    e.g_query[t] = Backward<L, S>::finish_queries;
}

}  // namespace nk::NK_ISA
