// Activations for the epilogue, and their gradient with the bias gradient in one pass.
#include "../../math.h"
#include "../simd/params.h"
#include "entries.h"

namespace nk::NK_ISA {

void register_activate(cpu::MatmulEntries& e);

namespace {

constexpr int64_t kChunk = 256;      // columns whose gradient is computed at once: three rows of it stay in cache
constexpr int64_t kStrip = 2048;     // columns summed at once: memory is read in runs that the hardware sees coming
constexpr int64_t kRowsPerSum = 32;  // rows after which a partial column sum joins the total, so that it rounds less

// x[0 .. n) = f(x), x and n such that whole vectors may be read and written.
template <class T>
void activate(void* x, int64_t n, int activation, const double* p) {
    using S = typename compute<T>::type;
    using V = vec<S>;
    S* data = static_cast<S*>(x);
    math::visit_activation(static_cast<Activation>(activation), [&](auto op) {
        const auto constants = params<T>(p);
        for (int64_t i = 0; i < n; i += V::lanes)
            store(data + i, decltype(op)::template f<V>(load(data + i), constants));
    });
}

// out = g * f'(z), up to a whole vector.
template <class T, class S>
void gradient(S* out, const T* g, const T* z, int64_t n, int activation, const double* p) {
    using V = vec<S>;
    math::visit_activation(static_cast<Activation>(activation), [&](auto op) {
        const auto constants = params<T>(p);
        const auto f = [&](V gv, V zv) { return decltype(op)::template vjp<V>(gv, zv, constants); };
        int64_t i = 0;
        for (; i + V::lanes <= n; i += V::lanes) store(out + i, f(load(g + i), load(z + i)));
        if (i < n) store(out + i, f(load(g + i, static_cast<int>(n - i)), load(z + i, static_cast<int>(n - i))));
    });
}

template <class T>
const T* element(const cpu::MatmulOperand& x, int64_t i, int64_t j) {
    return static_cast<const T*>(x.data) + i * x.row + j * x.col;
}

// n elements side by side: where they lie, or collected in `block`.
template <class T>
const T* together(T* block, const T* from, int64_t step, int64_t n) {
    if (step == 1) return from;
    for (int64_t i = 0; i < n; ++i) block[i] = from[i * step];
    return block;
}

template <class T, class S>
void put(T* to, int64_t step, const S* from, int64_t n) {
    using V = vec<S>;
    for (int64_t i = 0; i < n; i += V::lanes) {
        const int left = n - i < V::lanes ? static_cast<int>(n - i) : V::lanes;
        if (step == 1) {
            store(to + i, load(from + i), left);
        } else {
            T part[V::lanes];
            store(part, load(from + i));
            for (int l = 0; l < left; ++l) to[(i + l) * step] = part[l];
        }
    }
}

template <class S>
void accumulate(S* sum, const S* x, int64_t n) {
    using V = vec<S>;
    for (int64_t i = 0; i < n; i += V::lanes) store(sum + i, load(sum + i) + load(x + i));
}

template <class T>
void bias_backward(const cpu::ActivationBiasTask& t) {
    using S = typename compute<T>::type;
    alignas(64) S out[kChunk], sum[kStrip], total[kStrip];
    T block_g[kChunk], block_z[kChunk];
    for (int64_t strip = 0; strip < t.n; strip += kStrip) {
        const int64_t end = t.n - strip < kStrip ? t.n : strip + kStrip;
        for (int64_t c = 0; c < kStrip; ++c) sum[c] = total[c] = 0;
        for (int64_t i = 0; i < t.m; ++i) {
            for (int64_t j = strip; j < end; j += kChunk) {
                const int64_t n = end - j < kChunk ? end - j : kChunk;
                const T* g = together(block_g, element<T>(t.g, i, j), t.g.col, n);
                const T* z = t.z.data ? together(block_z, element<T>(t.z, i, j), t.z.col, n) : g;
                gradient(out, g, z, n, t.activation, t.p);
                if (t.gz.data) put(const_cast<T*>(element<T>(t.gz, i, j)), t.gz.col, out, n);
                if (t.sums) accumulate(sum + (j - strip), out, n);
            }
            if (t.sums && (i + 1) % kRowsPerSum == 0) {
                accumulate(total, sum, end - strip);
                for (int64_t c = 0; c < end - strip; ++c) sum[c] = 0;
            }
        }
        if (!t.sums) continue;
        accumulate(total, sum, end - strip);
        for (int64_t c = strip; c < end; ++c) static_cast<S*>(t.sums)[c] = total[c - strip];
    }
}

template <class T>
void bias_finish(void* out, int64_t step, const void* sums, int64_t stride, int parts, int64_t n) {
    using S = typename compute<T>::type;
    for (int64_t j = 0; j < n; j += vec<S>::lanes) {
        alignas(64) S total[vec<S>::lanes];
        const int left = n - j < vec<S>::lanes ? static_cast<int>(n - j) : vec<S>::lanes;
        vec<S> v(S(0));
        for (int p = 0; p < parts; ++p) v = v + load(static_cast<const S*>(sums) + p * stride + j, left);
        store(total, v);
        put(static_cast<T*>(out) + j * step, step, total, left);
    }
}

template <class T>
void set_entries(cpu::MatmulEntries& e, DType dtype) {
    const int d = static_cast<int>(dtype);
    e.activate[d] = activate<T>;
    e.bias_backward[d] = bias_backward<T>;
    e.bias_finish[d] = bias_finish<T>;
}

}  // namespace

void register_activate(cpu::MatmulEntries& e) {
    set_entries<float>(e, DType::f32);
    set_entries<double>(e, DType::f64);
    set_entries<f16>(e, DType::f16);
    set_entries<bf16>(e, DType::bf16);
}

}  // namespace nk::NK_ISA
