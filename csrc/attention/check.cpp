#include "attention/check.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/geometry.h"

namespace nk::attention {

namespace {

// A tensor with the batch dims of the query, all of them.
struct Wide {
    Operand* to;
    int64_t batch[kMaxDims];
};

// [batch dims of query..., heads] and what follows.
int batch_dims(const TensorView& query) { return std::max(query.ndim - 3, 0); }

Wide widened(const TensorView& query, const Place& place) {
    const TensorView& t = *place.tensor;
    Operand& x = *place.to;
    x.data = static_cast<char*>(t.data), x.dtype = t.dtype;
    if (place.inner >= 1) x.row = t.step(-place.inner);
    if (place.inner == 2) x.column = t.step(-1);
    int left = t.ndim - place.inner;
    if (query.ndim >= 3 && left > 0) x.head = t.stride[--left];
    Wide w{&x, {}};
    const int dims = batch_dims(query);
    for (int i = 0; i < dims; ++i) w.batch[i] = i < left ? t.stride[i] : 0;
    return w;
}

void check_operand(const Arguments& a, const Input& t) {
    check_kind(t, a.query);
    if (t->ndim != a.query->ndim)
        a.call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected ", a.query->ndim,
                    " dimensions as argument ", a.query.name);
    const int dims = batch_dims(a.query);
    if (!std::equal(t->shape, t->shape + dims, a.query->shape))
        a.call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected the batch dimensions of argument ",
                    a.query.name, " of shape ", shape_string(a.query));
}

int64_t heads_of(const TensorView& t) { return t.ndim >= 3 ? t.size(-3) : 1; }

// Repeats a mask, bias or slopes to the scores' shape, less its last `less` dims.
void check_repeated(const Call& call, const Problem& p, const Input& query, OptionalInput& t, int less) {
    if (!t.present) return;
    check_same_device(call.op, t.name, t.view, query.name, query);
    int64_t shape[kMaxDims];
    int n = 0;
    for (int i = 0; i < query->ndim - 2; ++i) shape[n++] = query->shape[i];
    shape[n] = p.queries, shape[n + 1] = p.keys;
    n += 2 - less;
    const std::string given = shape_string(t.view);
    if (t.view.ndim > n || !expand(t.view, shape, n))
        call.fail("argument ", t.name, " has shape ", given, ", which can't be broadcast to ", shape_string(shape, n));
}

void check_ends(const Arguments& a, const OptionalInput& t, int64_t rows, const Input& of, int64_t longest) {
    check_same_device(a.call.op, t.name, t.view, a.query.name, a.query);
    if ((t.view.dtype != DType::i32 && t.view.dtype != DType::i64) || t.view.ndim != 1 || t.view.shape[0] < 1 ||
        !t.view.is_contiguous())
        a.call.fail("argument ", t.name, " of shape ", shape_string(t.view), " is ", name_of(t.view.dtype),
                    ", expected a contiguous vector of int32 or int64, of one number more than there are sequences");
    if (t.view.device.kind != Device::cpu) return;  // its numbers are the device's business
    int64_t before = 0;
    for (int64_t i = 0; i < t.view.shape[0]; ++i) {
        const int64_t end = number_at(t.view, i);
        if (end < before || end > rows || (i == 0 && end != 0))
            fail_value(a.call.op, "argument ", t.name, " has ", end, " at place ", i,
                       ", expected numbers that begin with 0, do not fall, and end at most at the ", rows, " rows of ",
                       of.name);
        if (longest > 0 && end - before > longest)
            fail_value(a.call.op, "argument ", t.name, " has a sequence of ", end - before, " rows, expected at most ",
                       longest, ", the longest that was given");
        before = end;
    }
}

