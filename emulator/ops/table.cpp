// Opcode -> decoder.
#include <unordered_map>

#include "../decode/builder.h"
#include "families.h"

namespace emu {

namespace {

using namespace ops;

// add, mul, min and others are integer or floating-point by their type, which is their last modifier.
bool is_floating(Builder& b) {
    const Name full = b.full_opcode();
    const Type t = type_of(full.substr(full.rfind('.') + 1));
    return is_float(t);
}

template <Decode Integer, Decode Floating>
void either(Builder& b) {
    is_floating(b) ? Floating(b) : Integer(b);
}

void add(Builder& b) { integer_add(b, false); }
void sub(Builder& b) { integer_add(b, true); }

const std::unordered_map<Name, Decode>& table() {
    static const std::unordered_map<Name, Decode> t = {
        {"add", either<add, floating_add>},
        {"sub", either<sub, floating_sub>},
        {"mul", either<integer_mul, floating_mul>},
        {"mad", either<integer_mad, fma>},
        {"div", either<integer_div, floating_div>},
        {"min", either<integer_min, floating_min>},
        {"max", either<integer_max, floating_max>},
        {"neg", either<integer_neg, floating_neg>},
        {"abs", either<integer_abs, floating_abs>},
        {"rem", integer_rem},
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
        {"ldmatrix", ldmatrix},
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
        {"nanosleep", nothing},
        {"griddepcontrol", nothing},
        {"setmaxnreg", nothing},
        {"applypriority", nothing},
        {"discard", nothing},
    };
    return t;
}

}  // namespace

Decode find_decoder(Name opcode) {
    const auto it = table().find(opcode);
    return it == table().end() ? nullptr : it->second;
}

}  // namespace emu
