// ld and st in every space, with vectors and registers wider than what they hold.
#include "../memory/access.h"
#include "../memory/spaces.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

// T in memory, R in the register.
template <class T, class R>
void load(Warp& w, const Inst& i) {
    Pointers p;
    resolve(w, i, p);
    const Ref* to = w.list(i);
    for (int k = 0; k < i.count; ++k) {
        R* out = w.at<R>(to[k]);
        for_lanes(w.mask, [&](int l) {
            T x;
            std::memcpy(&x, p.at[l] + static_cast<size_t>(k) * sizeof(T), sizeof x);
            out[l] = static_cast<R>(x);
        });
    }
    acquire_global(w, i, p);
}

template <class T, class R>
void store(Warp& w, const Inst& i) {
    alignas(32) char values[kLanes][kMostStored];
    const Ref* from = w.list(i);
    for (int k = 0; k < i.count; ++k) {
        const R* r = w.at<R>(from[k]);
        for (int l = 0; l < kLanes; ++l) {
            const T x = static_cast<T>(r[l]);
            std::memcpy(values[l] + static_cast<size_t>(k) * sizeof(T), &x, sizeof x);
        }
    }
    Pointers p;
    p.values = values;
    resolve(w, i, p);
    for_lanes(w.mask, [&](int l) {
        for (size_t k = 0; k < i.count; ++k) std::memcpy(p.at[l] + k * sizeof(T), values[l] + k * sizeof(T), sizeof(T));
    });
}

// The same address in all lanes: a kernel's parameter by name.
template <class T, class R>
void load_uniform(Warp& w, const Inst& i) {
    const char* from = w.block->launch->parameters.data() + i.extra;
    const Ref* to = w.list(i);
    for (int k = 0; k < i.count; ++k) {
        T x;
        std::memcpy(&x, from + static_cast<size_t>(k) * sizeof(T), sizeof x);
        each_lane<R>(w, to[k], [=](int) { return static_cast<R>(x); });
    }
}

enum Kind { kLoad, kStoreKind, kUniform };

template <class T, class R>
Run access(Kind kind) {
    return kind == kLoad ? Run(load<T, R>) : kind == kUniform ? Run(load_uniform<T, R>) : Run(store<T, R>);
}

template <class T>
Run with_register(Kind kind, uint32_t bytes) {
    constexpr bool is_signed = std::is_signed_v<T>;
    if constexpr (sizeof(T) <= 2)
        if (bytes == 2) return access<T, std::conditional_t<is_signed, int16_t, uint16_t>>(kind);
    if constexpr (sizeof(T) <= 4)
        if (bytes == 4) return access<T, std::conditional_t<is_signed, int32_t, uint32_t>>(kind);
    if (bytes == 8) return access<T, std::conditional_t<is_signed, int64_t, uint64_t>>(kind);
    return nullptr;
}

Run access_run(Builder& b, Kind kind, Type t, uint32_t register_bytes) {
    Run run = nullptr;
    switch (bytes_of(t)) {
        case 1:
            run = is_signed(t) ? with_register<int8_t>(kind, register_bytes)
                               : with_register<uint8_t>(kind, register_bytes);
            break;
        case 2:
            run = is_signed(t) ? with_register<int16_t>(kind, register_bytes)
                               : with_register<uint16_t>(kind, register_bytes);
            break;
        case 4:
            run = is_signed(t) ? with_register<int32_t>(kind, register_bytes)
                               : with_register<uint32_t>(kind, register_bytes);
            break;
        case 8:
            run = with_register<uint64_t>(kind, register_bytes);
            break;
        default:
            break;
    }
    if (run == nullptr) b.unsupported("type or register");
    return run;
}

// What only says how caches see the access.
void take_hints(Builder& b) {
    while (!b.take_any({"weak", "nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt"}).empty() || b.take_prefix("L1::") ||
           b.take_prefix("L2::")) {
    }
}

Space take_space(Builder& b) {
    if (b.take("global")) return Space::global;
    if (b.take("shared::cta") || b.take("shared")) return Space::shared;
    if (b.take("shared::cluster")) return Space::cluster;
    if (b.take("local")) return Space::local;
    if (b.take("param") || b.take("param::entry") || b.take("param::func")) return Space::param;
    if (b.take("const")) return Space::constant;
    return Space::generic;
}