void read_seed(const Arguments& a, Problem& p) {
    if (!a.seed.present) a.call.fail("argument ", a.seed.name, " is None, expected two numbers for dropout");
    const TensorView& t = a.seed.view;
    check_same_device(a.call.op, a.seed.name, t, a.query.name, a.query);
    if (t.dtype != DType::i64 || t.ndim != 1 || t.shape[0] != 2 || !t.is_contiguous())
        a.call.fail("argument ", a.seed.name, " of shape ", shape_string(t), " is ", name_of(t.dtype),
                    ", expected two numbers of int64");
    p.seed = &t;
    if (t.device.kind != Device::cpu) return;
    p.rules.seed = static_cast<const uint64_t*>(t.data)[0], p.rules.offset = static_cast<const uint64_t*>(t.data)[1];
}

}  // namespace

void check_heads(const Call& call, const Problem& p, const Input& query, const Input& key, const Input& value,
                 bool groups) {
    if (key->size(-1) != p.size)
        call.fail("argument ", key.name, " has shape ", shape_string(key), ", expected its last size to be ", p.size,
                  " as that of argument ", query.name);
    if (value->size(-2) != key->size(-2) || heads_of(value) != p.kv_heads)
        call.fail("argument ", value.name, " has shape ", shape_string(value),
                  ", expected the heads and rows of argument ", key.name, " of shape ", shape_string(key));
    if (p.heads != p.kv_heads && (!groups || p.kv_heads == 0 || p.heads % p.kv_heads != 0))
        call.fail("argument ", key.name, " has ", p.kv_heads, " heads, expected ", p.heads, " as argument ", query.name,
                  groups ? ", or a number that divides it" : " (fewer need enable_gqa)");
}

void read_window(Problem& p, int64_t left, int64_t right, std::optional<double> scale) {
    p.rules.left = left < 0 ? kNoLimit : std::min(left, kNoLimit);
    p.rules.right = right < 0 ? kNoLimit : std::min(right, kNoLimit);
    p.rules.scale = scale.value_or(1 / std::sqrt(static_cast<double>(std::max<int64_t>(p.size, 1))));
}

void check_slopes_and_sink(const Call& call, const Problem& p, const Input& query, OptionalInput& slopes,
                           OptionalInput& sink) {
    check_repeated(call, p, query, slopes, 2);
    const DType statistics = type_of_statistics(query);
    if (slopes.present && slopes.view.dtype != statistics)
        call.fail("argument ", slopes.name, " has dtype ", name_of(slopes.view.dtype), ", expected ",
                  name_of(statistics));
    if (!sink.present) return;
    check_kind(sink, query);
    if (sink.view.ndim != 1 || sink.view.shape[0] != p.heads)
        call.fail("argument ", sink.name, " has shape ", shape_string(sink.view), ", expected [", p.heads,
                  "], a number for each head");
}

