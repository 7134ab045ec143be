// cp.async.bulk.tensor, cp.reduce.async.bulk.tensor and their prefetch: tiles of a tensor that a tensor map describes.
#include <cstring>

#include "../memory/spaces.h"
#include "../memory/tensormap.h"
#include "bulk.h"
#include "combine.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

constexpr Type kElements[] = {Type::none, Type::u16, Type::u32,  Type::s32, Type::u64, Type::s64, Type::f16,
                              Type::f32,  Type::f64, Type::bf16, Type::f32, Type::f32, Type::f32};

// What the ISA lets an operation reduce; others (16-bit integers, f64, tf32) are an illegal instruction on a GPU.
bool reducible(Name op, MapElement e) {
    using enum MapElement;
    const bool integer = e == u32 || e == s32 || e == u64 || e == s64, half = e == f16 || e == bf16;
    if (op == "inc" || op == "dec") return e == u32;
    if (op == "add") return (integer && e != s64) || half || e == f32 || e == f32_ftz;
    return integer || (half && (op == "min" || op == "max"));
}

// The object, in global, constant or parameter memory, as it is when the copy is issued.
TensorMap load_map(Warp& w, const Inst& i, int lane, uint64_t address) {
    const Launch& l = *w.block->launch;
    const uint64_t at = address & ~kWindowBits, window = address & kWindowBits;
    need_multiple(w, i, lane, "the tensor map's address", at, 64);
    const char* from = nullptr;
    const auto fixed = [&](const std::vector<char>& bytes) {
        if (at + 128 <= bytes.size()) from = bytes.data() + at;
    };
    if (window == kParamWindow)
        fixed(l.parameters);
    else if (window == kConstWindow)
        fixed(l.program->constant_bank);
    else if (window == 0 && (!l.options.check_memory || l.ranges.find(at, 128) != nullptr))
        from = reinterpret_cast<const char*>(at);
    if (from == nullptr)
        fail(w, i, illegal_address, lane,
             concat("the tensor map's address 0x", std::hex, address,
                    " is none of global, constant or parameter memory (out of bounds)"));
    TensorMap m;
    std::memcpy(&m, from, sizeof m);
    if (!m.valid()) fail(w, i, launch_failed, lane, "what the copy is given is no tensor map");
    bool whole = m.rank != 0 && m.address != 0;
    for (uint32_t d = 0; d < m.rank; ++d) whole = whole && m.element_strides[d] != 0 && (m.im2col || m.box[d] != 0);
    if (!whole) fail(w, i, launch_failed, lane, "the tensor map lacks fields (tensormap.replace)");
    return m;
}

void run_tensor(Warp& w, const Inst& i) {
    const AsyncForm& f = *w.code->forms[i.extra];
    const bool stores = !f.loads && !f.prefetches;
    for_lanes(w.mask, [&](int l) {
        const TensorMap m = load_map(w, i, l, value(w, stores ? f.to : f.from, l));
        if (m.rank != f.values.size() || m.im2col != f.im2col)
            fail(w, i, launch_failed, l,
                 concat("a copy of a ", f.values.size(), "-dimensional ", f.im2col ? "im2col" : "tiled",
                        " tensor with a ", int{m.rank}, "-dimensional ", m.im2col ? "im2col" : "tiled", " tensor map"));
        int32_t at[5] = {};
        uint16_t offsets[3] = {};
        for (size_t d = 0; d < f.values.size(); ++d) at[d] = w.at<int32_t>(f.values[d])[l];
        for (size_t d = 0; d < f.offsets.size(); ++d) offsets[d] = w.at<uint16_t>(f.offsets[d])[l];
        Transfer t;
        t.bytes = m.tile_bytes(), t.swizzle = m.swizzle;
        t.type = static_cast<uint8_t>(static_cast<uint8_t>(m.element) | (m.fills_nan ? kFillsNan : 0));
        t.fills = tile_pieces(m, at, offsets, t.pieces);
        check_rows(w, i, l, t.pieces, stores);
        if (f.prefetches) return;
        need_multiple(w, i, l, "the address in shared memory", value(w, stores ? f.from : f.to, l), 128);
        if (f.loads) return issue_to_shared(w, i, l, f, std::move(t));
        if (!f.reduction.empty()) {
            if (!reducible(f.reduction, m.element))
                fail(w, i, launch_failed, l, concat("no reduction ", f.reduction, " of the tensor map's type"));
            t.combine = find_combine(f.reduction, kElements[static_cast<size_t>(m.element)]);
        }
        issue_to_global(w, i, l, f, std::move(t));
    });
}

uint32_t take_dimensions(Builder& b) {
    constexpr Name names[] = {"1d", "2d", "3d", "4d", "5d"};
    for (uint32_t d = 0; d < 5; ++d)
        if (b.take(names[d])) return d + 1;
    b.unsupported("number of dimensions");
}

// [map, {coordinates}]
AddressForm take_map(Builder& b, Operand o, uint32_t dimensions, std::vector<Ref>& to) {
    const auto items = b.items(o);
    if (o.kind != Operand::address || items.size() != dimensions) b.unsupported("number of coordinates");
    for (const Operand& c : items) to.push_back(b.source(c, Type::s32));
    o.count = 0;
    const AddressForm at = b.place(o);
    if (!at.wide) b.unsupported("a tensor map at an address of 32 bits");
    return at;
}

}  // namespace

void tensor_copy(Builder& b, bool reduces) {
    AsyncForm f;
    f.prefetches = b.take("prefetch");
    const uint32_t dimensions = take_dimensions(b);
    if (f.prefetches && !b.take("L2")) b.unsupported("prefetch");
    const bool global = b.take("global"), cluster = b.take("shared::cluster"), own = b.take("shared::cta");
    const bool signals = b.take("mbarrier::complete_tx::bytes"), grouped = b.take("bulk_group");
    f.loads = signals, f.remote = cluster;
    const bool good = f.prefetches ? global && !own && !cluster && !signals && !grouped && !reduces
                      : signals    ? global && cluster != own && !reduces
                                   : grouped && global && own && !cluster;
    if (!good) b.unsupported("directions or completion");
    const bool stores = !f.loads && !f.prefetches;
    if (stores)
        f.im2col = b.take("im2col_no_offs");
    else
        f.im2col = b.take("im2col");
    if (!f.im2col) b.take("tile");
    const bool multicast = b.take("multicast::cluster"), hint = b.take("L2::cache_hint");
    if (multicast && !(f.loads && cluster)) b.unsupported("multicast");
    if (reduces) f.reduction = std::string(b.take_any({"add", "min", "max", "inc", "dec", "and", "or", "xor"}));
    if (reduces && f.reduction.empty()) b.unsupported("operation");
    b.done();
    uint32_t n = 0;
    if (f.loads) f.to = b.place(b.operand(n++));
    (stores ? f.to : f.from) = take_map(b, b.operand(n++), dimensions, f.values);
    if (stores) f.from = b.place(b.operand(n++));
    if (signals) f.barrier = b.place(b.operand(n++));
    if (f.im2col && !stores) {
        const auto items = b.items(b.operand(n++));
        if (dimensions < 3 || items.size() != dimensions - 2) b.unsupported("number of im2col offsets");
        for (const Operand& o : items) f.offsets.push_back(b.source(o, Type::u16));
    }
    if (multicast) f.mask = b.source(b.operand(n++), Type::b16);
    if (hint) b.source(b.operand(n++), Type::b64);
    if (n != b.operands()) b.unsupported("number of operands");
    const uint32_t at = b.add_form(std::move(f));
    b.emit(run_tensor, Class::async).extra = at;
}

}  // namespace emu::ops
