// SDDMM over CSR patterns, float32 and float64: eight entries of a row at once, by blocks of y that stay in the second cache.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class S>
using Dense = nb::ndarray<const S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class S>
using Values = nb::ndarray<S, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t least_rows = 32, most_rows = 256, tasks_of_a_thread = 4;
constexpr std::int64_t block_bytes = 1 << 18, least_block = 64, entries_between_looks = 1 << 16;

template <class S>
using Vector = decltype(load(static_cast<const S *>(nullptr)));

// The sum of each of the vectors, in one order whatever their number.
#if defined(__AVX2__)
#if defined(__AVX512F__)
inline __m256 half(__m512 a) { return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)); }
inline __m256d half(__m512d a) { return _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1)); }
#else
inline __m256 half(__m256 a) { return a; }
inline __m256d half(__m256d a) { return a; }
#endif
template <int count>
inline void sums(const vf (&a)[count], float *to) {
    for (int i = 0; i < count; i += 4) {
        const __m256 pairs = _mm256_hadd_ps(half(a[i]), half(a[i + 1])), more = _mm256_hadd_ps(half(a[i + 2]), half(a[i + 3]));
        const __m256 fours = _mm256_hadd_ps(pairs, more);
        _mm_storeu_ps(to + i, _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
    }
}
template <int count>
inline void sums(const vd (&a)[count], double *to) {
    for (int i = 0; i < count; i += 2) {
        const __m256d pairs = _mm256_hadd_pd(half(a[i]), half(a[i + 1]));
        _mm_storeu_pd(to + i, _mm_add_pd(_mm256_castpd256_pd128(pairs), _mm256_extractf128_pd(pairs, 1)));
    }
}
#else
template <int count, class V, class S>
inline void sums(const V (&a)[count], S *to) {
    for (int i = 0; i < count; ++i) to[i] = sum(a[i]);
}
#endif

template <class I, class S>
struct Operands {
    std::int64_t n, d;
    const std::int64_t *rows;
    const I *columns;
    const S *x, *y;
    S *out;
    Lanes last;  // of the vector behind the last whole one of d
};

// Entries [p, p + there) of row i, there <= count; the others repeat the last one.
template <int count, class I, class S>
inline void dots(const Operands<I, S> &a, std::int64_t i, std::int64_t p, std::int64_t there) {
    constexpr int w = lanes<S>;
    const S *x = a.x + i * a.d, *y[count];
    Vector<S> acc[count];
#pragma GCC unroll 8
    for (int j = 0; j < count; ++j) {
        y[j] = a.y + a.columns[p + std::min<std::int64_t>(j, there - 1)] * a.d;
        acc[j] = set1(S(0));
    }
    std::int64_t c = 0;
    for (; c + w <= a.d; c += w) {
        const auto left = load(x + c);
#pragma GCC unroll 8
        for (int j = 0; j < count; ++j) acc[j] = fma(left, load(y[j] + c), acc[j]);
    }
    if (c < a.d) {
        const auto left = load(x + c, a.last);
#pragma GCC unroll 8
        for (int j = 0; j < count; ++j) acc[j] = fma(left, load(y[j] + c, a.last), acc[j]);
    }
    if (there == count) return sums<count>(acc, a.out + p);
    S found[count];
    sums<count>(acc, found);
    std::copy(found, found + there, a.out + p);
}

// Rows [first, stop), at most most_rows, in one block of columns after the other: its rows of y stay in cache.
template <class I, class S>
void take_rows(const Operands<I, S> &a, std::int64_t first, std::int64_t stop, std::int64_t block) {
    std::int64_t next[most_rows];  // entry of each row
    std::copy(a.rows + first, a.rows + stop, next);
    for (std::int64_t limit = block;; limit += block) {
        for (std::int64_t i = first; i < stop; ++i) {
            std::int64_t end = a.rows[i + 1];
            if (limit < a.n)
                for (end = next[i - first]; end < a.rows[i + 1] && a.columns[end] < limit;) ++end;
            workbench::in_runs(next[i - first], end, entries_between_looks, [&](std::int64_t p, std::int64_t until) {
                for (; p + 4 < until; p += 8) dots<8>(a, i, p, std::min<std::int64_t>(8, until - p));
                if (p < until) dots<4>(a, i, p, until - p);
            });
            next[i - first] = end;
        }
        if (limit >= a.n) return;
        workbench::check_stop();
    }
}

template <class I, class S>
void sddmm(Array<std::int64_t> indptr, Array<I> indices, Dense<S> x, Dense<S> y, Values<S> out, bool rising, int threads) {
    const std::int64_t m = static_cast<std::int64_t>(x.shape(0)), d = static_cast<std::int64_t>(x.shape(1));
    const Operands<I, S> a{static_cast<std::int64_t>(y.shape(0)), d, indptr.data(), indices.data(), x.data(), y.data(),
                           out.data(), first_lanes<S>(static_cast<int>(d % lanes<S>))};
    const workbench::WithoutGil released;
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    const std::int64_t height = std::clamp(m / (tasks_of_a_thread * workers), least_rows, most_rows);
    const std::int64_t fitting = block_bytes / (std::max<std::int64_t>(1, d) * static_cast<std::int64_t>(sizeof(S)));
    const std::int64_t block = rising ? std::max(least_block, fitting) : a.n;  // rows in any order are taken as they come
    workbench::parallel_for((m + height - 1) / height, workers, [&](std::int64_t task, int) {
        take_rows(a, task * height, std::min(m, (task + 1) * height), block);
    });
}

template <class I, class S>
void bind(nb::module_ &m) {
    m.def("sddmm", &sddmm<I, S>, nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(), nb::arg("x").noconvert(),
          nb::arg("y").noconvert(), nb::arg("out").noconvert(), nb::arg("rising"), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(sddmm) {
    bind<std::int32_t, float>(m);
    bind<std::int64_t, float>(m);
    bind<std::int32_t, double>(m);
    bind<std::int64_t, double>(m);
}
