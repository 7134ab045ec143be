// Activations for the epilogue, and their gradient with the bias gradient in one pass.
#include "../../math.h"
#include "../simd/vec.h"
#include "entries.h"

namespace nk::NK_ISA {

void register_activate(cpu::MatmulEntries& e);

#if defined(NK_ISA_avx512bf16)  // there the AVX-512 entries stay in force
void register_activate(cpu::MatmulEntries&) {}
#else

namespace {

constexpr int64_t kChunk = 256;      // columns whose gradient is computed at once: three rows of it stay in cache
constexpr int64_t kRowsPerSum = 32;  // rows after which a partial column sum joins the total, so that it rounds less

template <class S>
math::Params<S> params_from(const double* p) {
    return {static_cast<S>(p[0]), static_cast<S>(p[1])};
}

// x[0 .. n) = f(x), x and n such that whole vectors may be read and written.
template <class S>
void activate(void* x, int64_t n, int activation, const double* p) {
    using V = vec<S>;
    S* data = static_cast<S*>(x);
    math::visit_activation(static_cast<Activation>(activation), [&](auto op) {
        const math::Params<S> params = params_from<S>(p);
        for (int64_t i = 0; i < n; i += V::lanes) store(data + i, decltype(op)::template f<V>(load(data + i), params));
    });
}

// out = g * f'(z) over whole vectors.
template <class S>
void gradient(S* out, const S* g, const S* z, int64_t n, int activation, const double* p) {
    using V = vec<S>;
    math::visit_activation(static_cast<Activation>(activation), [&](auto op) {
        const math::Params<S> params = params_from<S>(p);
        for (int64_t i = 0; i < n; i += V::lanes)
            store(out + i, decltype(op)::template vjp<V>(load(g + i), load(z + i), params));
    });
}

template <class T>
const T* element(const cpu::MatmulOperand& x, int64_t i, int64_t j) {
    return static_cast<const T*>(x.data) + i * x.row + j * x.col;
}

// n elements, converted, in `to`, followed by zeros up to a whole vector.
template <class T, class S>
void fetch(S* to, const T* from, int64_t step, int64_t n) {
    using V = vec<S>;
    for (int64_t i = 0; i < n; i += V::lanes) {
        const int left = n - i < V::lanes ? static_cast<int>(n - i) : V::lanes;
        if (step == 1) {
            store(to + i, load(from + i, left));
        } else {
            T part[V::lanes] = {};
            for (int l = 0; l < left; ++l) part[l] = from[(i + l) * step];
            store(to + i, load(part));
        }
    }
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
    alignas(64) S g[kChunk], z[kChunk], out[kChunk], sum[kChunk], total[kChunk];
    const bool identity = t.activation == static_cast<int>(Activation::identity);
    for (int64_t j = 0; j < t.n; j += kChunk) {
        const int64_t n = t.n - j < kChunk ? t.n - j : kChunk;
        for (int64_t c = 0; c < kChunk; ++c) sum[c] = total[c] = 0;
        for (int64_t i = 0; i < t.m; ++i) {
            fetch(g, element<T>(t.g, i, j), t.g.col, n);
            const S* result = g;
            if (!identity) {
                fetch(z, element<T>(t.z, i, j), t.z.col, n);
                gradient(out, g, z, n, t.activation, t.p);
                result = out;
            }
            if (t.gz.data) put(const_cast<T*>(element<T>(t.gz, i, j)), t.gz.col, result, n);
            if (!t.sums) continue;
            accumulate(sum, result, n);
            if ((i + 1) % kRowsPerSum == 0) {
                accumulate(total, sum, n);
                for (int64_t c = 0; c < n; ++c) sum[c] = 0;
            }
        }
        if (!t.sums) continue;
        accumulate(total, sum, n);
        for (int64_t c = 0; c < n; ++c) static_cast<S*>(t.sums)[j + c] = total[c];
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
    e.activate[d] = activate<typename compute<T>::type>;
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
#endif

}  // namespace nk::NK_ISA
