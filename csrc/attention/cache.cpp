// Attention to a cache of keys and values, and writing to it: check, make the outputs, run.
#include "attention/cache.h"

#include "call/kernel_entry.h"
#include "call/run.h"

namespace nk::attention {

namespace {

py::object append_to_cache(const Call& call, Input& cache, Input& rows, Input& lengths, OptionalInput& table) {
    AppendProblem p;
    read_append(call, cache, rows, lengths, table, p);
    const bool empty = rows->numel() == 0;
    run(
        call, p.device, {cache.object},
        [&] {
            if (!empty) append_cpu(p);
        },
        [&] {
            if (!empty) append_cuda(p);
        });
    return py::reinterpret_borrow<py::object>(cache.object);
}

#define NK_CACHE_GIVEN                                                                                         \
    Input &query, Input &k_cache, Input &v_cache, Input &lengths, OptionalInput &table, OptionalInput &slopes, \
        OptionalInput &sink

py::object attention_of_cache(const Call& call, NK_CACHE_GIVEN, std::optional<double> scale, double softcap,
                              Ints& rules) {
    Problem p;
    read_cache({call, query, k_cache, v_cache, lengths, table, slopes, sink, scale, softcap, rules}, p);
    const int64_t shape[] = {p.batches, p.heads, p.queries, p.value_size};
    Output output(call, "output", query->is_contiguous() ? new_tensor(query, shape, 4) : new_heads(query, shape, 4));
    Output lse(call, "lse", query, type_of_statistics(query), shape, 3);
    p.output.data = static_cast<char*>(output->data), p.output.dtype = p.dtype;
    p.output.batch[0] = output->stride[0], p.output.head = output->stride[1];
    p.output.row = output->stride[2], p.output.column = output->stride[3];
    p.lse.data = static_cast<char*>(lse->data), p.lse.dtype = lse->dtype;
    p.lse.batch[0] = lse->stride[0], p.lse.head = lse->stride[1], p.lse.row = lse->stride[2];
    const bool empty = lse->numel() == 0;
    run(
        call, p.device, {output.object.ptr(), lse.object.ptr()},
        [&] {
            if (!empty) forward_cpu(p);
        },
        [&] {
            if (!empty) forward_cuda(p);
        });
    return py::make_tuple(output.object, lse.object);
}

// The checks of a whole call by themselves, before its first write.
py::object check(const Call& call, NK_CACHE_GIVEN, Input& key, Input& value, std::optional<double> scale,
                 double softcap, Ints& rules) {
    Problem p;
    read_cache({call, query, k_cache, v_cache, lengths, table, slopes, sink, scale, softcap, rules}, p);
    if (value->ndim == 4 && key->ndim == 4 && (value->shape[0] != key->shape[0] || value->shape[2] != key->shape[2]))
        call.fail("argument ", value.name, " has shape ", shape_string(value),
                  ", expected the batch and rows of argument ", key.name, " of shape ", shape_string(key));
    AppendProblem append;
    read_append(call, k_cache, key, lengths, table, append);
    read_append(call, v_cache, value, lengths, table, append);
    return py::none();
}

}  // namespace

void register_cache(py::handle m) {
    def_entry<&append_to_cache>(m, "append_to_cache", "cache new cache_seqlens block_table",
                                "Writes new rows to a cache behind those that are there; returns it.");
    def_entry<&attention_of_cache>(
        m, "attention_of_cache", "query k_cache v_cache cache_seqlens block_table slopes sink scale softcap rules",
        "Attention to the keys and values of a cache, and the log of the softmax's sum.", "tuple[Tensor, Tensor]");
    def_entry<&check>(m, "attention_with_kv_cache",
                      "query k_cache v_cache cache_seqlens block_table slopes sink key value scale softcap rules",
                      "The checks of the two above, of a call that does both: writes nothing.", "None");
}

}  // namespace nk::attention
