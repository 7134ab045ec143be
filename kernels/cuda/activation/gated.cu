// out = f(a) b, and its gradients ga = g b f'(a), gb = g f(a) in one pass over g, a and b.
#include "ops.h"

NK_ELEMENTWISE_KERNELS(activation_gated, Gated)
NK_ELEMENTWISE_KERNELS(activation_gated_backward, GatedBackward)
