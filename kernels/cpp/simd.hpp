// One vector of floats (vf, W lanes) for the instruction set being compiled; loops are written once against it.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace workbench::simd {
namespace {  // one copy per source file and instruction set

#if defined(__AVX512F__)
constexpr int W = 16;
constexpr int gemm_rows = 6, gemm_vectors = 4;
using vf = __m512;
inline vf load(const float *p) { return _mm512_loadu_ps(p); }
inline void store(float *p, vf a) { _mm512_storeu_ps(p, a); }
inline vf set1(float a) { return _mm512_set1_ps(a); }
inline vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
inline vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
inline vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
inline vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
inline vf max(vf a, vf b) { return _mm512_max_ps(a, b); }  // second operand where either is NaN
inline float sum(vf a) { return _mm512_reduce_add_ps(a); }
inline float largest(vf a) { return _mm512_reduce_max_ps(a); }
inline vf round(vf a) { return _mm512_roundscale_ps(a, 0); }
inline vf scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
inline vf zero_below(vf a, vf x, vf limit) { return _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), _mm512_setzero_ps()); }
#elif defined(__AVX2__)
constexpr int W = 8;
constexpr int gemm_rows = 6, gemm_vectors = 2;
using vf = __m256;
inline vf load(const float *p) { return _mm256_loadu_ps(p); }
inline void store(float *p, vf a) { _mm256_storeu_ps(p, a); }
inline vf set1(float a) { return _mm256_set1_ps(a); }
inline vf add(vf a, vf b) { return _mm256_add_ps(a, b); }
inline vf sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
inline vf mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
inline vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
inline vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
inline float sum(vf a) {
    float lane[W];
    store(lane, a);
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}
inline float largest(vf a) {
    float lane[W];
    store(lane, a);
    float best = lane[0];
    for (int i = 1; i < W; ++i) best = lane[i] > best ? lane[i] : best;
    return best;
}
inline vf round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline vf scale2(vf a, vf n) {
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(a, _mm256_castsi256_ps(power));
}
inline vf zero_below(vf a, vf x, vf limit) { return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), a); }
#else
constexpr int W = 4;
constexpr int gemm_rows = 4, gemm_vectors = 2;
typedef float vf __attribute__((vector_size(16)));
typedef std::int32_t vi __attribute__((vector_size(16)));
inline vf load(const float *p) {
    vf a;
    __builtin_memcpy(&a, p, sizeof a);
    return a;
}
inline void store(float *p, vf a) { __builtin_memcpy(p, &a, sizeof a); }
inline vf set1(float a) { return vf{a, a, a, a}; }
inline vf add(vf a, vf b) { return a + b; }
inline vf sub(vf a, vf b) { return a - b; }
inline vf mul(vf a, vf b) { return a * b; }
inline vf fma(vf a, vf b, vf c) { return a * b + c; }
inline vf max(vf a, vf b) { return a > b ? a : b; }
inline float sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float largest(vf a) {
    float best = a[0];
    for (int i = 1; i < W; ++i) best = a[i] > best ? a[i] : best;
    return best;
}
inline vf round(vf a) {  // for |a| < 2^22, which exp2 guarantees
    const vf magic = set1(12582912.0f);
    return (a + magic) - magic;
}
inline vf scale2(vf a, vf n) {
    const vi power = (__builtin_convertvector(n, vi) + 127) << 23;
    vf factor;
    __builtin_memcpy(&factor, &power, sizeof factor);
    return a * factor;
}
inline vf zero_below(vf a, vf x, vf limit) { return x < limit ? set1(0.0f) : a; }
#endif

// 2^x to about 2 ulp for x <= 127; exactly 0 below 2^-126 (so that -inf gives 0), NaN stays NaN.
inline vf exp2(vf x) {
    const vf low = set1(-126.0f);
    const vf clamped = max(low, x);
    const vf n = round(clamped), f = sub(clamped, n);
    vf p = set1(1.5403530e-4f);  // Taylor coefficients of 2^f, ln(2)^i / i!, |f| <= 1/2
    p = fma(p, f, set1(1.3333558e-3f));
    p = fma(p, f, set1(9.6181291e-3f));
    p = fma(p, f, set1(5.5504109e-2f));
    p = fma(p, f, set1(2.4022651e-1f));
    p = fma(p, f, set1(6.9314718e-1f));
    p = fma(p, f, set1(1.0f));
    return zero_below(scale2(p, n), x, low);
}

// c[m, n] (+)= a b over k, for `rows` rows and `vectors` vectors of columns held in registers.
// a(i, p) = a[i * a_row + p * a_col]; b and c are row-major with strides ldb, ldc.
template <int rows, int vectors>
inline void gemm_tile(int k, const float *a, std::int64_t a_row, std::int64_t a_col, const float *b, std::int64_t ldb,
                      float *c, std::int64_t ldc, bool accumulate) {
    vf acc[rows][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[i][j] = accumulate ? load(c + i * ldc + j * W) : set1(0.0f);
    for (int p = 0; p < k; ++p) {
        vf line[vectors];
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) line[j] = load(b + p * ldb + j * W);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            const vf x = set1(a[i * a_row + p * a_col]);
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) acc[i][j] = fma(x, line[j], acc[i][j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) store(c + i * ldc + j * W, acc[i][j]);
}

template <int vectors>
inline void gemm_panel(int m, int k, const float *a, std::int64_t a_row, std::int64_t a_col, const float *b,
                       std::int64_t ldb, float *c, std::int64_t ldc, bool accumulate) {
    int i = 0;
    for (; i + gemm_rows <= m; i += gemm_rows)
        gemm_tile<gemm_rows, vectors>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, accumulate);
    for (; i + 2 <= m; i += 2)
        gemm_tile<2, vectors>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, accumulate);
    if (i < m) gemm_tile<1, vectors>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, accumulate);
}

// Matrix product of small blocks, n a multiple of 16.
inline void gemm(int m, int n, int k, const float *a, std::int64_t a_row, std::int64_t a_col, const float *b,
                 std::int64_t ldb, float *c, std::int64_t ldc, bool accumulate) {
    int j = 0;
    for (; j + gemm_vectors * W <= n; j += gemm_vectors * W)
        gemm_panel<gemm_vectors>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
    if constexpr (gemm_vectors > 2)
        for (; j + 2 * W <= n; j += 2 * W) gemm_panel<2>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
    for (; j + W <= n; j += W) gemm_panel<1>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
}

}  // namespace
}  // namespace workbench::simd
