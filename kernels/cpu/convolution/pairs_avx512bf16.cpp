// bf16 convolutions by pairs, which the processor multiplies. All other entries stay as AVX-512 has them.
#include "register.h"

namespace nk::NK_ISA {

void register_convolution(cpu::ConvolutionEntries& e) { set_convolution<LanesPairs, bf16>(e, DType::bf16); }

}  // namespace nk::NK_ISA
