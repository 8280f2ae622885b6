// Sum of scaled runs of neighbouring columns (banded matrices), held in vector registers while it grows: stores to a
// window in memory would be read back at another alignment by the next run, which stalls.
#pragma once
#include <bit>
#include <cstdint>

#include "bit_positions.hpp"

namespace workbench {

#if defined(__AVX512F__)
struct Doubles {
    using Vector = __m512d;
    using Mask = __mmask8;
    static constexpr int lanes = 8;
    static Vector zero() { return _mm512_setzero_pd(); }
    static Vector scaled(Mask m, double scale, const double *p) {
        return _mm512_mul_pd(_mm512_set1_pd(scale), _mm512_maskz_loadu_pd(m, p));
    }
    static Vector add(Vector sum, Mask m, Vector x) { return _mm512_mask_add_pd(sum, m, sum, x); }
    static void store(Vector x, Mask m, double *p) { _mm512_storeu_pd(p, _mm512_maskz_compress_pd(m, x)); }
};

struct Floats {
    using Vector = __m512;
    using Mask = __mmask16;
    static constexpr int lanes = 16;
    static Vector zero() { return _mm512_setzero_ps(); }
    static Vector scaled(Mask m, float scale, const float *p) {
        return _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_maskz_loadu_ps(m, p));
    }
    static Vector add(Vector sum, Mask m, Vector x) { return _mm512_mask_add_ps(sum, m, sum, x); }
    static void store(Vector x, Mask m, float *p) { _mm512_storeu_ps(p, _mm512_maskz_compress_ps(m, x)); }
};

inline Doubles vectors_of(double) { return {}; }
inline Floats vectors_of(float) { return {}; }

// bits [from, to) clipped to [0, 64)
inline std::uint64_t bit_range(std::int64_t from, std::int64_t to) {
    if (to <= 0 || from >= 64) return 0;
    const std::uint64_t below_to = to >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << to) - 1;
    return from <= 0 ? below_to : below_to & ~((std::uint64_t{1} << from) - 1);
}

// One tile: `columns` (at most lanes * n_vectors and 64) columns from `base` on. run(e, first, count, scale, values)
// yields the e-th run. -> entries written
template <int n_vectors, class I, class T, class Run>
std::int64_t sum_runs_in_tile(std::int64_t base, std::int64_t runs, Run run, I *indices, T *data) {
    using V = decltype(vectors_of(T()));
    typename V::Vector sums[n_vectors];
    for (auto &sum : sums) sum = V::zero();
    std::uint64_t covered = 0;
    for (std::int64_t e = 0; e < runs; ++e) {
        std::int64_t first, count;
        T scale;
        const T *values;
        run(e, first, count, scale, values);
        const std::int64_t start = first - base;
        const std::uint64_t range = bit_range(start, start + count);
        if (range == 0) continue;
        covered |= range;
        const T *shifted = values - start;
#pragma GCC unroll 8
        for (int v = 0; v < n_vectors; ++v) {
            const auto m = static_cast<typename V::Mask>(range >> (V::lanes * v));
            sums[v] = V::add(sums[v], m, V::scaled(m, scale, shifted + V::lanes * v));
        }
    }
    std::int64_t stored = 0;
    for (int v = 0; v < n_vectors; ++v) {
        const auto m = static_cast<typename V::Mask>(covered >> (V::lanes * v));
        V::store(sums[v], m, data + stored);
        stored += std::popcount(static_cast<std::uint32_t>(m));
    }
    store_positions(covered, static_cast<I>(base), indices);
    return stored;
}

template <class I, class T, class Run>
std::int64_t sum_runs(std::int64_t low, std::int64_t high, std::int64_t runs, Run run, I *indices, T *data) {
    constexpr int all = 64 / decltype(vectors_of(T()))::lanes;
    std::int64_t count = 0;
    for (std::int64_t base = low; base < high; base += 64) {
        const std::int64_t left = high - base;
        if (left <= 8)
            count += sum_runs_in_tile<(all / 8 > 0 ? all / 8 : 1)>(base, runs, run, indices + count, data + count);
        else if (left <= 24 && all == 8)
            count += sum_runs_in_tile<3>(base, runs, run, indices + count, data + count);
        else if (left <= 32)
            count += sum_runs_in_tile<all / 2>(base, runs, run, indices + count, data + count);
        else
            count += sum_runs_in_tile<all>(base, runs, run, indices + count, data + count);
    }
    return count;
}
#endif

}  // namespace workbench
