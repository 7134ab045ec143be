// The convolution family's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_convolution(cpu::ConvolutionEntries& e) {
    register_depthwise(e.depthwise);
    register_depthwise_last(e.depthwise);
    register_depthwise_last_weight(e.depthwise);
    register_depthwise_weight(e.depthwise);
}

}  // namespace nk::NK_ISA
