// Convolution's part of this instruction set's table.
#include "register.h"

namespace nk::NK_ISA {

void register_winograd(cpu::ConvolutionEntries& e);
void register_depthwise(cpu::DepthwiseEntries& e);
void register_depthwise_last(cpu::DepthwiseEntries& e);
void register_depthwise_last_weight(cpu::DepthwiseEntries& e);
void register_depthwise_weight(cpu::DepthwiseEntries& e);

void register_convolution(cpu::ConvolutionEntries& e) {
    set_convolution<LanesF32, float>(e, DType::f32);
    set_convolution<LanesF64, double>(e, DType::f64);
    set_convolution<LanesF32, f16>(e, DType::f16);
    set_convolution<LanesF32, bf16>(e, DType::bf16);
    register_winograd(e);
    register_depthwise(e.depthwise);
    register_depthwise_last(e.depthwise);
    register_depthwise_last_weight(e.depthwise);
    register_depthwise_weight(e.depthwise);
}

}  // namespace nk::NK_ISA
