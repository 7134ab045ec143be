// out = f(x), out = g f'(x), out = gg g f''(x). One kernel per order and element type; the activation is an argument.
#include "ops.h"

NK_ELEMENTWISE_KERNELS(activation_unary, Unary)
NK_ELEMENTWISE_KERNELS(activation_unary_backward, UnaryBackward)
NK_ELEMENTWISE_KERNELS(activation_unary_backward2, UnaryBackward2)
NK_ELEMENTWISE_KERNELS(activation_unary_backward_from_output, UnaryBackwardFromOutput)
NK_ELEMENTWISE_KERNELS(activation_unary_backward2_from_output, UnaryBackward2FromOutput)
