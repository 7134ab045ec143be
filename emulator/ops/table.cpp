// Opcode -> decoder.
#include <unordered_map>

#include "../decode/builder.h"
#include "families.h"

namespace emu {

namespace {

using namespace ops;

// add, mul, min and others are integer or floating-point by their type; modifiers may stand behind it.
bool is_floating(Builder& b) {
    Name full = b.full_opcode();
    for (size_t dot; (dot = full.rfind('.')) != Name::npos; full = full.substr(0, dot))
        if (const Type t = type_of(full.substr(dot + 1)); t != Type::none) return is_float(t);
    return false;
}

template <Decode Integer, Decode Floating>
void either(Builder& b) {
    is_floating(b) ? Floating(b) : Integer(b);
}

bool has_carry(Builder& b) { return b.full_opcode().find(".cc") != Name::npos; }

void add(Builder& b) {
    has_carry(b) ? add_carry(b, false) : is_halves(b.full_opcode()) ? add_halves(b) : integer_add(b, false);
}
void sub(Builder& b) { has_carry(b) ? sub_carry(b, false) : integer_add(b, true); }
void mad(Builder& b) { has_carry(b) ? mad_carry(b, false) : integer_mad(b); }
void addc(Builder& b) { add_carry(b, true); }
void subc(Builder& b) { sub_carry(b, true); }
void madc(Builder& b) { mad_carry(b, true); }

template <bool Max>
void extreme(Builder& b) {
    if (is_halves(b.full_opcode())) return extreme_halves(b, Max);
    if (b.full_opcode().find(".relu") != Name::npos) return extreme_relu(b, Max);
    Max ? integer_max(b) : integer_min(b);
}

const std::unordered_map<Name, Decode>& table() {
    static const std::unordered_map<Name, Decode> t = {
        {"add", either<add, floating_add>},
        {"sub", either<sub, floating_sub>},
        {"mul", either<integer_mul, floating_mul>},
        {"mad", either<mad, fma>},
        {"div", either<integer_div, floating_div>},
        {"min", either<extreme<false>, floating_min>},
        {"max", either<extreme<true>, floating_max>},
        {"neg", either<integer_neg, floating_neg>},
        {"abs", either<integer_abs, floating_abs>},
        {"rem", integer_rem},
        {"addc", addc},
        {"subc", subc},
        {"madc", madc},
        {"dp4a", dp4a},
        {"dp2a", dp2a},
        {"sad", sad},
        {"mul24", mul24},
        {"mad24", mad24},
        {"cnot", cnot},
        {"szext", szext},
        {"fns", fns},
        {"vabsdiff4", vabsdiff4},
        {"and", logic_and},
        {"or", logic_or},
        {"xor", logic_xor},
        {"not", logic_not},
        {"shl", shift_left},
        {"shr", shift_right},
        {"shf", funnel_shift},
        {"popc", popc},
        {"clz", clz},
        {"bfind", bfind},
        {"brev", brev},
        {"bfe", bfe},
        {"bfi", bfi},
        {"prmt", prmt},
        {"lop3", lop3},
        {"bmsk", bmsk},
        {"fma", ops::fma},
        {"rcp", rcp},
        {"sqrt", ops::sqrt},
        {"rsqrt", rsqrt},
        {"ex2", ex2},
        {"lg2", lg2},
        {"sin", ops::sin},
        {"cos", ops::cos},
        {"tanh", ops::tanh},
        {"copysign", ops::copysign},
        {"cvt", cvt},
        {"setp", setp},
        {"set", ops::set},
        {"testp", testp},
        {"selp", selp},
        {"slct", slct},
        {"mov", mov},
        {"cvta", cvta},
        {"isspacep", isspacep},
        {"ld", ld},
        {"ldu", ld},
        {"st", st},
        {"atom", atom},
        {"red", red},
        {"cp", cp},
        {"mbarrier", mbarrier},
        {"tensormap", tensormap},
        {"mapa", mapa},
        {"getctarank", getctarank},
        {"shfl", shfl},
        {"vote", vote},
        {"match", match},
        {"redux", redux},
        {"elect", elect},
        {"mma", mma},
        {"wgmma", wgmma},
        {"wmma", wmma},
        {"ldmatrix", ldmatrix},
        {"movmatrix", movmatrix},
        {"stmatrix", stmatrix},
        {"bra", bra},
        {"brx", brx},
        {"call", call},
        {"ret", ret},
        {"exit", ops::exit},
        {"trap", trap},
        {"bar", bar},
        {"barrier", bar},
        {"activemask", activemask},
        // fences, hints
        {"membar", fence},
        {"fence", fence},
        {"prefetch", prefetch},
        {"prefetchu", prefetch},
        {"nanosleep", nanosleep},
        {"griddepcontrol", griddepcontrol},
        {"setmaxnreg", setmaxnreg},
        {"applypriority", nothing},
        {"discard", nothing},
        {"createpolicy", createpolicy},
        {"pmevent", nothing},
        {"brkpt", brkpt},
    };
    return t;
}

}  // namespace

Decode find_decoder(Name opcode) {
    const auto it = table().find(opcode);
    return it == table().end() ? nullptr : it->second;
}

}  // namespace emu
