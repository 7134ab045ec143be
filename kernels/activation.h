// The one list of activations. Every backend, the epilogues and Python take their ids from here.
#pragma once

namespace nk {

// X(name): in order of id; append only. Parameters p0, p1 are named behind each that has any. Where p0 is not 0, the
// derivatives of sigmoid and tanh take the output y = f(x) for x.
#define NK_ACTIVATIONS(X)                          \
    X(identity)                                    \
    X(relu)                                        \
    X(relu6)                                       \
    X(leaky_relu) /* p0 = negative_slope */        \
    X(elu)        /* p0 = alpha */                 \
    X(selu)                                        \
    X(celu) /* p0 = alpha */                       \
    X(gelu)                                        \
    X(gelu_tanh)                                   \
    X(silu)                                        \
    X(mish)                                        \
    X(sigmoid) /* p0: as above */                  \
    X(logsigmoid)                                  \
    X(hardsigmoid)                                 \
    X(hardswish)                                   \
    X(hardtanh)   /* p0 = min_val, p1 = max_val */ \
    X(hardshrink) /* p0 = lambd */                 \
    X(softshrink) /* p0 = lambd */                 \
    X(tanhshrink)                                  \
    X(softsign)                                    \
    X(softplus)  /* p0 = beta, p1 = threshold */   \
    X(threshold) /* p0 = threshold, p1 = value */  \
    X(tanh)      /* p0: as above */                \
    X(squared_relu)

#define NK_ENUMERATOR(name) name,
enum class Activation : int { NK_ACTIVATIONS(NK_ENUMERATOR) };
#undef NK_ENUMERATOR

#define NK_COUNT(name) +1
inline constexpr int kActivations = 0 NK_ACTIVATIONS(NK_COUNT);
#undef NK_COUNT

#define NK_NAME(name) #name,
inline constexpr const char* kActivationNames[] = {NK_ACTIVATIONS(NK_NAME)};
#undef NK_NAME

constexpr const char* name_of(Activation a) { return kActivationNames[static_cast<int>(a)]; }

}  // namespace nk
