// Two loops that do nothing but reach this CPU's ceilings: a copy, and fused multiply-adds that stay in registers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace {

constexpr int CHAINS = 12;  // independent accumulators: latency x ports, with some to spare

#if defined(__AVX512F__)
struct F32 {
    using Scalar = float;
    using Vector = __m512;
    static Vector set(float x) { return _mm512_set1_ps(x); }
    static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
};
struct F64 {
    using Scalar = double;
    using Vector = __m512d;
    static Vector set(double x) { return _mm512_set1_pd(x); }
    static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
};
#elif defined(__AVX2__)
struct F32 {
    using Scalar = float;
    using Vector = __m256;
    static Vector set(float x) { return _mm256_set1_ps(x); }
    static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
};
struct F64 {
    using Scalar = double;
    using Vector = __m256d;
    static Vector set(double x) { return _mm256_set1_pd(x); }
    static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
};
#else
template <typename T> struct Plain {  // no fused instruction at this level: one multiply and one add
    using Scalar = T;
    typedef T Vector __attribute__((vector_size(16)));
    static Vector set(T x) { return Vector{} + x; }
    static Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
};
using F32 = Plain<float>;
using F64 = Plain<double>;
#endif

template <typename F> double chain(std::int64_t steps) {
    typename F::Vector x[CHAINS];
    for (int i = 0; i < CHAINS; ++i) x[i] = F::set(static_cast<typename F::Scalar>(1 + i));
    const auto shrink = F::set(static_cast<typename F::Scalar>(0.5)), grow = F::set(static_cast<typename F::Scalar>(0.25));
    for (std::int64_t s = 0; s < steps; ++s)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; ++i) x[i] = F::fma(x[i], shrink, grow);
    double sum = 0;
    for (int i = 0; i < CHAINS; ++i) sum += static_cast<double>(x[i][0]);
    return sum;
}

// Runs the chains on every thread; returns the floating-point operations done.
template <typename F> double fma_loop(std::int64_t steps, int threads) {
    const workbench::WithoutGil released;
    volatile double sink = 0;
    workbench::parallel_for(threads, threads, [&](std::int64_t, int) {
        const double sum = chain<F>(steps);
        if (sum < 0) sink = sum;  // never taken, but the compiler must keep the loop
    });
    constexpr auto lanes = sizeof(typename F::Vector) / sizeof(typename F::Scalar);
    return 2.0 * static_cast<double>(lanes) * CHAINS * static_cast<double>(steps) * threads;
}

using Bytes = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void copy(Bytes source, Bytes target, int threads) {
    const auto n = static_cast<std::int64_t>(std::min(source.size(), target.size()));
    const std::int64_t part = (n + threads - 1) / threads;
    const workbench::WithoutGil released;
    workbench::parallel_for(threads, threads, [&](std::int64_t t, int) {
        const std::int64_t start = std::min(n, t * part), stop = std::min(n, start + part);
        std::memcpy(target.data() + start, source.data() + start, static_cast<std::size_t>(stop - start));
    });
}

}  // namespace

WORKBENCH_BIND(bind_roofline) {
    m.def("roofline_fma_f32", &fma_loop<F32>);
    m.def("roofline_fma_f64", &fma_loop<F64>);
    m.def("roofline_copy", &copy);
}
