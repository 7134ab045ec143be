// Attention a query at a time, the definition written out: any strides, every rule, sums in double. It serves what the
// tiles do not take, and is the one to read first.
#include "../../math.h"
#include "../../math/philox.h"
#include "../simd/number.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

constexpr double kMinusInfinity = -__builtin_inf();

template <class T>
double at(const cpu::HeadMatrix& m, int64_t row, int64_t column) {
    return static_cast<double>(to_number(static_cast<const T*>(m.data)[row * m.row + column * m.column]));
}
template <class T>
void put(const cpu::HeadMatrix& m, int64_t row, int64_t column, double x) {
    put_number(static_cast<T*>(m.data)[row * m.row + column * m.column], static_cast<decltype(to_number(T()))>(x));
}
// A number of row j of keys or values, in pages or not; `page`: elements from page to page.
template <class T>
double of_row(const cpu::AttentionHead& h, const cpu::HeadMatrix& m, int64_t page, int64_t j, int64_t column) {
    if (h.pages.table == nullptr) return at<T>(m, j, column);
    const cpu::HeadMatrix own{static_cast<T*>(m.data) + h.pages[j / h.pages.rows] * page, m.row, m.column};
    return at<T>(own, j % h.pages.rows, column);
}
template <class T>
double key_at(const cpu::AttentionHead& h, int64_t j, int64_t column) {
    return of_row<T>(h, h.key, h.pages.key, j, column);
}
template <class T>
double value_at(const cpu::AttentionHead& h, int64_t j, int64_t column) {
    return of_row<T>(h, h.value, h.pages.value, j, column);
}
template <class T>
using statistic = decltype(to_number(T()));  // lse: float, double for double

// One query: its scores, and what becomes of them.
template <class T>
struct Query {
    const cpu::AttentionHead& h;
    int64_t i;
    KeyRange range;
    double* score;  // [keys], -infinity where a key is not visible
    double* slack;  // [keys], the derivative of the score by scale * q k', where that is asked for
    double top = kMinusInfinity, sum = 0, sink = 0;

    Query(const cpu::AttentionHead& head, int64_t query, double* scratch, bool derivatives)
        : h(head),
          i(query),
          range(visible_keys(head.rules, query, head.queries, head.keys)),
          score(scratch),
          slack(scratch + head.keys) {
        double* const q = slack + h.keys;
        for (int64_t d = 0; d < h.size; ++d) q[d] = at<T>(h.query, i, d);
        const int64_t place = place_of(h.rules, i, h.queries, h.keys);
        bool nan = false;
        for (int64_t j = range.begin; j < range.end; ++j) {
            score[j] = kMinusInfinity;
            if (h.mask.data != nullptr &&
                static_cast<const uint8_t*>(h.mask.data)[i * h.mask.row + j * h.mask.column] == 0)
                continue;
            double part[4] = {};
            for (int64_t d = 0; d < h.size; ++d) part[d & 3] = math::fma(q[d], key_at<T>(h, j, d), part[d & 3]);
            double s = (part[0] + part[1] + (part[2] + part[3])) * h.rules.scale;
            if (derivatives) slack[j] = 1;
            if (h.rules.softcap != 0) {
                const double t = math::tanh(s / h.rules.softcap);
                s = h.rules.softcap * t;
                if (derivatives) slack[j] = 1 - t * t;
            }
            if (h.slope != nullptr) s -= *h.slope * static_cast<double>(place > j ? place - j : j - place);
            if (h.bias.data != nullptr) s += h.bias_f32 ? at<float>(h.bias, i, j) : at<T>(h.bias, i, j);
            score[j] = s;
            nan = nan || s != s;
            if (s > top) top = s;
        }
        if (h.sink != nullptr && *h.sink > top) top = *h.sink;
        if (top == kMinusInfinity && !nan) return;  // nothing is visible
        const double from = top == kMinusInfinity ? 0 : top;
        for (int64_t j = range.begin; j < range.end; ++j) {
            score[j] = score[j] == kMinusInfinity ? 0 : math::exp(score[j] - from);
            sum += score[j];
        }
        if (h.sink != nullptr) sink = math::exp(*h.sink - from), sum += sink;
        for (int64_t j = range.begin; j < range.end; ++j) score[j] /= sum;
        sink /= sum;
    }

    // Otherwise there is nothing to see: no probabilities.
    bool sees() const { return sum != 0; }
    double lse() const { return sees() ? math::log(sum) + (top == kMinusInfinity ? 0 : top) : kMinusInfinity; }