// A device function's parameters are registers: word by word.
bool parameter_word(Builder& b, const Operand& address, Type t, const Operand& values, uint32_t vector, bool stores) {
    if (address.name.empty()) return false;
    const Symbol& s = b.symbol(address.name);
    if (s.kind != Symbol::call_parameter) return false;
    const uint32_t bytes = bytes_of(t);
    std::vector<const Operand*> list;
    if (vector == 1)
        list.push_back(&values);
    else
        for (const Operand& o : b.items(values)) list.push_back(&o);
    if (address.bits % 4 != 0 && bytes >= 4) b.unsupported("a misaligned parameter");
    for (size_t k = 0; k < list.size(); ++k) {
        const auto offset = static_cast<uint32_t>(address.bits + k * bytes);
        if (offset + bytes > s.bytes) b.unsupported("outside of the parameter");
        const Ref word = s.ref + offset / 4 * 4 * kLanes;
        if (bytes == 4) {
            const Ref r = stores ? b.source(*list[k], t) : b.destination(*list[k], t);
            Inst& i = b.emit(map<uint32_t, uint32_t>([](uint32_t x) { return x; }), Class::move);
            i.d = stores ? word : r, i.a = stores ? r : word;
        } else if (bytes == 8) {
            const Ref r = stores ? b.source(*list[k], t) : b.destination(*list[k], t);
            const Run out = [](Warp& w, const Inst& i) {
                const uint64_t* a = w.at<uint64_t>(i.a);
                each_lane<uint32_t>(w, i.d, [=](int l) { return static_cast<uint32_t>(a[l]); });
                each_lane<uint32_t>(w, i.b, [=](int l) { return static_cast<uint32_t>(a[l] >> 32); });
            };
            const Run in = [](Warp& w, const Inst& i) {
                const uint32_t *a = w.at<uint32_t>(i.a), *c = w.at<uint32_t>(i.b);
                each_lane<uint64_t>(w, i.d, [=](int l) { return uint64_t{c[l]} << 32 | a[l]; });
            };
            Inst& i = b.emit(stores ? out : in, Class::move);
            i.d = stores ? word : r, i.a = stores ? r : word, i.b = word + 4 * kLanes;
        } else {
            uint32_t register_bytes = b.register_bytes(*list[k]);
            if (register_bytes == 0 && stores) register_bytes = 4;  // a number
            if (register_bytes != 2 && register_bytes != 4) b.unsupported("a small parameter");
            const Type wide = register_bytes == 2 ? Type::b16 : Type::b32;
            const Ref r = stores ? b.source(*list[k], wide) : b.destination(*list[k], wide);
            Inst& i = b.emit(
                [](Warp& w, const Inst& i) {
                    // imm: bytes, shift, register's bytes, signed, store
                    const uint32_t bits = 8 * i.bytes, shift = i.extra, mask = (1u << bits) - 1;
                    const bool wide = i.count == 4;
                    for_lanes(w.mask, [&](int l) {
                        if (i.flags & kStore) {
                            const uint32_t x = wide ? w.at<uint32_t>(i.a)[l] : w.at<uint16_t>(i.a)[l];
                            uint32_t& word = w.at<uint32_t>(i.d)[l];
                            word = (word & ~(mask << shift)) | (x & mask) << shift;
                            return;
                        }
                        uint32_t x = w.at<uint32_t>(i.a)[l] >> shift & mask;
                        if (i.imm && (x >> (bits - 1) & 1)) x |= ~mask;
                        if (wide)
                            w.at<uint32_t>(i.d)[l] = x;
                        else
                            w.at<uint16_t>(i.d)[l] = static_cast<uint16_t>(x);
                    });
                },
                Class::move);
            i.d = stores ? word : r, i.a = stores ? r : word;
            i.bytes = static_cast<uint8_t>(bytes), i.extra = offset % 4 * 8,
            i.count = static_cast<uint8_t>(register_bytes);
            i.imm = is_signed(t);
            if (stores) i.flags |= kStore;
        }
    }
    return true;
}

void decode_access(Builder& b, bool stores) {
    const Space space = take_space(b);
    const uint16_t strength = take_strength(b);
    take_hints(b);
    const uint32_t vector = b.take("v2") ? 2 : b.take("v4") ? 4 : b.take("v8") ? 8 : 1;
    const Type t = b.need_type();
    b.done();
    const Operand &address = b.operand(stores ? 0 : 1), &values = b.operand(stores ? 1 : 0);
    b.policy(2);
    if (space == Space::param && parameter_word(b, address, t, values, vector, stores)) return;
    if (stores && (space == Space::param || space == Space::constant)) b.unsupported("a store to this space");

    std::vector<const Operand*> list;
    if (values.kind == Operand::vector)
        for (const Operand& o : b.items(values)) list.push_back(&o);
    else
        list.push_back(&values);
    if (list.size() != vector) b.unsupported("number of elements");
    uint32_t register_bytes = 0;
    for (const Operand* o : list)
        if (const uint32_t n = b.register_bytes(*o)) {
            if (register_bytes != 0 && n != register_bytes) b.unsupported("registers of different width");
            register_bytes = n;
        }
    if (register_bytes == 0) register_bytes = bytes_of(t) < 2 ? 2 : bytes_of(t);
    constexpr Type bits[] = {Type::none, Type::none, Type::b16,  Type::none, Type::b32,
                             Type::none, Type::none, Type::none, Type::b64};
    std::vector<Ref> refs;
    for (const Operand* o : list)
        refs.push_back(stores ? b.source(*o, register_bytes == bytes_of(t) ? t : bits[register_bytes])
                              : b.destination(*o, register_bytes));

    const Symbol* base = address.name.empty() ? nullptr : &b.symbol(address.name);
    const bool uniform = space == Space::param && base != nullptr && base->kind == Symbol::parameter;
    const Run run = access_run(b, stores ? kStoreKind : uniform ? kUniform : kLoad, t, register_bytes);
    Inst at;
    b.address(at, address);
    const uint32_t bytes = bytes_of(t) * vector;
    if (uniform && (base->address + address.bits + bytes > b.code().parameter_bytes))
        b.unsupported("outside of the parameters");
    const uint32_t refs_at = b.add_list(refs);
    Inst& i = b.emit(run, Class::memory);
    i.a = at.a, i.imm = at.imm, i.flags = static_cast<uint16_t>(at.flags | strength | (stores ? kStore : 0));
    i.space = space, i.bytes = static_cast<uint8_t>(bytes), i.count = static_cast<uint8_t>(vector);
    i.list = refs_at;
    if (uniform) i.extra = static_cast<uint32_t>(base->address + address.bits);
}

}  // namespace

void ld(Builder& b) { decode_access(b, false); }
void st(Builder& b) { b.take("async") ? async_store(b) : decode_access(b, true); }

void prefetch(Builder& b) { nothing(b); }

}  // namespace emu::ops