void read_sizes(const Arguments& a, Problem& p) {
    const Call& call = a.call;
    check_floating(a.query);
    if (a.query->ndim < 2)
        call.fail("argument ", a.query.name, " has shape ", shape_string(a.query), ", expected at least 2 dimensions");
    check_operand(a, a.key);
    check_operand(a, a.value);
    if (a.rules.count != 7) fail_value(call.op, "argument ", "rules has ", a.rules.count, " numbers, expected 7");
    const int64_t* const rules = a.rules.begin();
    p.dtype = a.query->dtype, p.device = a.query->device;
    p.heads = heads_of(a.query), p.kv_heads = heads_of(a.key);
    p.queries = a.query->size(-2), p.keys = a.key->size(-2);
    p.size = a.query->size(-1), p.value_size = a.value->size(-1);
    check_heads(call, p, a.query, a.key, a.value, rules[4] != 0);
    if (!(a.dropout >= 0 && a.dropout <= 1))
        call.fail("argument dropout_p is ", a.dropout, ", expected a probability from 0 to 1");

    read_window(p, rules[0], rules[1], a.scale);
    AttentionRules& r = p.rules;
    r.chunk = rules[2], r.bottom_right = rules[3] != 0;
    r.softcap = a.softcap, r.dropout = a.dropout;
    if (a.dropout > 0) read_seed(a, p);

    check_repeated(call, p, a.query, a.mask, 0);
    check_repeated(call, p, a.query, a.bias, 0);
    if (a.mask.present && a.mask.view.dtype != DType::b8)
        call.fail("argument ", a.mask.name, " has dtype ", name_of(a.mask.view.dtype), ", expected bool");
    const DType statistics = type_of_statistics(a.query);
    if (a.bias.present && a.bias.view.dtype != p.dtype && a.bias.view.dtype != statistics)
        call.fail("argument ", a.bias.name, " has dtype ", name_of(a.bias.view.dtype), ", expected ", name_of(p.dtype),
                  " or ", name_of(statistics));
    check_slopes_and_sink(call, p, a.query, a.slopes, a.sink);

    p.batch_dims = batch_dims(a.query);
    p.batches = std::accumulate(a.query->shape, a.query->shape + p.batch_dims, int64_t{1}, std::multiplies<>());
    p.longest_queries = p.queries, p.longest_keys = p.keys;
    if (a.cu_queries.present != a.cu_keys.present)
        call.fail("arguments ", a.cu_queries.name, " and ", a.cu_keys.name, ": one is given without the other");
    if (!a.cu_queries.present) return;
    if (p.batch_dims > 0)
        call.fail("argument ", a.query.name, " has shape ", shape_string(a.query),
                  ", expected [heads, rows of all sequences, size] with sequences' ends");
    check_ends(a, a.cu_queries, p.queries, a.query, rules[5]);
    check_ends(a, a.cu_keys, p.keys, a.key, rules[6]);
    if (a.cu_queries.view.shape[0] != a.cu_keys.view.shape[0])
        call.fail("argument ", a.cu_keys.name, " has shape ", shape_string(a.cu_keys.view), ", expected ",
                  shape_string(a.cu_queries.view), " as argument ", a.cu_queries.name);
    p.cu_queries = &a.cu_queries.view, p.cu_keys = &a.cu_keys.view;
    p.batches = a.cu_queries.view.shape[0] - 1;
    if (rules[5] > 0) p.longest_queries = std::min(rules[5], p.queries);
    if (rules[6] > 0) p.longest_keys = std::min(rules[6], p.keys);
}

void read_operands(const Arguments& a, Problem& p, std::initializer_list<Place> more) {
    std::vector<Place> places = {{&a.query.view, &p.query}, {&a.key.view, &p.key},   {&a.value.view, &p.value},
                                 {a.mask.get(), &p.mask},   {a.bias.get(), &p.bias}, {a.slopes.get(), &p.slopes, 0},
                                 {a.sink.get(), &p.sink, 0}};
    places.insert(places.end(), more);
    std::vector<Wide> wide;
    for (const Place& place : places)
        if (place.tensor != nullptr) wide.push_back(widened(a.query, place));
    int kept = 0;
    int64_t size[kMaxDims];
    for (int i = 0; i < batch_dims(a.query); ++i) {
        const int64_t n = a.query->shape[i];
        if (n == 1) continue;
        const bool joins = kept > 0 && std::all_of(wide.begin(), wide.end(),
                                                   [&](const Wide& w) { return w.batch[kept - 1] == w.batch[i] * n; });
        const int to = joins ? kept - 1 : kept++;
        size[to] = joins ? size[to] * n : n;
        for (Wide& w : wide) w.batch[to] = w.batch[i];
    }
    if (kept > kBatchDims)
        a.call.fail("argument ", a.query.name, " has ", kept,
                    " batch dimensions that do not lie evenly, expected at most ", kBatchDims);
    p.batch_dims = kept;
    std::copy(size, size + kept, p.batch_size);
    for (const Wide& w : wide) std::copy(w.batch, w.batch + kept, w.to->batch);
}

void* new_heads(const TensorView& like, const int64_t* shape, int ndim) {
    int64_t stride[kMaxDims];
    int64_t step = 1;
    const auto next = [&](int i) { stride[i] = step, step *= std::max<int64_t>(shape[i], 1); };
    next(ndim - 1);
    if (ndim >= 3) next(ndim - 3);
    next(ndim - 2);
    for (int i = ndim - 4; i >= 0; --i) next(i);
    return new_strided(like, like.dtype, shape, stride, ndim);
}

}  // namespace nk::attention
