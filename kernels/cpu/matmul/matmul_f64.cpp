// f64 products.
#include "block.h"
#include "dot.h"
#include "register.h"

namespace nk::NK_ISA {

void register_f64(cpu::MatmulEntries& e) { set_entries<LanesF64, double>(e, DType::f64, "f64"); }

template Micro<LanesF64> pick_micro<LanesF64, double, double, LanesF64::kMaxRows>(int,
                                                                                  int);  // convolutions use it, too

}  // namespace nk::NK_ISA
