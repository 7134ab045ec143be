// f64 products.
#include "block.h"
#include "dot.h"
#include "register.h"

namespace nk::NK_ISA {

#if !defined(NK_ISA_avx512bf16)  // there the AVX-512 entries stay in force
void register_f64(cpu::MatmulEntries& e) { set_entries<LanesF64, double>(e, DType::f64, "f64"); }
#else
void register_f64(cpu::MatmulEntries&) {}
#endif

}  // namespace nk::NK_ISA