    // What dropout makes of a probability: 0, or this many times as much.
    double kept(int64_t j) const {
        if (h.rules.dropout == 0) return 1;
        const uint64_t index = h.dropout_index + static_cast<uint64_t>(i * h.dropout_row + j);
        const math::PhiloxBlock made = math::philox(h.rules.seed, h.rules.offset + index / 4);
        const float u = math::uniform<24>(made.word[index % 4]);
        return u >= static_cast<float>(h.rules.dropout) ? 1 / (1 - h.rules.dropout) : 0;
    }
};

template <class T>
void forward(const cpu::AttentionHead& h, int64_t first, int64_t last, double* scratch) {
    double* const out = scratch + 2 * h.keys + h.size;
    for (int64_t i = first; i < last; ++i) {
        const Query<T> query(h, i, scratch, false);
        for (int64_t d = 0; d < h.value_size; ++d) out[d] = 0;
        for (int64_t j = query.range.begin; query.sees() && j < query.range.end; ++j) {
            // what has no share is not looked at: it may be NaN
            const double p = query.score[j] == 0 ? 0 : query.score[j] * query.kept(j);
            if (p == 0) continue;
            for (int64_t d = 0; d < h.value_size; ++d) out[d] += p * value_at<T>(h, j, d);
        }
        for (int64_t d = 0; d < h.value_size; ++d) put<T>(h.output, i, d, out[d]);
        if (h.lse.data != nullptr) put<statistic<T>>(h.lse, i, 0, query.lse());
    }
}

template <class T>
void backward(const cpu::AttentionHeadBackward& h, double* scratch) {
    double* const q = scratch + 2 * h.keys;  // where Query leaves it
    double* const g = q + h.size;
    double* const gq = g + h.value_size;
    double* const gp = gq + h.size;  // [keys]
    for (int64_t i = 0; i < h.queries; ++i) {
        const Query<T> query(h, i, scratch, true);
        for (int64_t d = 0; d < h.size; ++d) gq[d] = 0;
        if (query.sees()) {
            for (int64_t d = 0; d < h.value_size; ++d) g[d] = at<T>(h.g, i, d);
            double delta = h.g_lse.data != nullptr ? -at<statistic<T>>(h.g_lse, i, 0) : 0;
            for (int64_t j = query.range.begin; j < query.range.end; ++j) {
                const double p = query.score[j];
                if (p == 0) continue;
                const double kept = query.kept(j);
                gp[j] = 0;
                if (kept == 0) continue;
                for (int64_t d = 0; d < h.value_size; ++d) gp[j] = math::fma(g[d], at<T>(h.value, j, d), gp[j]);
                gp[j] *= kept;
                delta += p * gp[j];  // g times the output, which was rounded
                for (int64_t d = 0; h.g_value != nullptr && d < h.value_size; ++d)
                    h.g_value[j * h.value_size + d] += p * kept * g[d];
            }
            if (h.g_sink != nullptr) *h.g_sink -= query.sink * delta;
            for (int64_t j = query.range.begin; j < query.range.end; ++j) {
                const double p = query.score[j];
                if (p == 0) continue;
                const double gs = p * (gp[j] - delta);
                if (h.g_bias != nullptr) h.g_bias[i * h.g_bias_row + j * h.g_bias_column] += gs;
                const double gx = gs * query.slack[j] * h.rules.scale;
                for (int64_t d = 0; d < h.size; ++d) {
                    gq[d] += gx * at<T>(h.key, j, d);
                    if (h.g_key != nullptr) h.g_key[j * h.size + d] += gx * q[d];
                }
            }
        }
        for (int64_t d = 0; h.g_query.data != nullptr && d < h.size; ++d) put<T>(h.g_query, i, d, gq[d]);
    }
}

template <class T>
double number(const void* x) {
    return static_cast<double>(to_number(*static_cast<const T*>(x)));
}
template <class T>
void put_all(const cpu::HeadMatrix& to, const double* from, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) put<T>(to, r, c, from[r * columns + c]);
}

template <class T>
void fill(cpu::AttentionEntries& e, DType type) {
    const int t = static_cast<int>(type);
    e.number[t] = number<T>, e.put[t] = put_all<T>;
    e.row_by_row[t] = forward<T>, e.row_by_row_backward[t] = backward<T>;
}

}  // namespace

void register_attention_row_by_row(cpu::AttentionEntries& e) {
    fill<float>(e, DType::f32), fill<double>(e, DType::f64), fill<f16>(e, DType::f16), fill<bf16>(e, DType::bf16);
}

}  // namespace nk::NK_ISA
