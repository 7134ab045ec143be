// One element at a time: its number, and the number rounded to nearest even in its type.
#pragma once

#include "../../math/scalar.h"
#include "half.h"

#if defined(__F16C__)
#include "intrinsics.h"
#endif

namespace nk::NK_ISA {

NK_HD float to_number(float x) { return x; }
NK_HD double to_number(double x) { return x; }
NK_HD float to_number(bf16 x) { return math::from_bits<float>(static_cast<uint32_t>(x.bits) << 16); }
NK_HD float to_number(f16 x) {
#if defined(__F16C__)
    return _cvtsh_ss(x.bits);
#else
    const uint32_t sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
    if (magnitude >= 0x7c00u)  // infinity, NaN
        return math::from_bits<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13 |
                                      (magnitude > 0x7c00u ? 0x400000u : 0u));
    // no float on the way is subnormal: the processor may have been told to flush those
    const float value = magnitude < 0x400u ? static_cast<float>(magnitude) * 0x1p-24f
                                           : math::from_bits<float>((magnitude << 13) + 0x38000000u);
    return math::copysign(value, math::from_bits<float>(sign));
#endif
}

NK_HD void put_number(float& to, float x) { to = x; }
NK_HD void put_number(double& to, double x) { to = x; }
NK_HD void put_number(bf16& to, float x) {
    const uint32_t b = math::to_bits(x);
    const uint32_t rounded = (b + 0x7fffu + (b >> 16 & 1u)) >> 16, quiet = b >> 16 | 0x40u;
    to.bits = static_cast<uint16_t>(x == x ? rounded : quiet);
}
NK_HD void put_number(f16& to, float x) {
#if defined(__F16C__)
    to.bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
    const uint32_t b = math::to_bits(x), sign = b >> 16 & 0x8000u, m = b & 0x7fffffffu;
    uint32_t h;
    if (m > 0x7f800000u) {
        h = 0x7e00u | (m >> 13 & 0x3ffu);
    } else if (m >= 0x477ff000u) {  // rounds to 65536 or more
        h = 0x7c00u;
    } else if (m < 0x38800000u) {  // denormal: the sum's unit in the last place is that of f16
        h = math::to_bits(math::from_bits<float>(m) + 0.5f) - 0x3f000000u;
    } else {
        h = (m + 0xfffu + (m >> 13 & 1u) - 0x38000000u) >> 13;
    }
    to.bits = static_cast<uint16_t>(sign | h);
#endif
}

}  // namespace nk::NK_ISA
