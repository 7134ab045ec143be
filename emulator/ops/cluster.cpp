// Clusters: mapa, getctarank, barrier.cluster; st.async and red.async.
#include "../exec/cluster.h"
#include "../memory/access.h"
#include "../memory/spaces.h"
#include "combine.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

template <class T>
void run_mapa(Warp& w, const Inst& i) {
    const T* a = w.at<T>(i.a);
    const uint32_t* rank = w.at<uint32_t>(i.b);
    const auto blocks = static_cast<uint32_t>(w.block->cluster->blocks.size());
    for_lanes(w.mask, [&](int l) {
        if (rank[l] >= blocks)
            fail(w, i, launch_failed, l, concat("block rank ", rank[l], " of a cluster of ", blocks));
    });
    // the window of shared memory stays, the rank is replaced
    constexpr T kept = ~(T{0xff} << kClusterShift);
    each_lane<T>(w, i.d, [=](int l) {
        return static_cast<T>((a[l] & kept) | T{rank[l] + 1} << kClusterShift | (i.flags & kStore ? 0 : kSharedWindow));
    });
}

template <class T>
void run_rank(Warp& w, const Inst& i) {
    const T* a = w.at<T>(i.a);
    const uint32_t own = w.block->rank;
    each_lane<uint32_t>(w, i.d, [=](int l) {
        const auto rank = static_cast<uint32_t>(a[l] >> kClusterShift & 0xff);
        return rank == 0 ? own : rank - 1;
    });
}

enum Order : uint32_t { kRelaxed = 1 };

// [shared::cluster address], values, [mbarrier]
void remote_values(Builder& b, bool reduces) {
    b.take_any({"weak", "relaxed"});
    b.take("cluster");
    b.take("shared::cluster");  // or generic addresses, which tell it themselves
    if (!b.take("mbarrier::complete_tx::bytes")) b.unsupported("completion");
    const Name op = reduces ? b.take_any({"inc", "dec", "min", "max", "add", "and", "or", "xor"}) : Name();
    const uint32_t vector = reduces ? 1 : b.take("v2") ? 2 : b.take("v4") ? 4 : 1;
    const Type t = b.need_type();
    b.done();
    if (b.operands() != 3 || bytes_of(t) < 4) b.unsupported("type or number of operands");
    AsyncForm form;
    if (reduces && (form.combine = find_combine(op, t)) == nullptr) b.unsupported("operation or type");
    form.to = b.place(b.operand(0)), form.barrier = b.place(b.operand(2));
    const Operand& values = b.operand(1);
    if (vector == 1)
        form.values.push_back(b.source(values, t));
    else
        for (const Operand& o : b.items(values)) form.values.push_back(b.source(o, t));
    if (form.values.size() != vector) b.unsupported("number of elements");
    form.each = bytes_of(t);
    const uint32_t at = b.add_form(std::move(form));
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const AsyncForm& f = *w.code->forms[i.extra];
            const auto bytes = static_cast<uint32_t>(f.values.size()) * f.each;
            for_lanes(w.mask, [&](int l) {
                const Place to = shared_place(w, i, l, value(w, f.to, l), bytes, true);
                const Place barrier = shared_place(w, i, l, value(w, f.barrier, l), 8, true);
                if (to.offset % bytes != 0)
                    fail(w, i, misaligned_address, l, "a misaligned address of an asynchronous store");
                if (to.block != barrier.block)
                    fail(w, i, launch_failed, l, "the mbarrier is not in the block that the data goes to");
                mbarrier_check_signal(w, i, l, barrier);
                Transfer t;
                t.kind = Transfer::values, t.inst = &i, t.warp = &w, t.lane = l, t.combine = f.combine;
                t.blocks = 1u << to.block->rank, t.shared = to.offset, t.barrier = barrier.offset, t.bytes = bytes;
                for (const Ref r : f.values) {
                    const char* x = w.at<char>(r) + static_cast<uint32_t>(l) * f.each;
                    t.data.insert(t.data.end(), x, x + f.each);
                }
                Block& own = *w.block;
                if (own.launch->options.check_shared)
                    if (const char* wrong =
                            to.block->shadow.async_write(w.number, to.offset, bytes, false, f.combine != nullptr))
                        shared_error(w, i, l, to, wrong);
                if (own.launch->options.count) own.counters.async_bytes += bytes;
                own.cluster->transfers.issue(std::move(t));
            });
        },
        Class::async);
    i.extra = at;
}

}  // namespace

void mapa(Builder& b) {
    const bool window = b.take("shared::cluster");
    const Type t = b.need_type();
    b.done();
    if (t != Type::u32 && t != Type::u64) b.unsupported("type");
    const Ref a = b.source(b.operand(1), t), rank = b.source(b.operand(2), Type::u32),
              d = b.destination(b.operand(0), t);
    Inst& i = b.emit(t == Type::u32 ? run_mapa<uint32_t> : run_mapa<uint64_t>, Class::move);
    i.a = a, i.b = rank, i.d = d;
    if (window) i.flags |= kStore;  // an address within shared memory, not a generic one
}

void getctarank(Builder& b) {
    b.take("shared::cluster");
    const Type t = b.need_type();
    b.done();
    if (t != Type::u32 && t != Type::u64) b.unsupported("type");
    const Ref a = b.source(b.operand(1), t), d = b.destination(b.operand(0), 4);
    Inst& i = b.emit(t == Type::u32 ? run_rank<uint32_t> : run_rank<uint64_t>, Class::move);
    i.a = a, i.d = d;
}

void cluster_barrier(Builder& b) {
    const bool waits = b.take("wait");
    if (!waits && !b.take("arrive")) b.unsupported("barrier");
    const bool relaxed = b.take("relaxed");
    b.take(waits ? "acquire" : "release");
    const bool aligned = b.take("aligned");
    b.done();
    if (b.operands() != 0) b.unsupported("number of operands");
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            if (i.count && !together(w, i, kAll)) return;
            Cluster& c = *w.block->cluster;
            i.imm ? c.wait(w, i, i.extra & kRelaxed) : c.arrive(w, i, i.extra & kRelaxed);
        },
        Class::barrier);
    i.imm = waits, i.extra = relaxed ? uint32_t{kRelaxed} : 0u, i.count = aligned;
}

void async_store(Builder& b) { remote_values(b, false); }
void async_reduction(Builder& b) { remote_values(b, true); }

}  // namespace emu::ops
