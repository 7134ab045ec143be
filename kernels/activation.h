// The one table of activations. Every backend, the epilogues and Python take their ids and properties from here.
#pragma once

namespace nk {

enum class Cost { cheap, dear };      // one instruction or two, or an exponential
enum class ToldBy { input, output };  // what is enough to tell the derivative by: where the output is, it is kept

// X(name, struct of kernels/math/activations.h, cost, told by, parameters p0 and p1 with their defaults): in order of
// id; append only.
#define NK_ACTIVATIONS(X)                                          \
    X(identity, Identity, cheap, input, "")                        \
    X(relu, Relu, cheap, output, "")                               \
    X(relu6, Relu6, cheap, input, "")                              \
    X(leaky_relu, LeakyRelu, cheap, output, "negative_slope=0.01") \
    X(elu, Elu, dear, input, "alpha=1")                            \
    X(selu, Selu, dear, input, "")                                 \
    X(celu, Celu, dear, input, "alpha=1")                          \
    X(gelu, Gelu, dear, input, "")                                 \
    X(gelu_tanh, GeluTanh, dear, input, "")                        \
    X(silu, Silu, dear, input, "")                                 \
    X(mish, Mish, dear, input, "")                                 \
    X(sigmoid, Sigmoid, dear, output, "")                          \
    X(logsigmoid, Logsigmoid, dear, input, "")                     \
    X(hardsigmoid, Hardsigmoid, cheap, input, "")                  \
    X(hardswish, Hardswish, cheap, input, "")                      \
    X(hardtanh, Hardtanh, cheap, input, "min_val=-1 max_val=1")    \
    X(hardshrink, Hardshrink, cheap, input, "lambd=0.5")           \
    X(softshrink, Softshrink, cheap, input, "lambd=0.5")           \
    X(tanhshrink, Tanhshrink, dear, input, "")                     \
    X(softsign, Softsign, dear, input, "")                         \
    X(softplus, Softplus, dear, input, "beta=1 threshold=20")      \
    X(threshold, Threshold, cheap, input, "threshold=0 value=0")   \
    X(tanh, Tanh, dear, output, "")                                \
    X(squared_relu, SquaredRelu, cheap, input, "")

// The gated units: X(name, activation of the gate, its struct, whether it is on the first half of the input).
#define NK_GATED_UNITS(X)                    \
    X(glu, sigmoid, Sigmoid, false)          \
    X(swiglu, silu, Silu, true)              \
    X(geglu, gelu, Gelu, true)               \
    X(geglu_tanh, gelu_tanh, GeluTanh, true) \
    X(reglu, relu, Relu, true)

#define NK_ENUMERATOR(name, ...) name,
enum class Activation : int { NK_ACTIVATIONS(NK_ENUMERATOR) };
#undef NK_ENUMERATOR

#define NK_COUNT(...) +1
inline constexpr int kActivations = 0 NK_ACTIVATIONS(NK_COUNT);
#undef NK_COUNT

#define NK_NAME(name, ...) #name,
inline constexpr const char* kActivationNames[] = {NK_ACTIVATIONS(NK_NAME)};
#undef NK_NAME

#define NK_PARAMETERS(name, op, cost, told, parameters) parameters,
inline constexpr const char* kActivationParameters[] = {NK_ACTIVATIONS(NK_PARAMETERS)};
#undef NK_PARAMETERS

#define NK_TOLD(name, op, cost, told, parameters) ToldBy::told == ToldBy::output,
inline constexpr bool kActivationFromOutput[] = {NK_ACTIVATIONS(NK_TOLD)};
#undef NK_TOLD

#define NK_COST(name, op, cost, told, parameters) Cost::cost == Cost::cheap,
inline constexpr bool kActivationCheap[] = {NK_ACTIVATIONS(NK_COST)};
#undef NK_COST

constexpr const char* name_of(Activation a) { return kActivationNames[static_cast<int>(a)]; }
constexpr bool is_cheap(Activation a) { return kActivationCheap[static_cast<int>(a)]; }

}  // namespace nk
