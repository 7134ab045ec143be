// Attention and its gradients: check, make the outputs, run.
#include "attention/cache.h"
#include "attention/check.h"
#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"

namespace nk {

namespace {

using attention::Arguments;
using attention::BackwardProblem;
using attention::Operand;
using attention::Place;
using attention::Problem;

// What forward made, or whatever a hook has unpacked in its place, and the gradients of it.
void check_made(const Arguments& a, const Problem& p, const Input& t, bool rows) {
    check_same_device(a.call.op, t.name, t, a.query.name, a.query);
    int64_t shape[kMaxDims];
    const int n = a.query->ndim - (rows ? 1 : 0);
    std::copy(a.query->shape, a.query->shape + n, shape);
    if (!rows) shape[n - 1] = p.value_size;
    const DType type = rows ? type_of_statistics(a.query) : p.dtype;
    if (t->dtype != type || t->ndim != n || !std::equal(shape, shape + n, t->shape))
        a.call.fail("argument ", t.name, " of shape ", shape_string(t), " is ", name_of(t->dtype), ", expected ",
                    shape_string(shape, n), " in ", name_of(type));
}

py::object forward(const Arguments& a, bool with_lse) {
    Problem p;
    read_sizes(a, p);
    int64_t shape[kMaxDims];
    const int n = a.query->ndim;
    std::copy(a.query->shape, a.query->shape + n, shape);
    shape[n - 1] = p.value_size;
    // as torch's: a query that lies densely gives its layout, any other one rows of all heads
    Output output(a.call, "output",
                  a.query->is_contiguous() ? new_tensor(a.query, shape, n) : attention::new_heads(a.query, shape, n));
    std::optional<Output> lse;
    if (with_lse) lse.emplace(a.call, "lse", a.query, type_of_statistics(a.query), shape, n - 1);
    read_operands(a, p, {{&output.view, &p.output}, {lse ? &lse->view : nullptr, &p.lse, 1}});
    run(
        a.call, p.device, {output.object.ptr(), lse ? lse->object.ptr() : Py_None},
        [&] {
            if (output->numel() != 0 || (lse && lse->view.numel() != 0)) forward_cpu(p);
        },
        [&] {
            if (output->numel() != 0 || (lse && lse->view.numel() != 0)) forward_cuda(p);
        });
    if (!with_lse) return output.object;
    return py::make_tuple(output.object, lse->object);
}

py::object backward(const Arguments& a, Input& g, Input* g_lse, Input& output, Input& lse, const Wants& wants) {
    BackwardProblem p;
    read_sizes(a, p);
    check_made(a, p, g, false);
    check_made(a, p, output, false);
    check_made(a, p, lse, true);
    if (g_lse != nullptr) check_made(a, p, *g_lse, true);
    std::optional<Output> made[7];
    PyObject* objects[7] = {Py_None, Py_None, Py_None, Py_None, Py_None, Py_None, Py_None};
    const auto make = [&](int i, const TensorView& like, bool heads) {
        if (!wants[i]) return;
        if (heads)
            made[i].emplace(a.call, "gradient", attention::new_heads(like, like.shape, like.ndim));
        else
            made[i].emplace(a.call, "gradient", like, like.shape, like.ndim);
        objects[i] = made[i]->object.ptr();
    };
    make(0, a.query, true), make(1, a.key, true), make(2, a.value, true);
    // The bias was repeated to the shape of the scores when it was read: its gradient has its own shape.
    TensorView bias_gradient;
    if (a.bias.present && wants[4]) {
        TensorView own;
        read_tensor(a.bias.object, a.call.op, a.bias.name, own);
        make(4, own, false);
        bias_gradient = made[4]->view;
        p.g_bias_numbers = bias_gradient.numel();
        if (!expand(bias_gradient, a.bias.view.shape, a.bias.view.ndim)) a.call.fail("argument bias changed its shape");
    }
    if (a.sink.present) make(6, a.sink.view, false);
    const auto view = [&](int i) { return made[i] ? &made[i]->view : nullptr; };
    read_operands(a, p,
                  {{&output.view, &p.output},
                   {&lse.view, &p.lse, 1},
                   {&g.view, &p.g},
                   {g_lse ? &g_lse->view : nullptr, &p.g_lse, 1},
                   {view(0), &p.g_query},
                   {view(1), &p.g_key},
                   {view(2), &p.g_value},
                   {made[4] ? &bias_gradient : nullptr, &p.g_bias},
                   {view(6), &p.g_sink, 0}});
    run(
        a.call, p.device, {objects[0], objects[1], objects[2], objects[4], objects[6]}, [&] { backward_cpu(p); },
        [&] { backward_cuda(p); });
    py::tuple result(10);
    for (int i = 0; i < 10; ++i) result[i] = py::reinterpret_borrow<py::object>(i < 7 ? objects[i] : Py_None);
    return result;
}

#define NK_GIVEN                                                                                             \
    Input &query, Input &key, Input &value, OptionalInput &mask, OptionalInput &bias, OptionalInput &slopes, \
        OptionalInput &sink, OptionalInput &cu_seqlens_q, OptionalInput &cu_seqlens_k, OptionalInput &seed
#define NK_RULES std::optional<double> scale, double softcap, double dropout_p, Ints &rules
#define NK_ARGUMENTS                                                                                         \
    Arguments {                                                                                              \
        call, query, key, value, mask, bias, slopes, sink, cu_seqlens_q, cu_seqlens_k, seed, scale, softcap, \
            dropout_p, rules                                                                                 \
    }

py::object attention_output(const Call& call, NK_GIVEN, NK_RULES) { return forward(NK_ARGUMENTS, call.recorded); }

py::object attention_with_lse(const Call& call, NK_GIVEN, NK_RULES) { return forward(NK_ARGUMENTS, true); }

py::object attention_backward(const Call& call, Input& g, NK_GIVEN, Input& output, Input& lse, NK_RULES, Wants wants) {
    return backward(NK_ARGUMENTS, g, nullptr, output, lse, wants);
}

py::object attention_with_lse_backward(const Call& call, Input& g, Input& g_lse, NK_GIVEN, Input& output, Input& lse,
                                       NK_RULES, Wants wants) {
    return backward(NK_ARGUMENTS, g, &g_lse, output, lse, wants);
}

}  // namespace

void register_attention(py::handle m) {
    constexpr const char* tensors = "tuple[Tensor | None, ...]";
    const std::string given = "query key value mask bias slopes sink cu_seqlens_q cu_seqlens_k seed";
    const std::string rules = " scale softcap dropout_p rules";
    def_entry<&attention_output>(m, "attention", (given + rules).c_str(),
                                 "softmax(scale * query key' and what kernels/attention.h adds) value; recorded: with "
                                 "the log of the softmax's sum.");
    // by torch's name: its attn_mask is one of the two, by its dtype
    def_entry<&attention_output>(
        m, "scaled_dot_product_attention",
        ("query key value bool_attn_mask attn_mask slopes sink cu_seqlens_q cu_seqlens_k seed" + rules).c_str(),
        "The same as attention.");
    def_entry<&attention_with_lse>(m, "attention_with_lse", (given + rules).c_str(),
                                   "The same with the log of the softmax's sum.", tensors);
    def_entry<&attention_backward>(m, "attention_backward", ("g " + given + " output lse" + rules + " wants").c_str(),
                                   "The gradients of attention.", tensors);
    def_entry<&attention_with_lse_backward>(m, "attention_with_lse_backward",
                                            ("g g_lse " + given + " output lse" + rules + " wants").c_str(),
                                            "The gradients of attention_with_lse.", tensors);
    attention::register_cache(m);
}

}  // namespace nk
