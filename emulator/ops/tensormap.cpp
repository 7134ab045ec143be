// tensormap.replace and tensormap.cp_fenceproxy: programs that make tensor maps of their own, from one that is given or
// from 128 bytes of zeros.
#include "../memory/tensormap.h"

#include <cstring>

#include "../memory/spaces.h"
#include "bulk.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

constexpr uint32_t kBytes = 128;
enum Field : uint8_t {
    global_address,
    rank,
    box_dim,
    global_dim,
    global_stride,
    element_stride,
    elemtype,
    interleave_layout,
    swizzle_mode,
    fill_mode
};
constexpr Name kFields[] = {"global_address", "rank",     "box_dim",           "global_dim",   "global_stride",
                            "element_stride", "elemtype", "interleave_layout", "swizzle_mode", "fill_mode"};
// elemtype has numbers of its own
constexpr MapElement kMapElements[] = {MapElement::u8,      MapElement::u16, MapElement::u32,  MapElement::s32,
                                       MapElement::u64,     MapElement::s64, MapElement::f16,  MapElement::f32,
                                       MapElement::f32_ftz, MapElement::f64, MapElement::bf16, MapElement::tf32,
                                       MapElement::tf32_ftz};

// Where the 128 bytes lie, after checks of an access to them.
char* bytes_at(Warp& w, const Inst& i, int lane, Space space, uint64_t address, bool store) {
    need_multiple(w, i, lane, "the tensor map's address", address & ~kWindowBits, 64);
    if (space == Space::shared || (space == Space::generic && (address & kWindowBits) == kSharedWindow)) {
        const Place at = shared_place(w, i, lane, address, kBytes, false);
        if (w.block->launch->options.check_shared) touch_shared(w, i, lane, at, kBytes, store);
        return at.block->shared.data() + at.offset;
    }
    const std::vector<Piece> row{{reinterpret_cast<char*>(address), 0, kBytes}};
    check_rows(w, i, lane, row, store);
    touch_global(w, i, lane, address, kBytes, store ? Touch::write : Touch::read);
    return row[0].global;
}

bool set(TensorMap& m, Field field, uint32_t ordinal, uint64_t x) {
    const auto narrow = static_cast<uint32_t>(x);
    switch (field) {
        case global_address:
            m.address = x;
            return x % 16 == 0;
        case rank:
            m.rank = static_cast<uint8_t>(narrow + 1);
            return narrow < 5;
        case box_dim:
            m.box[ordinal] = static_cast<uint16_t>(narrow);
            return narrow > 0 && narrow <= 256;
        case global_dim:
            m.last[ordinal] = narrow - 1;
            return narrow > 0;
        case global_stride:
            if (ordinal > 3) return false;
            m.strides[ordinal] = x;
            return x % 16 == 0 && x < uint64_t{1} << 40;
        case element_stride:
            m.element_strides[ordinal] = static_cast<uint8_t>(narrow);
            return narrow > 0 && narrow <= 8;
        case elemtype:
            if (narrow >= std::size(kMapElements)) return false;
            m.element = kMapElements[narrow];
            return true;
        case interleave_layout:
            return narrow == 0;
        case swizzle_mode:
            m.swizzle = static_cast<uint8_t>(narrow);
            return narrow <= 3;
        case fill_mode:
            m.fills_nan = narrow == 1;
            return narrow <= 1;
    }
    return false;
}

void run_replace(Warp& w, const Inst& i) {
    uint64_t address[kLanes];
    addresses(w, i.a, i.flags & kWideAddress, i.imm, address);
    const auto field = static_cast<Field>(i.extra);
    const bool wide = field == global_address || field == global_stride;
    for_lanes(w.mask, [&](int l) {
        char* at = bytes_at(w, i, l, i.space, address[l], false);
        bytes_at(w, i, l, i.space, address[l], true);
        TensorMap m, empty;
        std::memcpy(&m, at, sizeof m);
        constexpr char zeros[kBytes] = {};
        if (std::memcmp(at, zeros, kBytes) == 0)
            m = empty;
        else if (!m.valid())
            fail(w, i, launch_failed, l, "what is to be replaced is no tensor map");
        const uint64_t x = wide ? w.at<uint64_t>(i.b)[l] : w.at<uint32_t>(i.b)[l];
        if (!set(m, field, i.count, x))
            fail(w, i, launch_failed, l, concat("a tensor map can't have ", x, " as its ", kFields[i.extra]));
        m.check = m.checksum();
        std::memcpy(at, &m, sizeof m);
    });
}

void replace(Builder& b) {
    if (!b.take("tile")) b.unsupported("mode");
    uint32_t field = 0;
    while (field < std::size(kFields) && !b.take(kFields[field])) ++field;
    if (field == std::size(kFields)) b.unsupported("field");
    const Space space = b.take("shared::cta") ? Space::shared : b.take("global") ? Space::global : Space::generic;
    const bool wide = field == global_address || field == global_stride;
    if (!b.take("b1024") || !b.take(wide ? "b64" : "b32")) b.unsupported("type");
    b.done();
    const bool counted = field >= box_dim && field <= element_stride;
    if (b.operands() != (counted ? 3u : 2u)) b.unsupported("number of operands");
    uint64_t ordinal = 0;
    if (counted) {
        if (b.operand(1).kind != Operand::integer || b.operand(1).bits > 4) b.unsupported("dimension");
        ordinal = b.operand(1).bits;
    }
    Inst at;
    b.address(at, b.operand(0));
    const Ref x = b.source(b.operand(counted ? 2 : 1), wide ? Type::b64 : Type::b32);
    Inst& i = b.emit(run_replace, Class::memory);
    i.a = at.a, i.imm = at.imm, i.flags = at.flags, i.b = x;
    i.space = space, i.extra = field, i.count = static_cast<uint8_t>(ordinal);
}

// From shared to global memory, by the whole warp.
void copy(Builder& b) {
    if (!b.take("global") || !b.take("shared::cta")) b.unsupported("directions");
    b.take("tensormap::generic"), b.take("release"), b.take_any({"cta", "cluster", "gpu", "sys"});
    b.take("sync"), b.take("aligned");
    b.done();
    if (b.operands() != 3 || b.operand(2).kind != Operand::integer || b.operand(2).bits != kBytes)
        b.unsupported("size");
    AsyncForm f;
    f.to = b.place(b.operand(0)), f.from = b.place(b.operand(1));
    const uint32_t at = b.add_form(std::move(f));
    b.emit(
         [](Warp& w, const Inst& i) {
             if (!together(w, i, kAll)) return;
             const AsyncForm& f = *w.code->forms[i.extra];
             const int l = std::countr_zero(w.mask);
             const char* from = bytes_at(w, i, l, Space::shared, value(w, f.from, l), false);
             std::memcpy(bytes_at(w, i, l, Space::global, value(w, f.to, l), true), from, kBytes);
         },
         Class::memory)
        .extra = at;
}

}  // namespace

void tensormap(Builder& b) {
    if (b.take("replace")) return replace(b);
    if (b.take("cp_fenceproxy")) return copy(b);
    b.unsupported("operation on a tensor map");
}

}  // namespace emu::ops
