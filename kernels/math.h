// Scalar functions and their derivatives: one definition for the CPU's vectors and for CUDA.
//   math/scalar.h       what is needed of a number type V, for float and double
//   math/elementary.h   exp, expm1, log, log1p, tanh, erf, ...
//   math/activations.h  each activation with its first and second derivative
#pragma once

#include "math/activations.h"
#include "math/elementary.h"
#include "math/scalar.h"
