// Y = X A^T for few rows of X, with A as one bit for every place and its values one after the other (float32).
//
// A register of places of a row is filled from its next values, each where its bit says: AVX-512 has an instruction for
// it, AVX2 a permutation by a table of 256 patterns. It then meets every row of X, so that A is read once.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

template <class T>
using Flat = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bits = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Dense = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t rows_of_task = 64, shared_from = 1 << 21;

struct Matrix {
    std::int64_t m, k, groups;     // of W places each
    std::int64_t stride, padded;   // bytes of bits in a row, places of a row of X
    const std::uint8_t *bits;
    const std::int64_t *starts;
    const float *values, *x;
    float *out;
};

#if defined(__AVX512F__)
using Mask = std::uint16_t;
inline vf spread(const float *values, Mask mask) { return _mm512_maskz_expandloadu_ps(mask, values); }
#elif defined(__AVX2__)
using Mask = std::uint8_t;
constexpr std::array<std::array<std::int32_t, 8>, 256> patterns() {
    std::array<std::array<std::int32_t, 8>, 256> found{};
    for (int mask = 0; mask < 256; ++mask)
        for (int i = 0, taken = 0; i < 8; ++i) found[mask][i] = mask >> i & 1 ? taken++ : -1;  // -1: a sign to clear by
    return found;
}
alignas(32) constexpr auto order = patterns();
inline vf spread(const float *values, Mask mask) {  // the format keeps seven numbers behind the last value
    const __m256i at = _mm256_load_si256(reinterpret_cast<const __m256i *>(order[mask].data()));
    const __m256 all = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), at);
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_srai_epi32(at, 31), _mm256_castps_si256(all)));
}
#else
using Mask = std::uint8_t;  // of which four bits are used
inline vf spread(const float *values, Mask mask) {
    vf found = {};
    for (int i = 0; i < W; ++i)
        if (mask >> i & 1) found[i] = *values++;
    return found;
}
#endif

inline Mask mask_at(const std::uint8_t *bits, std::int64_t group) {
    if constexpr (W == 4) return static_cast<Mask>(bits[group / 2] >> (group % 2 * 4) & 15);
    Mask mask;
    std::memcpy(&mask, bits + group * sizeof(Mask), sizeof mask);
    return mask;
}

// Rows [i, i + rows) of A with `tokens` rows of X from the one at `token`.
template <int rows, int tokens>
void take(const Matrix &a, std::int64_t i, std::int64_t token) {
    vf acc[rows][tokens];
    const float *values[rows];
    const std::uint8_t *bits[rows];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
        values[r] = a.values + a.starts[i + r], bits[r] = a.bits + (i + r) * a.stride;
#pragma GCC unroll 8
        for (int t = 0; t < tokens; ++t) acc[r][t] = set1(0.0f);
    }
    const float *x = a.x + token * a.padded;
    for (std::int64_t g = 0; g < a.groups; ++g, x += W) {
        vf part[tokens];
#pragma GCC unroll 8
        for (int t = 0; t < tokens; ++t) part[t] = load(x + t * a.padded);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
            const Mask mask = mask_at(bits[r], g);
            const vf weights = spread(values[r], mask);
            values[r] += std::popcount(mask);
#pragma GCC unroll 8
            for (int t = 0; t < tokens; ++t) acc[r][t] = fma(weights, part[t], acc[r][t]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < tokens; ++t) a.out[(token + t) * a.m + i + r] = sum(acc[r][t]);
}

template <int rows, int tokens>
void take_all(const Matrix &a, std::int64_t first, std::int64_t stop, std::int64_t token) {
    std::int64_t i = first;
    for (; i + rows <= stop; i += rows) take<rows, tokens>(a, i, token);
    for (; i < stop; ++i) take<1, tokens>(a, i, token);
}

void bitmap_spmm(Flat<float> values, Flat<std::int64_t> starts, Bits bits, Dense x, Out out, int threads) {
    const std::int64_t m = static_cast<std::int64_t>(bits.shape(0)), n = static_cast<std::int64_t>(x.shape(0));
    const std::int64_t padded = static_cast<std::int64_t>(x.shape(1)), stride = static_cast<std::int64_t>(bits.shape(1));
    const Matrix a{m, padded, padded / W, stride, padded, bits.data(), starts.data(), values.data(), x.data(), out.data()};
    const workbench::WithoutGil released;
    const int workers = m * padded * n < shared_from ? 1 : threads > 0 ? threads : workbench::get_num_threads();
    workbench::parallel_for((m + rows_of_task - 1) / rows_of_task, workers, [&](std::int64_t task, int) {
        const std::int64_t first = task * rows_of_task, stop = std::min(m, first + rows_of_task);
        std::int64_t token = 0;
        for (; token + 8 <= n; token += 8) take_all<1, 8>(a, first, stop, token);
        for (; token + 4 <= n; token += 4) take_all<2, 4>(a, first, stop, token);
        for (; token + 2 <= n; token += 2) take_all<4, 2>(a, first, stop, token);
        if (token < n) take_all<4, 1>(a, first, stop, token);
        workbench::check_stop();
    });
}

}  // namespace

WORKBENCH_BIND(bitmap_rows) {
    m.def("bitmap_spmm", &bitmap_spmm, nb::arg("values").noconvert(), nb::arg("starts").noconvert(),
          nb::arg("bits").noconvert(), nb::arg("x").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
}
